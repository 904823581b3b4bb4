//! Progress for a person, one line a step, on standard error. Test programs and `xtask` have no
//! printer of their own to go through.

/// A line about a testbed.
pub(crate) fn say(line: &str) {
    print("testbed", line);
}

/// A line about a fresh machine.
pub(crate) fn report_fresh(line: &str) {
    print("fresh", line);
}

#[expect(clippy::print_stderr, reason = "the one place where this crate prints")]
fn print(subject: &str, line: &str) {
    eprintln!("{subject}: {line}");
}
