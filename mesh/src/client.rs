//! The daemon's side of the control socket.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::config::MeshConfig;
use crate::control::{Request, Response, read_line};
use crate::error::MeshError;
use crate::status::MeshStatus;

/// Time limit of a request. A thousand peers and two thousand routes take a second or two on a slow
/// machine, so after this the mesh process hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// A client of the mesh process. It connects for each request, so that it survives restarts of that
/// process.
#[derive(Debug, Clone)]
pub struct MeshClient {
    socket: PathBuf,
    /// Time limit of each request.
    pub(crate) limit: Duration,
}

impl MeshClient {
    /// A client of the process that listens on `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            limit: LIMIT,
        }
    }

    /// Changes the mesh to `config`. When this returns, the configuration is applied and on disk,
    /// and the mesh process restores it when it starts again. After an error the state is
    /// undefined: apply again.
    pub async fn apply(&self, config: &MeshConfig) -> Result<(), MeshError> {
        config.validate()?;
        match self.call(&Request::Apply(Box::new(config.clone()))).await? {
            Response::Applied => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Removes the mesh: the interface with its addresses and routes, and the files from which it
    /// would be restored. Succeeds if there is no mesh.
    pub async fn down(&self) -> Result<(), MeshError> {
        match self.call(&Request::Down).await? {
            Response::Down => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// The state of the mesh.
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
        let answer = answer.ok_or_else(|| {
            self.protocol("it closed the connection without an answer".to_owned())
        })?;
        serde_json::from_slice(&answer).map_err(|error| self.protocol(error.to_string()))
    }

    fn unexpected(&self, response: Response) -> MeshError {
        match response {
            Response::Error(reason) => MeshError::Refused(reason),
            Response::Applied => {
                self.protocol("it answered \"applied\" to another request".to_owned())
            }
            Response::Down => self.protocol("it answered \"down\" to another request".to_owned()),
            Response::Status(_) => {
                self.protocol("it answered with a status to another request".to_owned())
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
