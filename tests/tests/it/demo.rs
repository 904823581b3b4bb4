//! The demo that the README recommends.

use std::path::Path;
use std::process::Command;

use uc_testbed::Turn;

use crate::possible;

#[test]
fn demo_completes() {
    if !possible() {
        return;
    }
    let _turn = Turn::take();
    let demo = Command::new(env!("CARGO"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "xtask",
            "--",
            "demo",
            "--name",
            "it-demo",
        ])
        .output()
        .expect("cargo runs");
    let (said, complained) = (
        String::from_utf8_lossy(&demo.stdout),
        String::from_utf8_lossy(&demo.stderr),
    );
    assert!(demo.status.success(), "{said}\n{complained}");
    assert!(
        said.contains("500 packets transmitted, 500 received"),
        "{said}"
    );
    assert!(said.contains("The demo completed"), "{said}");
}
