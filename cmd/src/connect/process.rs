//! An `ssh` process: started apart from our terminal, ended politely.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, setsid};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// For an ssh that was asked to end. One that takes longer is killed.
const ENDING: Duration = Duration::from_secs(5);

/// A running `ssh`. When this is dropped, the process gets SIGTERM, so that ssh can close its
/// connection in order: sshd counts and logs connections that end in the middle of a login.
#[derive(Debug)]
pub(crate) struct SshProcess {
    /// `None` only while it is dropped.
    child: Option<Child>,
}

impl SshProcess {
    /// Starts ssh in a session of its own. Ctrl-C in the terminal goes to the foreground process
    /// group: ssh must not get it, because rolling back after Ctrl-C needs the connection. Without
    /// a terminal, an ssh that a jump host makes ssh start cannot wait for a password either.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "setsid between fork and exec")]
        // SAFETY: setsid is async-signal-safe, and the closure allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| Ok(setsid().map(drop)?));
        }
        Ok(Self {
            child: Some(command.spawn()?),
        })
    }

    /// Its stdin, once.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.as_mut()?.stdin.take()
    }

    /// Its stdout, once.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Its stderr, once.
    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut()?.stderr.take()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait().await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for SshProcess {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // `None`: it has ended and was waited for, so its id may be another process's by now.
        let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            return;
        };
        // It fails only where the process has ended in this moment.
        _ = kill_process(pid, Signal::TERM);
        // Waits for it in the background. Should the program end first, init waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if tokio::time::timeout(ENDING, child.wait()).await.is_err() {
                    _ = child.kill().await;
                }
            });
        }
    }
}
