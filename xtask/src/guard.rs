//! Cleans up when we end before we could: by Ctrl-C, a runner's time limit, `kill -9`. A shell
//! reads from a pipe; when the pipe closes without a word, it runs the clean-up command.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use uc_testbed::TestbedName;

use crate::printer::note;

const WATCH: &str = "read -r done || exec \"$0\" \"$@\"";

/// Held while the clean-up has to happen even if this process is killed.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Takes down the testbed of this name, which need not exist yet.
    pub(crate) fn over(name: &TestbedName) -> anyhow::Result<Self> {
        Self::start(&["testbed", "--name", name.as_ref(), "down"])
    }

    /// Runs `cargo xtask` with these words when this process dies.
    pub(crate) fn start(words: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        // A session of its own, so that the Ctrl-C that ends this process does not reach it.
        let shell = Command::new("setsid")
            .args(["sh", "-c", WATCH])
            .arg(program)
            .args(words)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run setsid")?;
        Ok(Self { shell })
    }
}

impl Drop for Guard {
    /// This process got here, so it has cleaned up itself or reports why it could not.
    fn drop(&mut self) {
        let told = self
            .shell
            .stdin
            .take()
            .map(|mut pipe| pipe.write_all(b"done\n"));
        if let Some(Err(error)) = told {
            note(&format!("warning: cannot end the clean-up shell: {error}"));
        }
        if let Err(error) = self.shell.wait() {
            note(&format!(
                "warning: cannot wait for the clean-up shell: {error}"
            ));
        }
    }
}
