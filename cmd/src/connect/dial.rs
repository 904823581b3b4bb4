//! One connection: opens the pipe (Unix socket, or `uc dial-stdio` through ssh) and checks that an
//! HTTP/2 server is at its end.
//!
//! A connection counts as answered once the server has greeted ([`super::greeting`]): no call is
//! needed to find out.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};

use super::explain;
use super::greeting::{Greeted, NoGreeting, Patient};
use super::process::SshProcess;
use super::ssh::{CONNECT_TIMEOUT_S, DIAL_STDIO, Ssh};
use crate::connection::{Connection, SshTarget};
use crate::env::Env;
use crate::error::{CliError, CliResult, Kind};

/// For login, the start of `uc` on the machine and its answer, on top of ssh's own connect timeout.
const ANSWER: Duration = Duration::from_secs(CONNECT_TIMEOUT_S as u64 + 10);
/// A local daemon that takes longer than this is stuck.
const LOCAL_ANSWER: Duration = Duration::from_secs(10);
/// A shared login that works answers after one or two round trips.
const SHARED_ANSWER: Duration = Duration::from_secs(1);
/// How much of ssh's stderr is kept.
const STDERR_LIMIT: u64 = 64 * 1024;
/// For ssh to end once its output has ended.
const ENDING: Duration = Duration::from_secs(5);

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What must live as long as the connection.
#[derive(Debug)]
pub(crate) struct Keep {
    _ssh: Option<(SshProcess, AbortOnDropHandle<()>)>,
}

/// Opens one connection.
pub(super) async fn dial(connection: &Connection, env: &Env) -> CliResult<(Channel, Keep)> {
    match connection {
        Connection::Unix(path) => unix(path).await,
        Connection::Ssh(target) => over_ssh(&Ssh::new(target.clone(), env), DIAL_STDIO).await,
    }
}

async fn unix(path: &Path) -> CliResult<(Channel, Keep)> {
    let label = format!("unix://{}", path.display());
    let stream = match timeout(LOCAL_ANSWER, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(socket_error(path, error)),
        Err(_) => return Err(silent(&label, LOCAL_ANSWER)),
    };
    let (reader, writer) = stream.into_split();
    match timeout(LOCAL_ANSWER, greet(Box::new(reader), Box::new(writer))).await {
        Ok(Ok(channel)) => Ok((channel, Keep { _ssh: None })),
        Ok(Err(error)) => Err(
            CliError::new(Kind::Partial, format!("{}: {error}", path.display()))
                .hint("see `systemctl status ucd` and `journalctl -u ucd`"),
        ),
        Err(_) => Err(silent(&label, LOCAL_ANSWER)),
    }
}

/// Why a socket cannot be used, and what to do about it. `uc dial-stdio` reports the same on the
/// other side.
pub(crate) fn socket_error(path: &Path, error: io::Error) -> CliError {
    let at = path.display();
    let (message, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            format!("the daemon is not running: {at} does not exist"),
            "start it with `systemctl start ucd`; if it is not installed, run install.sh or `uc machine init`",
        ),
        io::ErrorKind::ConnectionRefused => (
            format!("the daemon is not running: nothing listens on {at}"),
            "start it with `systemctl start ucd`; see `journalctl -u ucd` for why it stopped",
        ),
        io::ErrorKind::PermissionDenied => (
            format!("permission denied on {at}: this user is not allowed to use the daemon"),
            "add the user to the group uc (`usermod -aG uc USER` as root) and log in again, or use root",
        ),
        _ => (
            format!("cannot use the daemon's socket {at}"),
            "see `systemctl status ucd`",
        ),
    };
    CliError::new(Kind::Partial, message)
        .source(error)
        .hint(hint)
}

/// A channel through `remote`, a command line that connects its stdin and stdout to the daemon's
/// socket on the other side.
///
/// A shared login that does not answer within [`SHARED_ANSWER`] may be dead: a second, unshared one
/// is tried beside it.
pub(super) async fn over_ssh(ssh: &Ssh, remote: &str) -> CliResult<(Channel, Keep)> {
    let Some(alone) = ssh.alone().await else {
        return open_pipe(ssh, remote).await;
    };
    let shared = open_pipe(ssh, remote);
    tokio::pin!(shared);
    if let Ok(result) = timeout(SHARED_ANSWER, &mut shared).await {
        return result;
    }
    let alone = open_pipe(&alone, remote);
    tokio::pin!(alone);
    // The first that opens wins; if one fails, the other decides.
    tokio::select! {
        result = &mut shared => match result {
            Ok(opened) => Ok(opened),
            Err(_) => alone.await,
        },
        result = &mut alone => match result {
            Ok(opened) => Ok(opened),
            Err(_) => shared.await,
        },
    }
}

