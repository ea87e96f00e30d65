//! The rules of the house, checked: which crate may use which, what keeps a pure crate pure, and that every room has its name on the door.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace and the crates of the workspace that it may use. Nothing points back.
const ARROWS: &[(&str, &[&str])] = &[
    ("weft-api", &[]),
    ("weft-client", &["weft-api"]),
    ("weft-router", &["weft-api"]),
    ("weft-router-io", &["weft-api", "weft-router"]),
    ("weft-ipam", &["weft-api"]),
    ("weft-docker-plugin", &["weft-api"]),
    ("weft-docker-engine", &["weft-api"]),
    ("weft-controller-state", &["weft-api", "weft-ipam"]),
    ("weft-controller", &["weft-api", "weft-ipam", "weft-controller-state"]),
    (
        "weft-agent",
        &[
            "weft-api",
            "weft-client",
            "weft-router",
            "weft-router-io",
            "weft-ipam",
            "weft-docker-plugin",
            "weft-docker-engine",
        ],
    ),
    (
        "weft",
        &[
            "weft-api",
            "weft-client",
            "weft-agent",
            "weft-controller",
            "weft-router",
            "weft-router-io",
            "weft-docker-engine",
        ],
    ),
    ("weft-lab", &[]),
    ("weft-demo", &["weft-lab"]),
    ("weft-sim", &["weft-agent", "weft-api", "weft-router", "weft-router-io"]),
    ("weft-bench", &["weft-lab", "weft-api", "weft-router", "weft-router-io"]),
    (
        "weft-tests",
        &["weft-lab", "weft-api", "weft-router", "weft-router-io", "weft-agent", "weft-controller-state"],
    ),
    ("weft-fuzz", &["weft-api", "weft-router", "weft-docker-plugin"]),
];

/// Crates that think and do not act.
const PURE: &[&str] =
    &["weft-api", "weft-router", "weft-ipam", "weft-docker-plugin", "weft-controller-state"];

/// What a pure crate may never reach, however far down: a runtime, a socket, a clock of its own, randomness.
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "quinn",
    "quinn-udp",
    "hyper",
    "axum",
    "bollard",
    "rtnetlink",
    "redb",
    "rand",
    "chrono",
    "time",
];

#[test]
fn arrows_point_one_way() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, to)| (*name, to.iter().copied().collect())).collect();
    for package in workspace().packages() {
        let uses = allowed
            .get(package.name)
            .unwrap_or_else(|| panic!("{} has no line in ARROWS: add one", package.name));
        for dependency in package.dependencies.iter().filter(|d| d.starts_with("weft")) {
            assert!(
                uses.contains(dependency),
                "{} uses {dependency}: no such arrow in ARCHITECTURE.md",
                package.name
            );
        }
    }
}

#[test]
fn only_the_engine_uses_bollard_and_only_the_router_io_opens_netlink() {
    for package in workspace().packages() {
        for (library, home) in
            [("bollard", "weft-docker-engine"), ("quinn", "weft-router-io"), ("rtnetlink", "weft-router-io")]
        {
            assert!(
                package.name == home
                    || package.name == "weft-tests"
                    || !package.dependencies.contains(library),
                "{} uses {library}, whose home is {home}",
                package.name
            );
        }
    }
}

#[test]
fn pure_crates_reach_nothing_that_acts() {
    let workspace = workspace();
    for name in PURE {
        for reached in workspace.reached_from(name) {
            assert!(!IMPURE.contains(&reached.as_str()), "{name} is pure but reaches {reached}");
        }
    }
}

#[test]
fn pure_crates_have_the_purity_lint() {
    for package in workspace().packages().filter(|p| PURE.contains(&p.name)) {
        let lint = std::fs::read_to_string(package.dir.join("clippy.toml"))
            .unwrap_or_else(|e| panic!("{} has no clippy.toml: {e}", package.name));
        assert!(
            lint.contains("std::time::Instant::now"),
            "{}'s clippy.toml does not forbid clocks",
            package.name
        );
    }
}

#[test]
fn every_room_has_its_name_on_the_door() {
    let mut mute = Vec::new();
    for file in rust_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        if !text.starts_with("//!") {
            mute.push(file);
        }
    }
    assert!(mute.is_empty(), "files without //! in the first line: {mute:#?}");
}

#[test]
fn no_room_is_a_hall() {
    const HALL: usize = 600;
    let mut halls = Vec::new();
    for file in rust_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).count();
        if lines > HALL {
            halls.push((lines, file));
        }
    }
    assert!(halls.is_empty(), "files over {HALL} lines before their tests; cut them in two: {halls:#?}");
}

#[test]
fn no_room_is_a_grab_bag() {
    for file in rust_files() {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !["util", "utils", "common", "helpers", "types", "misc"].contains(&stem.as_str()),
            "{} says nothing",
            file.display()
        );
    }
}

#[test]
fn unsafe_has_one_home() {
    for file in rust_files() {
        let path = file.to_string_lossy().into_owned();
        if path.ends_with("router/io/src/sys.rs") || path.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("unsafe {") && !text.contains("unsafe fn"),
            "{path} has unsafe code; its home is router/io/src/sys.rs"
        );
    }
}

struct Package<'a> {
    name: &'a str,
    dir: PathBuf,
    dependencies: BTreeSet<&'a str>,
}

struct Workspace(Value);

impl Workspace {
    fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        let members: BTreeSet<&str> =
            self.0["workspace_members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
        self.0["packages"]
            .as_array()
            .unwrap()
            .iter()
            .filter(move |p| members.contains(p["id"].as_str().unwrap()))
            .map(|p| Package {
                name: p["name"].as_str().unwrap(),
                dir: Path::new(p["manifest_path"].as_str().unwrap()).parent().unwrap().to_path_buf(),
                dependencies: p["dependencies"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|d| d["kind"].is_null())
                    .map(|d| d["name"].as_str().unwrap())
                    .collect(),
            })
    }

    /// Every crate that `name` reaches through normal dependencies, with the features that the workspace resolves.
    fn reached_from(&self, name: &str) -> BTreeSet<String> {
        let names: BTreeMap<&str, &str> = self.0["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
            .collect();
        let nodes: BTreeMap<&str, &Value> = self.0["resolve"]["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| (n["id"].as_str().unwrap(), n))
            .collect();
        let mut todo: Vec<&str> = names.iter().filter(|(_, n)| **n == name).map(|(id, _)| *id).collect();
        let mut seen: BTreeSet<&str> = todo.iter().copied().collect();
        while let Some(id) = todo.pop() {
            for dependency in nodes[id]["deps"].as_array().unwrap() {
                let normal = dependency["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"].is_null());
                let to = dependency["pkg"].as_str().unwrap();
                if normal && seen.insert(to) {
                    todo.push(to);
                }
            }
        }
        seen.into_iter().map(|id| names[id].to_owned()).collect()
    }
}

fn workspace() -> Workspace {
    let out = Command::new(env!("CARGO"))
        // For this machine alone: what only others need was never fetched here.
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", "host-tuple"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    Workspace(serde_json::from_slice(&out.stdout).unwrap())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rust_files() -> Vec<PathBuf> {
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().expect("git runs");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let files: Vec<PathBuf> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|l| root().join(l))
        .filter(|f| f.exists())
        .collect();
    assert!(files.len() > 20, "git ls-files found only {} files", files.len());
    files
}
