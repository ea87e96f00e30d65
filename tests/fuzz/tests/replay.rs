//! Replays seeds, the stored corpus and every crash that was found: quick, and part of `make test`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, in its helpers too")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use weft_fuzz::TARGETS;

fn stored(kind: &str, target: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).map(|d| d.map(|f| f.unwrap().path()).collect()).unwrap_or_default();
    files.sort();
    files
}

#[test]
fn what_fuzzing_has_found_stays_mended() {
    let (mut broken, mut replayed) = (Vec::new(), 0);
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        let seeds = seeds.into_iter().enumerate().map(|(n, bytes)| (format!("seed {n}"), bytes));
        let files = [stored("corpus", target.name), stored("crashes", target.name)].concat();
        let files = files.into_iter().map(|f| (f.display().to_string(), std::fs::read(&f).unwrap()));
        for (name, bytes) in seeds.chain(files) {
            replayed += 1;
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
                broken.push(format!("{}: {name}", target.name));
            }
        }
    }
    println!("{replayed} inputs replayed");
    assert!(broken.is_empty(), "promises broken, each said above: {broken:#?}");
}

#[test]
fn every_stored_input_belongs_to_a_target() {
    for kind in ["corpus", "crashes"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(weft_fuzz::target(&name).is_some(), "{}/{name} is no target's", directory.display());
        }
    }
}
