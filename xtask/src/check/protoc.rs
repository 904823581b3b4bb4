//! The protocol compiles with Google's protoc, which people of other languages use. Our own code is
//! generated with protox, which accepts some names that protoc refuses.

use std::path::Path;
use std::process::Command;

use uc_testbed::host;

use crate::codegen::PROTOS;
use crate::process::run;

pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    host::ensure_program("protoc", "protobuf-compiler")?;
    run(Command::new("protoc")
        .current_dir(root)
        .args(["--proto_path=api/proto", "--descriptor_set_out=/dev/null"])
        .args(PROTOS))
}
