//! Runs other programs and keeps their output. An error names the command and the reason.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use anyhow::{Context as _, bail};

use crate::apt::search_path;
use crate::state::Lock;

/// Pause between two evaluations of a condition in [`wait_for`].
const POLL: Duration = Duration::from_millis(50);

/// What a program printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, as one would type it.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, with invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, with invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Returns the output if the exit code is 0, else an error with the whole output.
    pub fn checked(self) -> anyhow::Result<Self> {
        if self.success() {
            Ok(self)
        } else {
            bail!("{self}")
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(formatter, "`{}` failed with exit code {code}", self.command)?,
            None => write!(formatter, "`{}` was killed by a signal", self.command)?,
        }
        for part in [&self.stdout, &self.stderr] {
            let part = part.trim_end();
            if !part.is_empty() {
                write!(formatter, "\n{part}")?;
            }
        }
        Ok(())
    }
}

/// A command from its words; the first is the program. It is also found in the system's directories
/// that `PATH` lacks.
///
/// # Panics
/// When `words` is empty.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("PATH", search_path());
    command
}

/// The words of a command as one line.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs to the end with empty standard input. Fails only when the program cannot be started.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<Output> {
    capture_with(command, Stdio::null())
}

/// Runs a program that changes the host to the end, and lets it hold the lock. An exit code other
/// than 0 is an error.
pub(crate) fn change(lock: &Lock, command: &mut Command) -> anyhow::Result<()> {
    capture_with(command, lock.stdin()?)?.checked()?;
    Ok(())
}

fn capture_with(command: &mut Command, stdin: Stdio) -> anyhow::Result<Output> {
    let line = shown(command);
    let output = command
        .stdin(stdin)
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    Ok(Output {
        command: line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs to the end and returns standard output; an exit code other than 0 is an error.
pub(crate) fn read(words: &[&str]) -> anyhow::Result<String> {
    Ok(capture(&mut command(words))?.checked()?.stdout)
}

/// Evaluates a condition repeatedly until it returns a value. After `limit`, the error contains
/// `what` and the last error of the condition.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                return Err(error.context(format!(
                    "timed out after {} s waiting for {what}",
                    limit.as_secs()
                )));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_command_error_shows_code_and_both_streams() {
        let error = capture(&mut command(&[
            "sh",
            "-c",
            "echo out; echo err >&2; exit 3",
        ]))
        .expect("sh runs")
        .checked()
        .expect_err("exit code 3");
        let text = error.to_string();
        assert_eq!(
            text,
            "`sh -c echo out; echo err >&2; exit 3` failed with exit code 3\nout\nerr"
        );
    }

    #[test]
    fn missing_program_is_named() {
        let error = read(&["/nonexistent/program", "x"]).expect_err("no such program");
        assert_eq!(error.to_string(), "cannot run `/nonexistent/program x`");
    }

    #[test]
    fn wait_for_returns_the_first_value() {
        let mut looks = 0;
        let value = wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                bail!("only {looks}")
            }
        });
        assert_eq!(value.expect("comes"), 3);
    }

    #[test]
    fn wait_for_reports_the_last_error_after_the_limit() {
        let error = wait_for::<()>("rain", Duration::ZERO, || bail!("the sky is clear"))
            .expect_err("never");
        assert_eq!(
            format!("{error:#}"),
            "timed out after 0 s waiting for rain: the sky is clear"
        );
    }
}
