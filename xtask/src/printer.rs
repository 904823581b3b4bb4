//! Where `xtask` speaks: results on standard output, everything for the person on standard error.

/// One line of a result.
#[expect(
    clippy::print_stdout,
    reason = "the one place where xtask prints results"
)]
pub(crate) fn data(line: &str) {
    println!("{line}");
}

/// One line for the person.
#[expect(
    clippy::print_stderr,
    reason = "the one place where xtask talks to the person"
)]
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}
