//! Takes a testbed down when we end before we could: by Ctrl-C, a runner's time limit, `kill -9`. A
//! shell waits at the other end of a pipe; unless it is told that all is done, it runs `testbed
//! down` as soon as the pipe closes.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use uc_testbed::TestbedName;

use crate::printer::note;

const WATCH: &str = "read -r done || exec \"$0\" testbed --name \"$1\" down";

/// Held while the testbed is to be taken down whatever happens.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Watches over the testbed of this name, which need not be there yet.
    pub(crate) fn over(name: &TestbedName) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        // A session of its own: the Ctrl-C that ends us is not for it.
        let shell = Command::new("setsid")
            .args(["sh", "-c", WATCH])
            .arg(program)
            .arg(name.as_ref())
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run setsid")?;
        Ok(Self { shell })
    }
}

impl Drop for Guard {
    /// We got as far as this: whoever holds the testbed has seen to it.
    fn drop(&mut self) {
        let told = self
            .shell
            .stdin
            .take()
            .map(|mut pipe| pipe.write_all(b"done\n"));
        if let Some(Err(error)) = told {
            note(&format!("the guard of the testbed is gone: {error}"));
        }
        if let Err(error) = self.shell.wait() {
            note(&format!("the guard of the testbed does not end: {error}"));
        }
    }
}
