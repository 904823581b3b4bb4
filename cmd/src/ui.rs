//! The only module that writes to the terminal: data to stdout, everything else to stderr, colours
//! where they are wanted, questions where a person can answer.
//!
//! A closed stdout ends a command ([`CliError::stdout`]). A closed stderr never does: a deployment
//! must not stop because its output is not read.

mod progress;
mod table;

use std::borrow::Cow;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
pub(crate) use progress::{LineStyle, Progress, Task};
use serde::Serialize;
pub(crate) use table::{Cell, Table};

use crate::env::Env;
use crate::error::{CliError, CliResult, Kind};
use crate::text;

/// Success; what is added.
pub(crate) const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
/// Warnings; what is replaced.
pub(crate) const YELLOW: Style =
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
/// Failure; what is removed.
pub(crate) const RED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
/// Names, paths, commands.
pub(crate) const CYAN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));
/// Headings.
pub(crate) const BOLD: Style = Style::new().bold();
/// Details that are seldom read.
pub(crate) const DIM: Style = Style::new().dimmed();

/// The terminal.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    /// A person can answer questions: stdin and stderr are a terminal.
    interactive: bool,
    /// Progress is shown as moving lines.
    live: bool,
    style: LineStyle,
}

impl Ui {
    /// The terminal of this process.
    pub(crate) fn new(env: &Env) -> Self {
        let stderr = io::stderr().is_terminal();
        Self {
            interactive: io::stdin().is_terminal() && stderr,
            live: stderr && !env.no_progress && !env.dumb_terminal,
            style: LineStyle { ascii: env.ascii },
        }
    }

    /// Writes data to stdout, with a line break at the end.
    pub(crate) fn out(&self, text: &str) -> CliResult {
        write_stdout(&self.encode(text))
    }

    /// A table: cut to the terminal's width where stdout is one, in full everywhere else.
    pub(crate) fn table(&self, table: &Table) -> CliResult {
        self.out(&table.render_within(Self::columns()))
    }

    /// The width of the terminal on stdout; `None` where stdout is not a terminal or has no size.
    pub(crate) fn columns() -> Option<usize> {
        let (columns, _) = crate::term::size()?;
        usize::try_from(columns).ok()
    }

    /// Writes data to stdout, one line each. Without lines nothing is written.
    pub(crate) fn lines(&self, lines: &[String]) -> CliResult {
        if lines.is_empty() {
            Ok(())
        } else {
            self.out(&lines.join("\n"))
        }
    }

    /// Writes data to stdout as indented JSON.
    #[expect(
        clippy::unused_self,
        reason = "only a caller that has the Ui can write"
    )]
    pub(crate) fn json(&self, value: &impl Serialize) -> CliResult {
        write_stdout(&serde_json::to_string_pretty(value)?)
    }

    /// Writes a list as JSON.
    pub(crate) fn json_list<T: Serialize>(&self, items: impl Iterator<Item = T>) -> CliResult {
        self.json(&items.collect::<Vec<_>>())
    }

    /// Writes bytes of a container's stdout as they are, with colours and escape sequences.
    #[expect(
        clippy::unused_self,
        reason = "only a caller that has the Ui can write"
    )]
    pub(crate) fn raw_out(&self, bytes: &[u8]) -> CliResult {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(CliError::stdout)
    }

    /// Writes bytes of a container's stderr as they are. They are data, too, so the command ends
    /// when the reader closes the pipe. That is an error, because it hides what failed.
    #[expect(
        clippy::unused_self,
        reason = "only a caller that has the Ui can write"
    )]
    pub(crate) fn raw_err(&self, bytes: &[u8]) -> CliResult {
        io::stderr()
            .lock()
            .write_all(bytes)
            .map_err(|error| CliError::failed("cannot write to stderr").source(error))
    }

    /// Reports what was done, or what is happening. Always `Ok`: see the head of this file.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "commands end with `ui.status(…)` as with `ui.out(…)`"
    )]
    pub(crate) fn status(&self, text: &str) -> CliResult {
        let text = self.encode(text);
        let mut err = anstream::stderr().lock();
        _ = err.write_all(text.as_bytes());
        if !text.ends_with('\n') {
            _ = err.write_all(b"\n");
        }
        _ = err.flush();
        Ok(())
    }

    /// Warns. Always `Ok`, as [`Ui::status`].
    pub(crate) fn warn(&self, text: &str) -> CliResult {
        let style = YELLOW.bold();
        self.status(&format!(
            "{style}warning{style:#}: {}",
            text::lines(text, "")
        ))
    }

    /// Says what the user can do next. Always `Ok`, as [`Ui::status`].
    pub(crate) fn hint(&self, text: &str) -> CliResult {
        let style = CYAN.bold();
        self.status(&format!(
            "{style}hint{style:#}: {}",
            text::lines(text, "      ")
        ))
    }

    /// Prints an error, the last thing that a command writes. `json`: also as a document on stdout,
    /// in one line, because `uc logs` prints a document a line.
    pub(crate) fn error(&self, error: &CliError, json: bool) {
        if json && error.kind != Kind::BrokenPipe {
            // The exit code says that it failed, whether or not stdout is still read.
            _ = write_stdout(&error.to_json().to_string());
        }
        let text = error.render();
        if !text.is_empty() {
            _ = self.status(&text);
        }
    }

    fn encode<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.style.ascii {
            Cow::Owned(text::ascii(text))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Shows the progress of several tasks at the same time, on stderr.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.live, self.style)
    }
}

