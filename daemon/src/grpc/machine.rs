//! `Machine`: this machine, whether or not it belongs to a cluster.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use uc_api::layout::WIREGUARD_PORT;
use uc_api::v1::machine_server::Machine;
use uc_api::v1::{
    IdentifyRequest, IdentifyResponse, InfoRequest, InfoResponse, InitRequest, InitResponse,
    JoinRequest, JoinResponse, JoinWithTokenRequest, MachineFacts, MachineRecord, ResetRequest,
    ResetResponse,
};
use uc_api::{Code, Failure, MachineId};

use crate::app::App;
use crate::engine::Engine as _;
use crate::identity::Membership;
use crate::membership::{endpoints, join, leave};
use crate::node::observe;

#[derive(Debug)]
pub(super) struct MachineApi {
    app: Arc<App>,
}

impl MachineApi {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl Machine for MachineApi {
    async fn identify(
        &self,
        _: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        // Read from disk, because a join holds the lock until it is done.
        let identity = crate::identity::Identity::load_or_create(&self.app.paths.identity())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let Some(membership) = identity.membership else {
            return Ok(Response::new(IdentifyResponse::default()));
        };
        let record = own_record(&self.app);
        Ok(Response::new(IdentifyResponse {
            cluster_id: membership.cluster_id,
            machine_id: membership.machine_id,
            machine_name: name(record.as_ref()),
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        // Read from disk, because a join holds the lock until it is done.
        let identity = crate::identity::Identity::load_or_create(&self.app.paths.identity())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let record = own_record(&self.app);
        let membership = identity.membership.as_ref();
        let port = membership.map_or(WIREGUARD_PORT, |membership| membership.wireguard_port);
        // Without a membership, these are empty.
        let of_membership =
            |field: fn(&Membership) -> String| membership.map_or_else(String::new, field);
        let detected = endpoints::candidates(&[], &endpoints::local_addresses().await?, port)?;
        Ok(Response::new(InfoResponse {
            cluster_id: of_membership(|m| m.cluster_id.clone()),
            machine_id: of_membership(|m| m.machine_id.clone()),
            machine_name: name(record.as_ref()),
            public_key: identity
                .public_key()
                .map_err(|reason| Failure::new(Code::Internal, reason))?
                .to_string(),
            endpoints: record.map_or(detected, |record| record.endpoints),
            facts: Some(facts(&self.app).await),
            subnet: of_membership(|m| m.subnet.to_string()),
        }))
    }

    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let request = request.into_inner();
        let (cluster, machine) = detached(Arc::clone(&self.app), move |app| async move {
            join::init(&app, &request).await
        })
        .await?;
        Ok(Response::new(InitResponse {
            cluster_id: cluster.id,
            machine: Some(machine),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let (cluster, machine) = detached(Arc::clone(&self.app), move |app| async move {
            join::join(&app, request).await
        })
        .await?;
        Ok(Response::new(JoinResponse {
            cluster_id: cluster.id,
            machine: Some(machine),
        }))
    }

    async fn join_with_token(
        &self,
        request: Request<JoinWithTokenRequest>,
    ) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let (cluster, machine) = detached(Arc::clone(&self.app), move |app| async move {
            join::join_with_token(&app, request).await
        })
        .await?;
        Ok(Response::new(JoinResponse {
            cluster_id: cluster.id,
            machine: Some(machine),
        }))
    }

    async fn reset(
        &self,
        request: Request<ResetRequest>,
    ) -> Result<Response<ResetResponse>, Status> {
        let machine_id = match request.get_ref().machine_id.as_str() {
            "" => None,
            id => {
                let id: MachineId = id.parse().map_err(|error: uc_api::id::IdError| {
                    Failure::new(Code::Invalid, error.to_string())
                })?;
                Some(id.to_string())
            }
        };
        let removed = detached(Arc::clone(&self.app), |app| async move {
            leave::reset(&app, machine_id.as_deref()).await
        })
        .await?;
        Ok(Response::new(ResetResponse { removed }))
    }
}

/// This machine's record. `None` outside a cluster, and until the record has arrived.
fn own_record(app: &App) -> Option<MachineRecord> {
    let cluster = app.try_member()?.cluster();
    cluster.own().map(|machine| machine.record.clone())
}

/// Empty without a record.
fn name(record: Option<&MachineRecord>) -> String {
    record.map_or_else(String::new, |record| record.name.clone())
}

/// The machine's facts; without an engine, the engine's version is empty.
async fn facts(app: &App) -> MachineFacts {
    let version = app.engine.version().await;
    let docker_version = version.map_or_else(|_| String::new(), |version| version.version);
    MachineFacts {
        docker_version,
        ..observe::facts::host()
    }
}

/// Runs work that must not stop half-way if the caller hangs up: joining and leaving.
async fn detached<T, F>(app: Arc<App>, work: impl FnOnce(Arc<App>) -> F) -> Result<T, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    match tokio::spawn(work(app)).await {
        Ok(result) => result.map_err(Status::from),
        Err(error) => {
            Err(Failure::new(Code::Internal, format!("the daemon failed inside: {error}")).into())
        }
    }
}
