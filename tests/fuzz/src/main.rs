//! libFuzzer around the target that `WEFT_FUZZ_TARGET` names; tests/fuzz/run.sh builds and starts it. With `WEFT_FUZZ_SEEDS`
//! naming a directory it writes the target's seeds there first.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use weft_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn begin() {
    let name = std::env::var("WEFT_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = weft_fuzz::target(&name) else {
        let known: Vec<&str> = weft_fuzz::TARGETS.iter().map(|t| t.name).collect();
        eprintln!("WEFT_FUZZ_TARGET={name:?} is no target; there are {}", known.join(" "));
        std::process::exit(2);
    };
    if let Ok(directory) = std::env::var("WEFT_FUZZ_SEEDS") {
        for (n, seed) in (target.seeds)().iter().enumerate() {
            let path = Path::new(&directory).join(format!("seed-{n}"));
            if let Err(error) = std::fs::write(&path, seed) {
                eprintln!("cannot write {}: {error}", path.display());
                std::process::exit(2);
            }
        }
    }
    TARGET.get_or_init(|| target);
}

fuzz_target!(init: begin(), |bytes: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(bytes);
    }
});
