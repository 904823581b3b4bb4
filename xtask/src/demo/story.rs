//! How the demo is told: numbered steps, the commands as one would type them, what they print, and
//! how long each step took.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::printer::data;
use crate::process::shown;

/// Counts the steps and the seconds.
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

    /// Since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// One step; an error says in which it happened.
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

    /// Something the person should see.
    #[expect(clippy::unused_self, reason = "only within a step")]
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            data(&format!("   {line}"));
        }
    }

    /// Runs a command before the person's eyes. An exit code other than 0 is an error.
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