async fn open_pipe(ssh: &Ssh, remote: &str) -> CliResult<(Channel, Keep)> {
    let mut process = ssh.spawn(remote)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (process.stdin(), process.stdout(), process.stderr())
    else {
        return Err(CliError::failed("ssh was started without its pipes"));
    };
    let said = Arc::new(Mutex::new(String::new()));
    let listener = AbortOnDropHandle::new(tokio::spawn(collect(stderr, Arc::clone(&said))));
    match timeout(ANSWER, greet(Box::new(stdout), Box::new(stdin))).await {
        Ok(Ok(channel)) => Ok((
            channel,
            Keep {
                _ssh: Some((process, listener)),
            },
        )),
        Ok(Err(NoGreeting::End | NoGreeting::Io(_))) => {
            Err(ended(&ssh.target, process, listener, &said).await)
        }
        Ok(Err(error @ NoGreeting::Other(_))) => Err(CliError::new(
            Kind::Partial,
            format!("{}: {error}", ssh.target),
        )
        .hint(
            "the remote shell prints text on non-interactive logins: remove that from ~/.bashrc or ~/.profile",
        )),
        Err(_) => Err(silent(&ssh.target.to_string(), ANSWER)),
    }
}

fn silent(whom: &str, after: Duration) -> CliError {
    CliError::new(
        Kind::TimedOut,
        format!("{whom} did not answer within {} seconds", after.as_secs()),
    )
    .hint("the machine or its daemon may be overloaded: see `systemctl status ucd` on the machine")
}

/// The error of an ssh whose output ended before the daemon answered, from its stderr.
async fn ended(
    target: &SshTarget,
    mut process: SshProcess,
    mut listener: AbortOnDropHandle<()>,
    said: &Mutex<String>,
) -> CliError {
    let exit = match timeout(ENDING, process.wait()).await {
        Ok(Ok(status)) => status.code(),
        _ => None,
    };
    // The process that keeps a shared connection may hold stderr open, so its end may never come.
    _ = timeout(Duration::from_millis(500), &mut listener).await;
    let text = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    explain::explain(target, &text, exit)
}

async fn collect(stderr: impl AsyncRead + Unpin, said: Arc<Mutex<String>>) {
    let mut stderr = stderr;
    let mut buffer = [0; 4096];
    let mut room = STDERR_LIMIT as usize;
    while let Ok(count) = stderr.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let kept = count.min(room);
        room -= kept;
        if let Ok(mut said) = said.lock() {
            said.push_str(&String::from_utf8_lossy(&buffer[..kept]));
        }
    }
}

/// HTTP/2 over a pipe that is open already, once a server has greeted.
async fn greet(reader: Reader, writer: Writer) -> Result<Channel, NoGreeting> {
    let (reader, greeted) = Greeted::new(reader);
    let mut pipe = Some(TokioIo::new(tokio::io::join(reader, Patient::new(writer))));
    let connector = tower::service_fn(move |_| {
        // There is one pipe. A second attempt would have to log in again in the middle of an
        // operation.
        let pipe = pipe
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted));
        std::future::ready(pipe)
    });
    let channel = Endpoint::from_static("http://uc")
        .http2_keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .connect_with_connector(connector)
        .await;
    // The reason for a missing greeting helps more than the HTTP/2 error that follows from it.
    greeted.await.unwrap_or(Err(NoGreeting::End))?;
    channel.map_err(|error| NoGreeting::Io(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_error_has_a_hint_for_each_cause() {
        let text =
            |kind| socket_error(Path::new("/run/uc/uc.sock"), io::Error::from(kind)).render();
        assert!(text(io::ErrorKind::NotFound).contains("does not exist"));
        assert!(text(io::ErrorKind::ConnectionRefused).contains("journalctl -u ucd"));
        assert!(text(io::ErrorKind::PermissionDenied).contains("group uc"));
    }
}
