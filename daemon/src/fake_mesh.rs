//! A mesh process for tests: it answers on the control socket as `ucd mesh` does, and has no
//! tunnel.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use uc_mesh::control::{Request, Response};
use uc_mesh::{MeshConfig, MeshStatus, PublicKey};

/// A request that changes the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Of the mesh of this key.
    Apply(PublicKey),
    Down,
}

#[derive(Debug, Default)]
struct State {
    config: Option<MeshConfig>,
    fails: bool,
    unguarded: bool,
}

/// What the process was asked, and what it has.
#[derive(Debug, Clone)]
pub(crate) struct FakeMesh {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<Vec<Change>>,
}

impl FakeMesh {
    /// Listens on the socket until the test ends.
    pub(crate) fn listen(socket: &Path) -> Self {
        let directory = socket.parent().expect("the socket is in a directory");
        std::fs::create_dir_all(directory).expect("the directory can be created");
        let listener = UnixListener::bind(socket).expect("the socket can be bound");
        let mesh = Self {
            state: Arc::default(),
            changes: watch::Sender::default(),
        };
        let serving = mesh.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        mesh
    }

    /// All changes so far, the oldest first.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.borrow().clone()
    }

    /// Waits until there were this many changes.
    pub(crate) async fn changed_times(&self, times: usize) {
        let mut changes = self.changes.subscribe();
        let enough = changes.wait_for(|changes| changes.len() >= times);
        enough.await.expect("this process sends them");
    }

    /// Starts again without its configuration, as after the file was damaged.
    pub(crate) fn forget(&self) {
        self.state().config = None;
    }

    /// From now on, every request fails.
    pub(crate) fn fail(&self) {
        self.state().fails = true;
    }

    /// Is one of an earlier version, which has no firewall rules.
    pub(crate) fn without_guard(&self) {
        self.state().unguarded = true;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let request = serde_json::from_str(&line).expect("the daemon sends requests");
            let mut answer = serde_json::to_vec(&self.answer(request)).expect("it is JSON");
            answer.push(b'\n');
            if write.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: Request) -> Response {
        let mut state = self.state();
        let (answer, change) = match request {
            Request::Status => {
                let status =
                    state
                        .config
                        .as_ref()
                        .map_or_else(MeshStatus::unconfigured, |config| MeshStatus {
                            interface: config.interface.clone(),
                            public_key: Some(config.private_key.public()),
                            listen_port: config.listen_port,
                            ..MeshStatus::unconfigured()
                        });
                (Response::Status(status), None)
            }
            Request::Apply(config) => {
                let key = config.private_key.public();
                state.config = Some(*config);
                (Response::Applied, Some(Change::Apply(key)))
            }
            Request::Down => {
                state.config = None;
                (Response::Down, Some(Change::Down))
            }
        };
        let fails = state.fails;
        drop(state);
        self.changes.send_modify(|changes| changes.extend(change));
        if fails {
            return Response::Error("as the test wants".to_owned());
        }
        answer
    }
}
