//! Output of `xtask`: results go to standard output, messages to standard error.

/// Prints one line of a result.
#[expect(
    clippy::print_stdout,
    reason = "the one place where xtask prints results"
)]
pub(crate) fn data(line: &str) {
    println!("{line}");
}

/// Prints one line of a message.
#[expect(
    clippy::print_stderr,
    reason = "the one place where xtask prints messages"
)]
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}