fn write_stdout(text: &str) -> CliResult {
    let mut out = anstream::stdout().lock();
    let mut write = || {
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(CliError::stdout)
}

impl Ui {
    /// Asks a question. Only `y` and `yes` mean yes. Without a terminal it fails. `yes`: do not
    /// ask. `action` completes "confirmation is required before …".
    pub(crate) async fn confirm(&self, question: &str, yes: bool, action: &str) -> CliResult {
        if yes {
            return Ok(());
        }
        let open = self.ask(question, action)?;
        let line = read_answer_on_a_thread().await?;
        open.end(&line);
        decide(&line)
    }

    /// Whether a person can answer questions.
    pub(crate) fn interactive(&self) -> bool {
        self.interactive
    }

    /// Asks for a number from 1 to `count`, again after any other answer. An empty answer cancels.
    pub(crate) async fn choose(&self, question: &str, count: usize) -> CliResult<usize> {
        loop {
            let open = OpenQuestion::ask(&format!(
                "{BOLD}{question}{BOLD:#} {DIM}[1-{count}]{DIM:#} "
            ));
            let line = read_answer_on_a_thread().await?;
            open.end(&line);
            match line.trim().parse() {
                Ok(number) if (1..=count).contains(&number) => return Ok(number),
                _ if line.trim().is_empty() => return Err(CliError::cancelled()),
                _ => self.status(&format!("enter a number from 1 to {count}"))?,
            }
        }
    }

    /// Asks for a line of text. Only where [`interactive`](Self::interactive) is true.
    pub(crate) async fn ask_for_line(&self, question: &str) -> CliResult<String> {
        let open = OpenQuestion::ask(&format!("{BOLD}{question}{BOLD:#} "));
        let line = read_answer_on_a_thread().await?;
        open.end(&line);
        Ok(line)
    }

    fn ask(&self, question: &str, action: &str) -> CliResult<OpenQuestion> {
        if !self.interactive {
            return Err(CliError::usage(format!(
                "confirmation is required before {action}, but stdin is not a terminal"
            ))
            .hint("add `-y` to continue without a question (or set UC_AUTO_CONFIRM=1)"));
        }
        Ok(OpenQuestion::ask(&format!(
            "{BOLD}{question}{BOLD:#} {DIM}[y/N]{DIM:#} "
        )))
    }
}

/// A question on the terminal without its answer. When it ends with Ctrl-C or without an answer,
/// the cursor is still in its line, and a line break is missing.
#[derive(Debug)]
struct OpenQuestion {
    in_line: bool,
}

impl OpenQuestion {
    fn ask(text: &str) -> Self {
        let mut err = anstream::stderr().lock();
        _ = err.write_all(text.as_bytes());
        _ = err.flush();
        Self { in_line: true }
    }

    /// The terminal has echoed the answer, and its line break.
    fn end(mut self, answer: &str) {
        self.in_line = !answer.ends_with('\n');
    }
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        if self.in_line {
            _ = anstream::stderr().lock().write_all(b"\n");
        }
    }
}

fn decide(line: &str) -> CliResult {
    if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CliError::cancelled())
}

/// Reads on a thread of its own, so that Ctrl-C ends the question immediately.
async fn read_answer_on_a_thread() -> CliResult<String> {
    tokio::task::spawn_blocking(read_answer)
        .await
        .map_err(|error| CliError::failed("cannot read the answer").source(error))?
}

fn read_answer() -> CliResult<String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| CliError::failed("cannot read the answer").source(error))?;
    Ok(line)
}
