//! `cargo xtask`: everything the house does that cargo does not.
mod codegen;
use std::path::Path;
fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default();
    codegen::run(&root, false)
}
