//! Commands and files on a machine behind ssh.

use std::future::Future;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::sync::mpsc;

use crate::connect::{Ssh, SshProcess, explain_ssh, no_ssh};
use crate::connection::SshTarget;
use crate::error::{CliError, CliResult, Kind};
use crate::ui::Progress;

/// Time limit of a short command, including the login.
pub(super) const SHORT: Duration = Duration::from_secs(30);
/// Time limit for copying one file, also through a slow connection.
const COPY: Duration = Duration::from_mins(30);
/// Bytes of a file that are read and sent in one piece.
const CHUNK: usize = 64 * 1024;
/// Most bytes of a command's output that are kept.
const OUTPUT: u64 = 256 * 1024;
/// Most bytes of a line that is shown. A longer one is shown as several lines.
const LINE: u64 = 64 * 1024;

/// A machine on which commands run.
#[derive(Debug)]
pub(super) struct Remote {
    ssh: Ssh,
}

impl Remote {
    pub(super) fn new(ssh: Ssh) -> Self {
        Self { ssh }
    }

    pub(super) fn ssh(&self) -> &Ssh {
        &self.ssh
    }

    pub(super) fn target(&self) -> &SshTarget {
        &self.ssh.target
    }

    /// An error for a failure of ssh itself.
    pub(super) fn explain(&self, stderr: &str, exit: Option<i32>) -> CliError {
        explain_ssh(self.target(), stderr, exit)
    }

    /// Runs a shell command line and returns its stdout.
    pub(super) async fn run(&self, line: &str, limit: Duration) -> CliResult<String> {
        let mut process = self.ssh.spawn(line)?;
        drop(process.stdin());
        tokio::time::timeout(limit, self.finish(process, line))
            .await
            .map_err(|_| self.too_slow(limit))?
    }

    /// Copies a file and compares the copy by its checksum. The copy is executable.
    pub(super) async fn copy(
        &self,
        source: &Path,
        to: &str,
        name: &str,
        progress: &Progress,
    ) -> CliResult {
        let unreadable =
            |error| CliError::failed(format!("cannot read {}", source.display())).source(error);
        let mut file = tokio::fs::File::open(source).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        let task = progress.transfer(format!("{name} → {}", self.target()), size);
        let line = format!("cat > {to} && chmod 755 {to} && sha256sum {to}");
        let mut process = self.ssh.spawn(&line)?;
        let mut stdin = process.stdin();
        let mut hash = Sha256::new();
        let send = async {
            let mut buffer = vec![0; CHUNK];
            while let Some(pipe) = &mut stdin {
                let count = file.read(&mut buffer).await.map_err(unreadable)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
                // The remote command ended early. Its stderr, read below, has the reason.
                if pipe.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                task.advance(count as u64);
            }
            drop(stdin.take());
            Ok::<_, CliError>(())
        };
        let both = async {
            // The output is read at the same time: a full pipe would block both sides.
            let (sent, finished) = tokio::join!(send, self.finish(process, &line));
            sent.and(finished)
        };
        let result = tokio::time::timeout(COPY, both)
            .await
            .map_err(|_| self.too_slow(COPY))
            .flatten();
        let theirs = match result {
            Ok(theirs) => theirs,
            Err(error) => {
                task.failed("");
                return Err(error.context(format!("cannot copy {name}")));
            }
        };
        let ours = format!("{:x}", hash.finalize());
        if !theirs
            .lines()
            .any(|line| line.split_whitespace().next() == Some(ours.as_str()))
        {
            task.failed("");
            return Err(CliError::failed(format!(
                "the copy of {name} on {} is damaged: the checksums differ",
                self.target()
            ))
            .hint("try again; if it happens again, check the machine's disk and memory"));
        }
        task.done("");
        Ok(())
    }

    /// Ends the shared connection, if there is one.
    pub(super) async fn close_shared(&self) {
        self.ssh.close_shared().await;
    }

    async fn finish(&self, mut process: SshProcess, line: &str) -> CliResult<String> {
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), process.wait());
        let status = status.map_err(no_ssh)?;
        if status.success() {
            return Ok(stdout);
        }
        if status.code() == Some(255) || status.code().is_none() {
            return Err(self.explain(&stderr, status.code()));
        }
        let command = line.split_once(' ').map_or(line, |(command, _)| command);
        Err(
            CliError::failed(format!("`{command}` failed on {}", self.target()))
                .source(stderr.trim().to_owned()),
        )
    }

    fn too_slow(&self, limit: Duration) -> CliError {
        CliError::new(
            Kind::TimedOut,
            format!(
                "{} took longer than {} seconds",
                self.target(),
                limit.as_secs()
            ),
        )
    }
}

/// Reads to the end of the stream and returns the beginning, at most [`OUTPUT`] bytes.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut kept = Vec::new();
    _ = (&mut stream).take(OUTPUT).read_to_end(&mut kept).await;
    _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// Shows the output of a process line by line, from both streams. Returns its exit code and its
/// output.
pub(super) async fn follow(
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    ended: impl Future<Output = io::Result<ExitStatus>>,
    mut show: impl FnMut(&str),
) -> CliResult<(Option<i32>, String)> {
    let (sender, mut lines) = mpsc::channel::<String>(64);
    let out = forward(stdout, sender.clone());
    let err = forward(stderr, sender);
    let mut said = String::new();
    let listen = async {
        while let Some(line) = lines.recv().await {
            show(&line);
            if said.len() < OUTPUT as usize {
                said.push_str(&line);
                said.push('\n');
            }
        }
    };
    let ((), (), (), status) = tokio::join!(out, err, listen, ended);
    Ok((status.map_err(no_ssh)?.code(), said))
}

async fn forward(stream: Option<impl AsyncRead + Unpin>, sender: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stream).take(LINE).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|count| count > 0) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        // Programs with progress bars rewrite a line with carriage returns. Only the last version
        // counts.
        let text = text.trim_end_matches('\n').trim_end_matches('\r');
        let text = text.rsplit_once('\r').map_or(text, |(_, last)| last);
        if sender.send(text.to_owned()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that [`forward`] sends of this stream.
    async fn lines(stream: impl AsyncRead + Unpin) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(1);
        let receive = async {
            let mut lines = Vec::new();
            while let Some(line) = receiver.recv().await {
                lines.push(line);
            }
            lines
        };
        let ((), lines) = tokio::join!(forward(Some(stream), sender), receive);
        lines
    }

    #[tokio::test]
    async fn forward_sends_lines_and_the_last_version_of_a_rewritten_one() {
        let stream = &b"one\n\n10 %\r90 %\r100 %\r\nlast"[..];
        assert_eq!(lines(stream).await, ["one", "", "100 %", "last"]);
    }

    #[tokio::test]
    async fn forward_splits_a_line_without_end() {
        let stream = tokio::io::repeat(b'x').take(10 * LINE + 1);
        let lines = lines(stream).await;
        assert_eq!(lines.len(), 11);
        assert!(lines.iter().all(|line| line.len() as u64 <= LINE));
    }
}
