//! What the testbed tells a person while it works: one line a step, on standard error.

/// Prints one line for a person. Test programs and `xtask` have no printer of their own to go
/// through.
#[expect(
    clippy::print_stderr,
    reason = "the one place where the testbed speaks"
)]
pub(crate) fn say(line: &str) {
    eprintln!("testbed: {line}");
}
