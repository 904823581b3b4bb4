//! The daemon's side of the control socket.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::config::MeshConfig;
use crate::control::{Request, Response, read_line};
use crate::error::MeshError;
use crate::status::MeshStatus;

/// A thousand peers and two thousand routes take a second or two on a slow machine; something is
/// stuck after this.
const LIMIT: Duration = Duration::from_secs(20);

/// Talks to the mesh process. Connects for each request, so it outlives restarts of that process.
#[derive(Debug, Clone)]
pub struct MeshClient {
    socket: PathBuf,
    limit: Duration,
}

impl MeshClient {
    /// A client for the process that listens on `socket`; nothing is done yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            limit: LIMIT,
        }
    }

    /// Another limit for each request than 20 s.
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Makes the mesh what `config` says. When this returns it is applied and on disk, and will be
    /// restored when the mesh process starts again. After an error nothing is promised: apply
    /// again.
    pub async fn apply(&self, config: &MeshConfig) -> Result<(), MeshError> {
        config.validate()?;
        match self.call(&Request::Apply(Box::new(config.clone()))).await? {
            Response::Applied => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Takes the mesh away: the interface with its addresses and routes, and the files it would be
    /// restored from. A mesh that is not up is no error.
    pub async fn down(&self) -> Result<(), MeshError> {
        match self.call(&Request::Down).await? {
            Response::Down => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// What the mesh is now.
    pub async fn status(&self) -> Result<MeshStatus, MeshError> {
        match self.call(&Request::Status).await? {
            Response::Status(status) => Ok(status),
            other => Err(self.unexpected(other)),
        }
    }

    async fn call(&self, request: &Request) -> Result<Response, MeshError> {
        match tokio::time::timeout(self.limit, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(MeshError::Timeout {
                socket: self.socket.clone(),
                limit: self.limit,
            }),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Response, MeshError> {
        let gone = |source| MeshError::NotRunning {
            socket: self.socket.clone(),
            source,
        };
        let mut line =
            serde_json::to_vec(request).map_err(|error| self.protocol(error.to_string()))?;
        line.push(b'\n');
        let (read, mut write) = UnixStream::connect(&self.socket)
            .await
            .map_err(gone)?
            .into_split();
        write.write_all(&line).await.map_err(gone)?;
        let answer = read_line(&mut BufReader::new(read))
            .await
            .map_err(|reason| self.protocol(reason))?;
        let answer = answer.ok_or_else(|| self.protocol("closed without an answer".to_owned()))?;
        serde_json::from_slice(&answer).map_err(|error| self.protocol(error.to_string()))
    }

    fn unexpected(&self, response: Response) -> MeshError {
        match response {
            Response::Error(reason) => MeshError::Refused(reason),
            Response::Applied => {
                self.protocol("answered \"applied\" to another request".to_owned())
            }
            Response::Down => self.protocol("answered \"down\" to another request".to_owned()),
            Response::Status(_) => {
                self.protocol("answered with a status to another request".to_owned())
            }
        }
    }

    fn protocol(&self, reason: String) -> MeshError {
        MeshError::Protocol {
            socket: self.socket.clone(),
            reason,
        }
    }
}
