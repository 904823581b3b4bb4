//! Generates `api/src/generated` from `api/proto` with protox, so that builds need neither `protoc`
//! nor a build script. The result is committed. `--check` fails if it is outdated.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

pub(crate) const PROTOS: [&str; 8] = [
    "uc/v1/spec.proto",
    "uc/v1/record.proto",
    "uc/v1/machine.proto",
    "uc/v1/service.proto",
    "uc/v1/node.proto",
    "uc/v1/peer.proto",
    "uc/v1/deployment.proto",
    "uc/v1/conflict.proto",
];

/// Arguments of `codegen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Compare with the committed code instead of writing it
    #[arg(long)]
    pub(crate) check: bool,
}

/// Generates into `api/src/generated`; with `--check`, compares instead of writing.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let include = root.join("api/proto");
    let committed = root.join("api/src/generated");
    let scratch = root.join("target/codegen");
    fs::create_dir_all(&scratch)?;
    fs::create_dir_all(&committed)?;
    let descriptors = protox::compile(PROTOS, [&include]).context("api/proto does not compile")?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .out_dir(&scratch)
        .type_attribute(".uc.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".uc.v1", "#[serde(default)]")
        .compile_fds_with_config(descriptors, config)?;
    let name = "uc.v1.rs";
    let fresh = fs::read_to_string(scratch.join(name))?;
    let target = committed.join(name);
    if fs::read_to_string(&target).is_ok_and(|old| old == fresh) {
        return Ok(());
    }
    anyhow::ensure!(
        !arguments.check,
        "{} is outdated: api/proto has changed\nhint: run `cargo xtask codegen` and commit the result",
        target.display()
    );
    fs::write(&target, fresh)?;
    Ok(())
}
