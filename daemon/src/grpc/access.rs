//! Access checks. On the Unix socket, the file's mode decides who can connect, and the versions
//! must fit. A connection between daemons has proved its caller's key in a handshake.

use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::{Request, Status};
use uc_api::version::{CLIENT_VERSION_KEY, CLUSTER_KEY, PROTOCOL_KEY, check_client, check_cluster};
use uc_api::{Code, Failure};

use crate::app::App;
use crate::clock::now_ms;
use crate::cluster::member::Member;
use crate::cluster::peers::Caller;

/// On the Unix socket: lets in a caller whose protocol fits and who means this machine's cluster.
#[derive(Debug, Clone)]
pub(super) struct LocalCallers {
    app: Arc<App>,
}

impl LocalCallers {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

impl Interceptor for LocalCallers {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        check_version(&request)?;
        if let Some(meant) = metadata(&request, CLUSTER_KEY) {
            check_cluster(Some(meant), own_cluster(&self.app)?.as_deref())?;
        }
        Ok(request)
    }
}

/// The cluster this machine is in. Fails while the machine enters or leaves one: what it answers
/// then could be wrong a moment later.
fn own_cluster(app: &App) -> Result<Option<String>, Failure> {
    if let Some(member) = app.try_member() {
        return Ok(Some(member.membership.cluster_id.clone()));
    }
    let identity = app.identity.try_lock().map_err(|_| {
        Failure::new(
            Code::WrongCluster,
            "this machine is joining or leaving a cluster",
        )
        .hint("try again in a minute")
    })?;
    let membership = identity.membership.as_ref();
    Ok(membership.map(|membership| membership.cluster_id.clone()))
}

fn check_version(request: &Request<()>) -> Result<(), Failure> {
    let version = metadata(request, CLIENT_VERSION_KEY).unwrap_or("of unknown version");
    let protocol = metadata(request, PROTOCOL_KEY).and_then(|number| number.parse().ok());
    check_client(version, protocol)
}

fn metadata<'a>(request: &'a Request<()>, key: &str) -> Option<&'a str> {
    request.metadata().get(key)?.to_str().ok()
}

/// The caller of a connection between daemons, as the connection proved it.
pub(super) fn caller<T>(request: &Request<T>) -> Result<&Caller, Failure> {
    request.extensions().get().ok_or_else(|| {
        Failure::new(
            Code::Internal,
            "the call came over a connection without a proof of its caller",
        )
    })
}

/// Allows this daemon and the daemons of members. Each call is checked, because a machine can be
/// removed while it has a connection.
#[derive(Debug, Clone)]
pub(super) struct MembersOnly {
    member: Arc<Member>,
}

impl MembersOnly {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

impl Interceptor for MembersOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let caller = caller(&request)?;
        if !matches!(caller, Caller::Token { .. })
            && caller.is_served(&self.member.cluster(), now_ms())
        {
            return Ok(request);
        }
        Err(Failure::new(Code::Refused, "the caller is not a member of this cluster").into())
    }
}

/// Allows the holder of a join token that is valid, or that this holder has just used.
#[derive(Debug, Clone)]
pub(super) struct TokenHoldersOnly {
    member: Arc<Member>,
}

impl TokenHoldersOnly {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

impl Interceptor for TokenHoldersOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let caller = caller(&request)?;
        if matches!(caller, Caller::Token { .. })
            && caller.is_served(&self.member.cluster(), now_ms())
        {
            return Ok(request);
        }
        Err(Failure::new(Code::Refused, "the join token is not valid")
            .hint("create a new one with `uc machine token`")
            .into())
    }
}

#[cfg(test)]
mod tests {
    use uc_api::version::PROTOCOL;

    use super::*;
    use crate::engine::DockerEngine;
    use crate::identity::{Identity, Membership};
    use crate::paths::Paths;

    const OWN: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
    const OTHER: &str = "0dd00dd00dd00dd00dd00dd00dd00dd0";

    /// The code of the refusal, if the call for this cluster is refused.
    fn call(app: &Arc<App>, meant: Option<&'static str>) -> Option<Code> {
        let mut request = Request::new(());
        request.metadata_mut().insert(PROTOCOL_KEY, PROTOCOL.into());
        if let Some(meant) = meant {
            let meant = tonic::metadata::MetadataValue::from_static(meant);
            request.metadata_mut().insert(CLUSTER_KEY, meant);
        }
        let refused = LocalCallers::new(Arc::clone(app)).call(request).err()?;
        Some(Failure::from(refused).code)
    }

    #[tokio::test]
    async fn unix_socket_refuses_calls_for_another_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let mut identity = Identity::fresh().unwrap();
        identity.membership = Some(Membership {
            cluster_id: OWN.into(),
            machine_id: "a1".repeat(16),
            network: "10.210.0.0/16".parse().unwrap(),
            subnet: "10.210.0.0/24".parse().unwrap(),
            wireguard_port: 51820,
            bootstrap: Vec::new(),
        });
        identity.save(&paths.identity()).unwrap();
        let engine = Arc::new(DockerEngine::new("/nonexistent"));
        let app = App::new(
            paths,
            engine,
            tokio_util::sync::CancellationToken::new(),
            |_, _| Box::pin(async {}),
        )
        .unwrap();
        assert_eq!(call(&app, Some(OWN)), None);
        assert_eq!(call(&app, Some(OTHER)), Some(Code::WrongCluster));
        assert_eq!(call(&app, None), None);
        // A join or a reset holds the lock: which cluster it will be is open.
        let _joining = app.identity.lock().await;
        assert_eq!(call(&app, Some(OWN)), Some(Code::WrongCluster));
        assert_eq!(call(&app, None), None);
    }

    #[test]
    fn check_version_refuses_unknown_protocols() {
        let with = |protocol: Option<u32>| {
            let mut request = Request::new(());
            if let Some(protocol) = protocol {
                request.metadata_mut().insert(PROTOCOL_KEY, protocol.into());
            }
            check_version(&request)
        };
        assert!(with(Some(PROTOCOL)).is_ok());
        assert_eq!(with(Some(PROTOCOL + 1)).unwrap_err().code, Code::Version);
        assert!(with(None).is_err());
    }
}
