//! `Services`: services and replicas from the local store, and streams of replicas: logs and exec.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use uc_api::v1::services_server::Services;
use uc_api::v1::{
    ExecRequest, ExecResponse, ExecStart, Health, HistoryRequest, HistoryResponse,
    InspectServiceRequest, InspectServiceResponse, Kept, ListServicesRequest, ListServicesResponse,
    LogEntry, LogsRequest, PsRequest, PsResponse, ReplicaRecord, ReplicaState, ReplicaStatus,
    RetireRecord, ServiceMode, ServiceRecord, ServiceRevision, ServiceStatus, exec_request,
};
use uc_api::{Code, Failure, MachineId, ServiceKey};
use uc_planner::global_replicas;

use super::logs;
use crate::app::App;
use crate::cluster::examine::wire_liveness;
use crate::cluster::history;
use crate::cluster::machines::Machine;
use crate::cluster::records::Replica;
use crate::cluster::view::Cluster;

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

/// A replica and its machine.
pub(super) type Owned<'a> = (&'a Arc<Machine>, &'a Arc<Replica>);

/// Why a replica is to be removed by its machine.
fn retirement<'a>(
    cluster: &'a Cluster,
    (machine, replica): Owned<'_>,
) -> Option<&'a Arc<RetireRecord>> {
    cluster.retirement(machine.id, &replica.record.container_id)
}

/// The machines as the planner sees them when it decides where a global service runs.
fn places(cluster: &Cluster) -> Vec<uc_planner::Machine> {
    let machines = cluster.machines().iter();
    machines
        .map(|machine| {
            let up = !cluster.is_down(machine.id);
            let replicas = cluster.reported(machine.id).replicas.values();
            uc_planner::Machine {
                replicas: replicas.map(|replica| replica.record.clone()).collect(),
                ..cluster.planner_machine(machine, up)
            }
        })
        .collect()
}

fn status(
    cluster: &Cluster,
    places: &[uc_planner::Machine],
    key: &ServiceKey,
    record: &ServiceRecord,
) -> ServiceStatus {
    let running = cluster
        .replicas()
        .filter(|(machine, replica)| {
            replica.service == *key
                && !cluster.is_down(machine.id)
                && cluster.engine_away_since_ms(machine.id).is_none()
                && retirement(cluster, (machine, replica)).is_none()
        })
        .map(|(_, replica)| &replica.record)
        .filter(|replica| replica.state() == ReplicaState::Running);
    let running: Vec<Health> = running.map(ReplicaRecord::health).collect();
    let is_healthy = |health: &&Health| matches!(health, Health::Healthy | Health::None);
    let desired = record.spec.as_ref().map_or(0, |spec| {
        if spec.mode() != ServiceMode::Global {
            return spec.replicas;
        }
        global_replicas(spec, places) as u32
    });
    let completed = cluster.replicas().filter(|(machine, replica)| {
        let of = &replica.record;
        replica.service == *key
            && of.finished
            && of.revision == record.revision
            && of.kept() == Kept::Unspecified
            && retirement(cluster, (machine, replica)).is_none()
    });
    ServiceStatus {
        completed: completed.count() as u32,
        desired,
        running: running.len() as u32,
        healthy: running.iter().filter(is_healthy).count() as u32,
        revision: record.revision.clone(),
        updated_at_ms: record.updated_at_ms,
        spec: record.spec.clone(),
    }
}

fn replica_status(cluster: &Cluster, (machine, replica): Owned<'_>) -> ReplicaStatus {
    let service = cluster.services().get(&replica.service);
    ReplicaStatus {
        machine_liveness: wire_liveness(cluster.liveness(machine.id)).into(),
        machine_id: machine.id.to_string(),
        machine_name: machine.name.to_string(),
        current: service.is_some_and(|service| service.revision == replica.record.revision),
        replica: Some(replica.record.clone()),
        engine_away_since_ms: cluster.engine_away_since_ms(machine.id).unwrap_or(0),
        retirement: retirement(cluster, (machine, replica)).map(|record| (**record).clone()),
    }
}

/// A service by `project/service`, or by `service` where that is unique. Also one that does not
/// exist, but of which containers are left: its first deployment failed, or it was removed while a
/// machine was away.
fn named<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a ServiceKey, Failure> {
    let unknown = match cluster.service(name) {
        Ok((key, _)) => return Ok(key),
        Err(failure) => failure,
    };
    let left = cluster.replicas().map(|(_, replica)| &replica.service);
    let left: BTreeSet<&ServiceKey> = left
        .filter(|key| key.to_string() == name || key.service.as_str() == name)
        .collect();
    match left.into_iter().collect::<Vec<_>>().as_slice() {
        [one] if unknown.code == Code::NotFound => Ok(one),
        _ => Err(unknown),
    }
}

/// Replicas of the named services (all, where none is named), by service, machine and age. Those
/// that failed and are kept for their logs are among them; those that were replaced are not.
pub(super) fn selected<'a>(
    cluster: &'a Cluster,
    names: &[String],
    project: &str,
) -> Result<Vec<Owned<'a>>, Failure> {
    let keys = names
        .iter()
        .map(|name| named(cluster, name))
        .collect::<Result<Vec<&ServiceKey>, Failure>>()?;
    let mut replicas: Vec<Owned<'a>> = cluster
        .replicas()
        .filter(|(_, replica)| keys.is_empty() || keys.contains(&&replica.service))
        .filter(|(_, replica)| project.is_empty() || replica.service.project.as_str() == project)
        .filter(|(_, replica)| replica.record.kept() != Kept::Replaced)
        .collect();
    replicas.sort_by(|a, b| {
        fn order<'b>((machine, replica): &Owned<'b>) -> impl Ord + use<'b> {
            let record = &replica.record;
            (
                &replica.service,
                &machine.name,
                record.created_at_ms,
                &record.container_id,
            )
        }
        order(a).cmp(&order(b))
    });
    Ok(replicas)
}

