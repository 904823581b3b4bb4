//! The control socket of the mesh process: one JSON document per line in each direction.
//!
//! Whoever may open the socket (root; mode 0600) may change the mesh, so it carries no further
//! proof of identity.

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

/// The longest message: [`crate::config::MAX_PEERS`] peers of 800 bytes each.
pub(crate) const MAX_LINE: u64 = 8 << 20;

/// Connections served at a time; further ones wait in the kernel's queue. One daemon and a few
/// people with `uc doctor` need fewer.
const MAX_CONNECTIONS: usize = 16;

/// A connection that says nothing for this long is closed; clients connect anew for each request.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Writing an answer to a local socket takes longer only if nobody reads it.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make the mesh this. Answered when it is done and on disk.
    Apply(Box<MeshConfig>),
    /// Take the mesh away and forget its configuration. Answered when it is gone, from the disk
    /// too.
    Down,
    /// Say what the mesh is now.
    Status,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Applied, and on disk.
    Applied,
    /// Gone, with its files.
    Down,
    /// What the mesh is now.
    Status(MeshStatus),
    /// Not done, and why.
    Error(String),
}

/// A request on its way to the loop that owns the tunnel.
pub(crate) type Call = (Request, oneshot::Sender<Response>);

/// Listens on the control socket, with mode 0600 from the first moment: it is made under another
/// name, in the same directory, and renamed when its mode is right. A stale socket of a process
/// that is gone is replaced; a live one is an error.
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
            .map_err(|e| fail("make the directory of", e))?;
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
        .map_err(|e| fail("protect", e))?;
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
                    // Out of file descriptors, most likely: accepting at once again would spin.
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

/// One line without its end, at most [`MAX_LINE`] bytes; none at the end of the stream.
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
        Err(format!("message longer than {MAX_LINE} bytes"))
    } else {
        Err("message cut off".to_owned())
    }
}
