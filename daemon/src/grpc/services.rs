//! `Services`: services and replicas from the local store, and streams of replicas: logs and exec.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use uc_api::v1::services_server::Services;
use uc_api::v1::{
    ExecRequest, ExecResponse, ExecStart, Health, InspectServiceRequest, InspectServiceResponse,
    ListServicesRequest, ListServicesResponse, LogEntry, LogsRequest, PsRequest, PsResponse,
    ReplicaState, ReplicaStatus, ServiceMode, ServiceRecord, ServiceStatus, exec_request,
};
use uc_api::{Code, Failure, ServiceKey};
use uc_cluster_state::membership::Liveness;

use super::logs;
use crate::app::App;
use crate::examine::wire_liveness;
use crate::member::Member;
use crate::records::OwnedReplica;

const QUEUE: usize = 64;

#[derive(Debug)]
pub(super) struct ServicesApi {
    app: Arc<App>,
}

impl ServicesApi {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

fn belongs(owned: &OwnedReplica, key: &ServiceKey) -> bool {
    owned.replica.project == key.project.as_str() && owned.replica.service == key.service.as_str()
}

fn status(
    key: &ServiceKey,
    record: &ServiceRecord,
    replicas: &[OwnedReplica],
    alive: &BTreeMap<String, Liveness>,
) -> ServiceStatus {
    let up: Vec<&OwnedReplica> = replicas
        .iter()
        .filter(|owned| {
            belongs(owned, key) && alive.get(&owned.machine.id) != Some(&Liveness::Down)
        })
        .collect();
    let running = up
        .iter()
        .filter(|owned| owned.replica.state() == ReplicaState::Running);
    let healthy = running
        .clone()
        .filter(|owned| matches!(owned.replica.health(), Health::Healthy | Health::None));
    let spec = record.spec.clone().unwrap_or_default();
    let machines = alive
        .values()
        .filter(|liveness| **liveness != Liveness::Down)
        .count() as u32;
    let eligible = if spec.machines.is_empty() {
        machines
    } else {
        spec.machines.len() as u32
    };
    ServiceStatus {
        desired: if spec.mode() == ServiceMode::Global {
            eligible
        } else {
            spec.replicas
        },
        running: running.count() as u32,
        healthy: healthy.count() as u32,
        revision: record.revision.clone(),
        updated_at_ms: record.updated_at_ms,
        spec: Some(spec),
    }
}

fn replica_status(
    owned: OwnedReplica,
    services: &BTreeMap<ServiceKey, ServiceRecord>,
    alive: &BTreeMap<String, Liveness>,
) -> ReplicaStatus {
    let key = format!("{}/{}", owned.replica.project, owned.replica.service)
        .parse::<ServiceKey>()
        .ok();
    let current = key
        .and_then(|key| services.get(&key))
        .is_some_and(|r| r.revision == owned.replica.revision);
    ReplicaStatus {
        machine_liveness: wire_liveness(alive.get(&owned.machine.id)).into(),
        machine_id: owned.machine.id,
        machine_name: owned.machine.name,
        replica: Some(owned.replica),
        current,
    }
}

/// Replicas of the named services (all, where none is named), by service, machine and age.
pub(super) fn selected(
    member: &Member,
    names: &[String],
    project: &str,
) -> Result<Vec<OwnedReplica>, Failure> {
    let view = member.view();
    let keys = names
        .iter()
        .map(|name| view.service(name).map(|(key, _)| key))
        .collect::<Result<Vec<ServiceKey>, Failure>>()?;
    let mut replicas: Vec<OwnedReplica> = view
        .replicas()
        .into_iter()
        .filter(|owned| keys.is_empty() || keys.iter().any(|key| belongs(owned, key)))
        .filter(|owned| project.is_empty() || owned.replica.project == project)
        .collect();
    replicas.sort_by(|a, b| {
        let order = |owned: &OwnedReplica| {
            let replica = &owned.replica;
            (
                replica.project.clone(),
                replica.service.clone(),
                owned.machine.name.clone(),
                replica.created_at_ms,
                replica.container_id.clone(),
            )
        };
        order(a).cmp(&order(b))
    });
    Ok(replicas)
}

/// The replica a command runs in: the requested one, else a running one, preferably on this
/// machine.
fn exec_target(member: &Member, start: &ExecStart) -> Result<OwnedReplica, Failure> {
    let replicas = selected(member, std::slice::from_ref(&start.service), "")?;
    if !start.container.is_empty() {
        let mut matching = replicas
            .into_iter()
            .filter(|owned| owned.replica.container_id.starts_with(&start.container));
        let missing = || {
            Failure::new(
                Code::NotFound,
                format!(
                    "container `{}` not found in {}",
                    start.container, start.service
                ),
            )
            .hint("`uc ps` lists the containers")
        };
        let first = matching.next().ok_or_else(missing)?;
        if matching.next().is_some() {
            return Err(Failure::new(
                Code::Invalid,
                format!("`{}` matches several containers", start.container),
            )
            .hint("write more digits of the id"));
        }
        return Ok(first);
    }
    let alive = member.liveness();
    let mut running: Vec<OwnedReplica> = replicas
        .into_iter()
        .filter(|owned| owned.replica.state() == ReplicaState::Running)
        .filter(|owned| alive.get(&owned.machine.id) != Some(&Liveness::Down))
        .collect();
    running.sort_by_key(|owned| owned.machine.id != member.membership.machine_id);
    running.into_iter().next().ok_or_else(|| {
        Failure::new(
            Code::Refused,
            format!("{} has no running replica", start.service),
        )
        .hint(format!("see `uc ps` and `uc logs {}`", start.service))
    })
}

type LogStream = Pin<Box<dyn Stream<Item = Result<LogEntry, Status>> + Send>>;
type ExecStream = Pin<Box<dyn Stream<Item = Result<ExecResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Services for ServicesApi {
    async fn list(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let member = self.app.member()?;
        let project = request.into_inner().project;
        let (view, alive) = (member.view(), member.liveness());
        let replicas = view.replicas();
        let services = view
            .services()
            .iter()
            .filter(|(key, _)| project.is_empty() || key.project.as_str() == project)
            .map(|(key, record)| status(key, record, &replicas, &alive))
            .collect();
        Ok(Response::new(ListServicesResponse { services }))
    }

    async fn ps(&self, request: Request<PsRequest>) -> Result<Response<PsResponse>, Status> {
        let member = self.app.member()?;
        let request = request.into_inner();
        let (services, alive) = (member.view().services(), member.liveness());
        let replicas = selected(&member, &request.services, &request.project)?
            .into_iter()
            .map(|owned| replica_status(owned, &services, &alive))
            .collect();
        Ok(Response::new(PsResponse { replicas }))
    }

    async fn inspect(
        &self,
        request: Request<InspectServiceRequest>,
    ) -> Result<Response<InspectServiceResponse>, Status> {
        let member = self.app.member()?;
        let (view, alive) = (member.view(), member.liveness());
        let (key, record) = view.service(&request.into_inner().service)?;
        let services = view.services();
        let replicas = view.replicas();
        let service = status(&key, &record, &replicas, &alive);
        let replicas = selected(&member, &[key.to_string()], "")?
            .into_iter()
            .map(|owned| replica_status(owned, &services, &alive))
            .collect();
        Ok(Response::new(InspectServiceResponse {
            service: Some(service),
            replicas,
            volumes: record.volumes,
        }))
    }

    type LogsStream = LogStream;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<LogStream>, Status> {
        let member = self.app.member()?;
        let entries = logs::start(&member, request.into_inner())?;
        Ok(Response::new(Box::pin(
            ReceiverStream::new(entries).map(Ok),
        )))
    }

    type ExecStream = ExecStream;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<ExecStream>, Status> {
        let member = self.app.member()?;
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .and_then(|request| request.message);
        let Some(exec_request::Message::Start(mut start)) = first else {
            return Err(Failure::new(
                Code::Invalid,
                "the first message of an exec call must be its start",
            )
            .into());
        };
        let target = exec_target(&member, &start)?;
        start.container = target.replica.container_id;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let begin = ExecRequest {
            message: Some(exec_request::Message::Start(start)),
        };
        member.tasks.spawn(async move {
            if sender.send(begin).await.is_err() {
                return;
            }
            while let Ok(Some(request)) = incoming.message().await {
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        });
        let remote = member.peers.machine(&target.machine)?;
        let replies = remote.exec(ReceiverStream::new(receiver)).await?;
        Ok(Response::new(Box::pin(replies)))
    }
}