/// The replica a command runs in: the requested one, else a running one, preferably on this
/// machine.
fn exec_target<'a>(
    cluster: &'a Cluster,
    own: MachineId,
    start: &ExecStart,
) -> Result<Owned<'a>, Failure> {
    let replicas = selected(cluster, std::slice::from_ref(&start.service), "")?;
    if !start.container.is_empty() {
        let is_named = |(_, replica): &Owned<'_>| {
            let container = &replica.record.container_id;
            container.starts_with(&start.container)
        };
        let mut matching = replicas.into_iter().filter(is_named);
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
    let running = replicas.into_iter().filter(|(machine, replica)| {
        replica.record.state() == ReplicaState::Running && !cluster.is_down(machine.id)
    });
    running
        .min_by_key(|(machine, _)| machine.id != own)
        .ok_or_else(|| {
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
        let cluster = member.cluster();
        let places = places(&cluster);
        let services = cluster
            .services()
            .iter()
            .filter(|(key, _)| project.is_empty() || key.project.as_str() == project)
            .map(|(key, record)| status(&cluster, &places, key, record))
            .collect();
        Ok(Response::new(ListServicesResponse { services }))
    }

    async fn ps(&self, request: Request<PsRequest>) -> Result<Response<PsResponse>, Status> {
        let member = self.app.member()?;
        let request = request.into_inner();
        let cluster = member.cluster();
        let replicas = selected(&cluster, &request.services, &request.project)?
            .into_iter()
            .map(|owned| replica_status(&cluster, owned))
            .collect();
        Ok(Response::new(PsResponse { replicas }))
    }

    async fn history(
        &self,
        request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        let member = self.app.member()?;
        let cluster = member.cluster();
        let (key, present) = cluster.service(&request.into_inner().service)?;
        let all = history::revisions(&member.store.snapshot(), key);
        let records: Vec<_> = all
            .iter()
            .filter_map(|of| Some((of, of.record.as_ref()?, of.record.as_ref()?.spec.as_ref()?)))
            .collect();
        let before = records.iter().skip(1).map(Some).chain([None]);
        let revisions = records
            .iter()
            .zip(before)
            .map(|((of, record, spec), before)| {
                let changes = before.map(|(_, _, before)| uc_planner::diff::fields(before, spec));
                ServiceRevision {
                    revision: record.revision.clone(),
                    deployment_id: of.deployment_id.clone(),
                    deployed_at_ms: of.at_ms,
                    current: record.revision == present.revision,
                    image: spec.image.clone(),
                    changes: changes.unwrap_or_default(),
                }
            });
        Ok(Response::new(HistoryResponse {
            project: key.project.to_string(),
            service: key.service.to_string(),
            revisions: revisions.collect(),
        }))
    }

    async fn inspect(
        &self,
        request: Request<InspectServiceRequest>,
    ) -> Result<Response<InspectServiceResponse>, Status> {
        let member = self.app.member()?;
        let cluster = member.cluster();
        let (key, record) = cluster.service(&request.into_inner().service)?;
        let replicas = selected(&cluster, &[key.to_string()], "")?
            .into_iter()
            .map(|owned| replica_status(&cluster, owned))
            .collect();
        Ok(Response::new(InspectServiceResponse {
            service: Some(status(&cluster, &places(&cluster), key, record)),
            replicas,
            volumes: record.volumes.clone(),
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
        let cluster = member.cluster();
        let (machine, replica) = exec_target(&cluster, member.id, &start)?;
        start.container.clone_from(&replica.record.container_id);
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
        let remote = member.peers.machine(machine);
        let replies = remote.exec(ReceiverStream::new(receiver)).await?;
        Ok(Response::new(Box::pin(replies)))
    }
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{MachineRecord, Placement, ServiceSpec};
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::cluster::machines::Own;

    fn machine(number: u8, disk: &str) -> MachineRecord {
        MachineRecord {
            id: MachineId::from_bytes([number; 16]).to_string(),
            name: format!("m{number}"),
            public_key: PrivateKey::from_bytes([number; 32]).public().to_string(),
            subnet: format!("10.210.{number}.0/24"),
            labels: [("disk".to_owned(), disk.to_owned())].into(),
            ..MachineRecord::default()
        }
    }

    #[test]
    fn status_of_global_service_counts_the_machines_that_fit() {
        let own = Own {
            id: MachineId::from_bytes([1; 16]),
            key: PrivateKey::from_bytes([1; 32]).public(),
            network: "10.210.0.0/16".parse().unwrap(),
            prefix_length: 24,
        };
        let machines = [machine(1, "ssd"), machine(2, "hdd"), machine(3, "ssd")];
        let cluster = Cluster::of_machines(own, machines);
        let key = "shop/agent".parse().unwrap();
        for (constraints, expected) in [(vec![], 3), (vec!["node.labels.disk==ssd".into()], 2)] {
            let spec = ServiceSpec {
                mode: ServiceMode::Global.into(),
                placement: Some(Placement {
                    constraints,
                    ..Placement::default()
                }),
                ..ServiceSpec::default()
            };
            let record = ServiceRecord {
                spec: Some(spec),
                ..ServiceRecord::default()
            };
            let status = status(&cluster, &places(&cluster), &key, &record);
            assert_eq!(status.desired, expected);
        }
    }
}
