//! Output of the demo: numbered steps, each with its commands, their output and its duration.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::printer::data;
use crate::process::shown;

/// Counts the steps and measures the time.
#[derive(Debug)]
pub(super) struct Story {
    start: Instant,
    steps: usize,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            steps: 0,
        }
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Runs one step. An error names the step.
    pub(super) fn step<T>(
        &mut self,
        title: &str,
        work: impl FnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.steps += 1;
        let number = self.steps;
        data(&format!("\n{number}. {title}"));
        let start = Instant::now();
        let result = work(self).with_context(|| format!("step {number}, \"{title}\""))?;
        data(&format!("   {:.1} s", start.elapsed().as_secs_f64()));
        Ok(result)
    }

    /// Prints text, indented below the step.
    #[expect(clippy::unused_self, reason = "only within a step")]
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            data(&format!("   {line}"));
        }
    }

    /// Prints a command and runs it with its output on the terminal. An exit code other than 0 is
    /// an error.
    pub(super) fn show(&self, command: &mut Command) -> anyhow::Result<()> {
        let line = shown(command);
        self.say(&format!("$ {line}"));
        let status = command
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot run `{line}`"))?;
        if !status.success() {
            bail!("`{line}` failed ({status})");
        }
        Ok(())
    }
}
