//! The control socket of the mesh process: one JSON document per line in each direction.
//!
//! Only root can open the socket (mode 0600), so requests carry no further proof of identity.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::MeshConfig;
use crate::error::MeshError;
use crate::status::MeshStatus;

/// Longest message: [`crate::config::MAX_PEERS`] peers of 800 bytes each.
pub(crate) const MAX_LINE: u64 = 8 << 20;

/// Connections served at the same time; further ones wait in the kernel's queue. One daemon and a
/// few users with `uc doctor` need fewer.
const MAX_CONNECTIONS: usize = 16;

/// A connection without a request for this long is closed. Clients open one for each request.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for writing an answer. It takes longer only if the client does not read.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// A request of the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Change the mesh to this configuration. Answered when it is applied and on disk.
    Apply(Box<MeshConfig>),
    /// Remove the mesh and its configuration. Answered when both are removed, also from the disk.
    Down,
    /// Report the state of the mesh.
    Status,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Applied, and on disk.
    Applied,
    /// Removed, with its files.
    Down,
    /// The state of the mesh.
    Status(MeshStatus),
    /// Why the request failed.
    Error(String),
}

/// A request on its way to the loop that owns the tunnel.
pub(crate) type Call = (Request, oneshot::Sender<Response>);

/// Listens on the control socket. The socket is created under another name in the same directory
/// and renamed when its mode is right, so that it has mode 0600 from the first moment. The socket
/// of a process that has ended is replaced; one that answers is an error.
pub(crate) async fn listen(socket: &Path) -> Result<UnixListener, MeshError> {
    let fail = |action, source| MeshError::Io {
        action,
        path: socket.to_owned(),
        source,
    };
    if UnixStream::connect(socket).await.is_ok() {
        return Err(MeshError::AlreadyRunning(socket.to_owned()));
    }
    if let Some(directory) = socket.parent() {
        tokio::fs::create_dir_all(directory)
            .await
            .map_err(|e| fail("create the directory of", e))?;
    }
    let mut new = socket.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match tokio::fs::remove_file(&new).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(fail("replace", error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(|e| fail("listen on", e))?;
    let mode = std::fs::Permissions::from_mode(0o600);
    tokio::fs::set_permissions(&new, mode)
        .await
        .map_err(|e| fail("set the mode of", e))?;
    tokio::fs::rename(&new, socket)
        .await
        .map_err(|e| fail("rename", e))?;
    Ok(listener)
}

/// Serves connections until cancelled.
pub(crate) async fn serve(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    cancel: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, calls.clone()));
                }
                Err(error) => {
                    // Most likely out of file descriptors: accepting again immediately would spin.
                    tracing::warn!(%error, "cannot accept a connection on the control socket");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn connection(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let response = match tokio::time::timeout(IDLE_LIMIT, read_line(&mut read)).await {
            Ok(Ok(Some(line))) => match serde_json::from_slice(&line) {
                Ok(request) => ask(&calls, request).await,
                Err(error) => Response::Error(format!("cannot read the request: {error}")),
            },
            Ok(Err(reason)) => Response::Error(reason),
            Ok(Ok(None)) | Err(_) => return,
        };
        let Ok(mut line) = serde_json::to_vec(&response) else {
            return;
        };
        line.push(b'\n');
        if !matches!(
            tokio::time::timeout(WRITE_LIMIT, write.write_all(&line)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}

async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Response {
    let (answer, answered) = oneshot::channel();
    let stopping = || Response::Error("the mesh process is stopping".to_owned());
    if calls.send((request, answer)).await.is_err() {
        return stopping();
    }
    answered.await.unwrap_or_else(|_| stopping())
}

/// One line without its line end, at most [`MAX_LINE`] bytes; `None` at the end of the stream.
pub(crate) async fn read_line(
    read: &mut (impl AsyncBufRead + Unpin),
) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let length = read
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| error.to_string())?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        Ok(Some(line))
    } else if length == 0 {
        Ok(None)
    } else if length as u64 == MAX_LINE {
        Err(format!("the message is longer than {MAX_LINE} bytes"))
    } else {
        Err("the message ends before its line end".to_owned())
    }
}
