//! One static binary: nothing beside it is needed.

use std::process::Command;

use weft_lab::ImageFile;

use crate::fixture::hosts;

#[test]
fn it_is_static_and_runs_in_an_empty_container() {
    let Some(lab) = hosts(1) else { return };
    let weft = lab.weft().expect("a built weft").to_owned();
    let ldd = Command::new("ldd").arg(&weft).output().expect("ldd runs");
    let said = format!("{}{}", String::from_utf8_lossy(&ldd.stdout), String::from_utf8_lossy(&ldd.stderr));
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");

    let host = lab.host("h1");
    host.import("empty", &[ImageFile::Copy { to: "weft".into(), from: weft.clone() }]).unwrap();
    let version = host.docker(["run", "--rm", "--network", "none", "empty", "/weft", "--version"]).unwrap();
    assert!(version.starts_with("weft "), "{version}");
    let help = host.docker(["run", "--rm", "--network", "none", "empty", "/weft", "--help"]).unwrap();
    for command in
        ["init", "join", "up", "leave", "status", "hosts", "links", "ps", "network", "token", "mesh"]
    {
        assert!(help.contains(command), "{command} is missing in:\n{help}");
    }
}
