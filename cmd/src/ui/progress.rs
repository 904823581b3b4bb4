//! Progress of several things at once: moving lines on a terminal, one plain line for each change
//! elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{CYAN, DIM, GREEN, RED, YELLOW};

/// A group of tasks.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// `None`: plain lines.
    bars: Option<MultiProgress>,
}

/// One thing that takes time.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    label: String,
    bar: Option<(MultiProgress, ProgressBar)>,
}

impl Progress {
    /// `live`: lines may move.
    pub(crate) fn new(live: bool) -> Self {
        let target = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        Self {
            bars: live.then(target),
        }
    }

    /// A thing without a known length begins.
    pub(crate) fn task(&self, label: impl Into<String>) -> Task {
        let label = label.into();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner:.cyan} {prefix}  {wide_msg:.dim}"));
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            (bars.clone(), bar)
        });
        Task { label, bar }
    }

    /// A transfer begins, of about so many bytes (0: not known).
    pub(crate) fn transfer(&self, label: impl Into<String>, bytes: u64) -> Task {
        let label = label.into();
        if self.bars.is_none() {
            line(&format!("{DIM}…{DIM:#} {label}"));
        }
        let bar = self.bars.as_ref().map(|bars| {
            let (bar, template) = if bytes == 0 {
                (ProgressBar::new_spinner(), "{spinner:.cyan} {prefix}  {bytes} {binary_bytes_per_sec:.dim}")
            } else {
                (ProgressBar::new(bytes), "{spinner:.cyan} {prefix}  {bar:20.cyan/dim} {bytes}/{total_bytes} {binary_bytes_per_sec:.dim}")
            };
            let bar = bars.add(bar);
            bar.set_style(style(template));
            bar.set_prefix(label.clone());
            (bars.clone(), bar)
        });
        Task { label, bar }
    }

    /// A line above the moving ones.
    pub(crate) fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| line(text)),
            None => line(text),
        }
    }
}

impl Task {
    /// What is happening now.
    pub(crate) fn update(&self, message: &str) {
        let message = message.trim();
        match &self.bar {
            Some((_, bar)) => bar.set_message(message.to_owned()),
            None if message.is_empty() => line(&format!("{DIM}…{DIM:#} {}", self.label)),
            None => line(&format!(
                "{DIM}…{DIM:#} {}  {DIM}{message}{DIM:#}",
                self.label
            )),
        }
    }

    /// So many more bytes went over.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some((_, bar)) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// It worked.
    pub(crate) fn done(self, message: &str) {
        self.finish(&format!("{GREEN}✔{GREEN:#}"), message);
    }

    /// It did not.
    pub(crate) fn failed(self, message: &str) {
        self.finish(&format!("{RED}✘{RED:#}"), message);
    }

    /// It was taken back.
    pub(crate) fn undone(self, message: &str) {
        self.finish(&format!("{YELLOW}↩{YELLOW:#}"), message);
    }

    fn finish(self, mark: &str, message: &str) {
        let text = match message.trim() {
            "" => format!("{mark} {}", self.label),
            message => format!("{mark} {}  {CYAN}{message}{CYAN:#}", self.label),
        };
        match self.bar {
            Some((bars, bar)) => {
                bar.finish_and_clear();
                bars.remove(&bar);
                bars.suspend(|| line(&text));
            }
            None => line(&text),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

/// Progress is a courtesy: if stderr is gone, the work goes on.
fn line(text: &str) {
    use std::io::Write as _;
    _ = writeln!(anstream::stderr().lock(), "{text}");
}
