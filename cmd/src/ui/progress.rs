//! Progress of several tasks at the same time: moving lines on a terminal, plain lines elsewhere.

mod pace;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pace::Pace;

use super::{CYAN, DIM, GREEN, RED, YELLOW};
use crate::text::{ascii, one_line};

/// A group of tasks.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// `None`: plain lines.
    bars: Option<MultiProgress>,
    style: LineStyle,
}

/// How lines are printed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LineStyle {
    /// Print only ASCII.
    pub(crate) ascii: bool,
}

/// One task that takes time.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    label: String,
    shown: Shown,
    style: LineStyle,
}

#[derive(Debug, Clone)]
enum Shown {
    /// A moving line.
    Bar(MultiProgress, ProgressBar),
    /// Plain lines, as many as the pace admits.
    Lines(Arc<Mutex<Pace>>),
}

impl Progress {
    /// `live`: moving lines.
    pub(crate) fn new(live: bool, style: LineStyle) -> Self {
        let target = || MultiProgress::with_draw_target(draw_target());
        Self {
            bars: live.then(target),
            style,
        }
    }

    /// Starts a task of unknown length.
    pub(crate) fn task(&self, label: impl Into<String>) -> Task {
        let label = one_line(&label.into());
        let bar = |bars: &MultiProgress| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(self.bar_style("{spinner:.cyan} {prefix}  {wide_msg:.dim}"));
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        };
        self.start(label.clone(), bar)
    }

    /// Starts a transfer of this many bytes. 0: the number is not known.
    pub(crate) fn transfer(&self, label: impl Into<String>, bytes: u64) -> Task {
        let label = one_line(&label.into());
        if self.bars.is_none() {
            self.line(&format!("{DIM}…{DIM:#} {label}"));
        }
        let bar = |bars: &MultiProgress| {
            let (bar, template) = if bytes == 0 {
                (
                    ProgressBar::new_spinner(),
                    "{spinner:.cyan} {prefix}  {bytes} {binary_bytes_per_sec:.dim}",
                )
            } else {
                (
                    ProgressBar::new(bytes),
                    "{spinner:.cyan} {prefix}  {bar:20.cyan/dim} {bytes}/{total_bytes} {binary_bytes_per_sec:.dim}",
                )
            };
            let bar = bars.add(bar);
            bar.set_style(self.bar_style(template));
            bar.set_prefix(label.clone());
            bar
        };
        self.start(label.clone(), bar)
    }

    fn start(&self, label: String, bar: impl FnOnce(&MultiProgress) -> ProgressBar) -> Task {
        let shown = match &self.bars {
            Some(bars) => Shown::Bar(bars.clone(), bar(bars)),
            None => Shown::Lines(Arc::default()),
        };
        Task {
            label,
            shown,
            style: self.style,
        }
    }

    /// Prints a line above the moving ones.
    pub(crate) fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| write_line(text, self.style)),
            None => write_line(text, self.style),
        }
    }

    /// Hides the moving lines until the returned value is dropped.
    pub(crate) fn hide(&self) -> Hidden<'_> {
        if let Some(bars) = &self.bars {
            _ = bars.clear();
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        Hidden(self)
    }

    fn bar_style(&self, template: &str) -> ProgressStyle {
        let style =
            ProgressStyle::with_template(template).expect("the templates of this file are valid");
        if self.style.ascii {
            style.tick_chars("|/-\\ ").progress_chars("=> ")
        } else {
            style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        }
    }
}

/// The moving lines of a [`Progress`] are not drawn while this exists.
#[derive(Debug)]
#[must_use]
pub(crate) struct Hidden<'a>(&'a Progress);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if let Some(bars) = &self.0.bars {
            bars.set_draw_target(draw_target());
        }
    }
}

fn draw_target() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(12)
}

impl Task {
    /// Shows what the task does now.
    pub(crate) fn update(&self, message: &str) {
        let message = one_line(message.trim());
        match &self.shown {
            Shown::Bar(_, bar) => bar.set_message(message),
            Shown::Lines(pace) => {
                let admitted = pace
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .admits(Instant::now(), &message);
                if !admitted {
                    return;
                }
                let text = match message.as_str() {
                    "" => format!("{DIM}…{DIM:#} {}", self.label),
                    message => format!("{DIM}…{DIM:#} {}  {DIM}{message}{DIM:#}", self.label),
                };
                write_line(&text, self.style);
            }
        }
    }

    /// Adds transferred bytes.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Shown::Bar(_, bar) = &self.shown {
            bar.inc(bytes);
        }
    }

    /// Ends the task: it succeeded.
    pub(crate) fn done(self, message: &str) {
        self.finish(&format!("{GREEN}✔{GREEN:#}"), message);
    }

    /// Ends the task: it failed.
    pub(crate) fn failed(self, message: &str) {
        self.finish(&format!("{RED}✘{RED:#}"), message);
    }

    /// Ends the task: it was rolled back.
    pub(crate) fn undone(self, message: &str) {
        self.finish(&format!("{YELLOW}↩{YELLOW:#}"), message);
    }

    fn finish(self, mark: &str, message: &str) {
        let text = match one_line(message.trim()).as_str() {
            "" => format!("{mark} {}", self.label),
            message => format!("{mark} {}  {CYAN}{message}{CYAN:#}", self.label),
        };
        match self.shown {
            Shown::Bar(bars, bar) => {
                bar.finish_and_clear();
                bars.remove(&bar);
                bars.suspend(|| write_line(&text, self.style));
            }
            Shown::Lines(_) => write_line(&text, self.style),
        }
    }
}

/// A closed stderr does not stop the work whose progress is shown.
fn write_line(text: &str, style: LineStyle) {
    use std::io::Write as _;
    let mut err = anstream::stderr().lock();
    _ = if style.ascii {
        writeln!(err, "{}", ascii(text))
    } else {
        writeln!(err, "{text}")
    };
}
