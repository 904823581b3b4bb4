//! Images for tests, built on the "laptop" without a registry.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::apt::{Need, install_missing};
use crate::engine::HostEngine;
use crate::run::read;

/// The test images in the testbed's engine on the host.
#[derive(Debug, Clone)]
pub struct TestImages {
    /// A shell and everything else of busybox, from `FROM scratch`; 2 MB.
    pub busybox: String,
}

/// Builds them if they do not exist.
pub(crate) fn build(engine: &HostEngine, scratch: &Path) -> anyhow::Result<TestImages> {
    let images = TestImages {
        busybox: "uc-test/busybox:1".to_owned(),
    };
    if !engine
        .try_docker(&["image", "inspect", &images.busybox])?
        .success()
    {
        install_missing(&[Need {
            program: "busybox",
            package: "busybox-static",
        }])?;
        build_busybox(engine, &scratch.join("busybox"), &images.busybox)
            .context("cannot make the busybox image")?;
    }
    Ok(images)
}

fn build_busybox(engine: &HostEngine, context: &Path, tag: &str) -> anyhow::Result<()> {
    let bin = context.join("bin");
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(context.join("tmp"))?;
    let busybox = bin.join("busybox");
    fs::copy(
        crate::apt::which("busybox").context("busybox is not installed")?,
        &busybox,
    )?;
    let program = busybox.to_string_lossy();
    // A hard link per applet, so that a path in `command:` needs no shell.
    for applet in read(&[&program, "--list"])?
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        fs::hard_link(&busybox, bin.join(applet))?;
    }
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY bin /bin\nCOPY tmp /tmp\nENV PATH=/bin\nCMD [\"sh\"]\n",
    )?;
    engine.docker(&["build", "--quiet", "--tag", tag, &context.to_string_lossy()])?;
    fs::remove_dir_all(context)?;
    Ok(())
}
