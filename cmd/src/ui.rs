//! The only way to write to the terminal: data to stdout, all else to stderr, colour where it is
//! wanted, questions where somebody can answer.

mod progress;
mod table;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
pub(crate) use progress::{Progress, Task};
use serde::Serialize;
pub(crate) use table::{Cell, Table};

use crate::env::Env;
use crate::error::{CliError, CliResult};

/// What went well, what is added.
pub(crate) const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
/// What is replaced, what is in between.
pub(crate) const YELLOW: Style =
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
/// What failed, what is removed.
pub(crate) const RED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
/// Names, paths, commands.
pub(crate) const CYAN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));
/// Headings.
pub(crate) const BOLD: Style = Style::new().bold();
/// What is there and seldom read.
pub(crate) const DIM: Style = Style::new().dimmed();

/// The terminal.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    /// Somebody can be asked.
    interactive: bool,
    /// Progress may move.
    live: bool,
}

impl Ui {
    /// As the process finds it.
    pub(crate) fn new(env: &Env) -> Self {
        let stderr = io::stderr().is_terminal();
        Self {
            interactive: io::stdin().is_terminal() && stderr,
            live: stderr && !env.no_progress && !env.dumb_terminal,
        }
    }
}

#[expect(
    clippy::unused_self,
    reason = "whoever writes must have been given the terminal"
)]
impl Ui {
    /// Data, with an end of line.
    pub(crate) fn out(&self, text: &str) -> CliResult {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Data, one line each, or nothing at all.
    pub(crate) fn lines(&self, lines: &[String]) -> CliResult {
        if lines.is_empty() {
            Ok(())
        } else {
            self.out(&lines.join("\n"))
        }
    }

    /// Data as JSON, indented, alone on stdout.
    pub(crate) fn json(&self, value: &impl Serialize) -> CliResult {
        self.out(&serde_json::to_string_pretty(value)?)
    }

    /// Bytes as they are, colours and all: what a container wrote to its stdout.
    pub(crate) fn raw_out(&self, bytes: &[u8]) -> CliResult {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Bytes as they are: what a container wrote to its stderr.
    pub(crate) fn raw_err(&self, bytes: &[u8]) -> CliResult {
        Ok(io::stderr().lock().write_all(bytes)?)
    }

    /// What was done or is going on.
    pub(crate) fn status(&self, text: &str) -> CliResult {
        let mut err = anstream::stderr().lock();
        err.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            err.write_all(b"\n")?;
        }
        Ok(err.flush()?)
    }

    /// Something that may be wrong.
    pub(crate) fn warn(&self, text: &str) -> CliResult {
        let style = YELLOW.bold();
        self.status(&format!("{style}warning{style:#}: {text}"))
    }

    /// What to do next.
    pub(crate) fn hint(&self, text: &str) -> CliResult {
        let style = CYAN.bold();
        self.status(&format!("{style}hint{style:#}: {text}"))
    }

    /// An error, as the last thing that is written. Nothing can be done if this fails.
    pub(crate) fn error(&self, error: &CliError) {
        _ = anstream::stderr()
            .lock()
            .write_all(error.render().as_bytes());
    }
}

impl Ui {
    /// Asks; only `y` and `yes` are a yes. `yes`: do not ask. `doing` completes "cannot ask before
    /// …".
    pub(crate) async fn confirm(&self, question: &str, yes: bool, doing: &str) -> CliResult {
        if yes {
            return Ok(());
        }
        self.ask(question, doing)?;
        // On a thread of its own, so that Ctrl-C ends the question at once.
        let answer = tokio::task::spawn_blocking(read_answer);
        let line = answer
            .await
            .map_err(|error| CliError::failed("the question failed").source(error))??;
        self.decide(&line)
    }

    /// [`Ui::confirm`] where there is no runtime.
    pub(crate) fn confirm_now(&self, question: &str, yes: bool, doing: &str) -> CliResult {
        if yes {
            return Ok(());
        }
        self.ask(question, doing)?;
        let line = read_answer()?;
        self.decide(&line)
    }

    /// [`Ui::confirm`] where a terminal is there, and no question where there is none: for what a
    /// person has spelled out already.
    pub(crate) async fn confirm_if_possible(&self, question: &str, yes: bool) -> CliResult {
        self.confirm(question, yes || !self.interactive, "").await
    }

    /// Whether somebody can be asked.
    pub(crate) fn interactive(&self) -> bool {
        self.interactive
    }

    /// Asks for one of the numbers from 1 to `count`; what is neither is asked again, an empty
    /// answer changes nothing.
    pub(crate) async fn choose(&self, question: &str, count: usize) -> CliResult<usize> {
        loop {
            {
                let mut err = anstream::stderr().lock();
                write!(err, "{BOLD}{question}{BOLD:#} {DIM}[1-{count}]{DIM:#} ")?;
                err.flush()?;
            }
            let answer = tokio::task::spawn_blocking(read_answer);
            let line = answer
                .await
                .map_err(|error| CliError::failed("the question failed").source(error))??;
            match line.trim().parse() {
                Ok(number) if (1..=count).contains(&number) => return Ok(number),
                _ if line.trim().is_empty() => return Err(self.cancelled()?),
                _ => self.status(&format!(
                    "that is none of them: write a number from 1 to {count}"
                ))?,
            }
        }
    }

    fn cancelled(&self) -> CliResult<CliError> {
        self.status("cancelled; nothing was changed")?;
        Ok(CliError::failed(""))
    }

    fn ask(&self, question: &str, doing: &str) -> CliResult {
        if !self.interactive {
            return Err(CliError::usage(format!(
                "cannot ask before {doing}: there is no terminal"
            ))
            .hint("add `-y` to go ahead without a question (or set UC_AUTO_CONFIRM=1)"));
        }
        let mut err = anstream::stderr().lock();
        write!(err, "{BOLD}{question}{BOLD:#} {DIM}[y/N]{DIM:#} ")?;
        Ok(err.flush()?)
    }

    fn decide(&self, line: &str) -> CliResult {
        if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(self.cancelled()?)
    }

    /// Progress of several things at once, on stderr.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.live)
    }
}

fn read_answer() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map(|_| line)
}
