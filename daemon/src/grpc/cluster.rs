//! `Cluster`: the members.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use uc_api::v1::cluster_server::Cluster;
use uc_api::v1::{
    AddMachineRequest, AddMachineResponse, BackupRequest, BackupResponse, CordonMachineRequest,
    CordonMachineResponse, CreateTokenRequest, CreateTokenResponse, ExamineRequest,
    ExamineResponse, LabelMachineRequest, LabelMachineResponse, ListMachinesRequest,
    ListMachinesResponse, ListTokensRequest, ListTokensResponse, MachineRecord, MachineStatus,
    RemoveMachineRequest, RemoveMachineResponse, RemoveTokenRequest, RemoveTokenResponse,
    RenameMachineRequest, RenameMachineResponse,
};
use uc_api::{Code, Failure};
use uc_cluster_state::Write;

use crate::app::App;
use crate::clock::now_ms;
use crate::cluster::examine::{self, wire_liveness};
use crate::cluster::member::Member;
use crate::cluster::records::{self, delete};
use crate::cluster::{backup, cordon, labels};
use crate::membership::{register, tokens};

#[derive(Debug)]
pub(super) struct ClusterApi {
    app: Arc<App>,
}

impl ClusterApi {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

fn list(member: &Member) -> Vec<MachineStatus> {
    let cluster = member.cluster();
    let evicted = examine::evicted(&member.store.snapshot());
    let status = |record: &MachineRecord| {
        let id = record.id.parse().ok();
        let reported = id.map(|id| cluster.reported(id));
        MachineStatus {
            liveness: wire_liveness(id.and_then(|id| cluster.liveness(id))).into(),
            evicted: id.is_some_and(|id| evicted.contains(&id)),
            facts: reported.and_then(|of| of.facts.as_deref().cloned()),
            connected: id == Some(member.id),
            replicas: reported.map_or(0, |of| of.replicas.len() as u32),
            machine: Some(record.clone()),
        }
    };
    cluster.machine_records().iter().map(status).collect()
}

async fn rename(member: &Member, request: RenameMachineRequest) -> Result<MachineRecord, Failure> {
    let cluster = member.cluster();
    let machine = cluster.machine_record(&request.machine)?.clone();
    if machine.name == request.new_name {
        return Ok(machine);
    }
    let name = register::free_name(cluster.machine_records(), &request.new_name)?;
    let renamed = MachineRecord {
        name: name.to_string(),
        ..machine
    };
    member
        .write(vec![labels::write_record(renamed.clone())])
        .await?;
    Ok(renamed)
}

async fn label(member: &Member, request: LabelMachineRequest) -> Result<MachineRecord, Failure> {
    let machine = member.cluster().machine_record(&request.machine)?.clone();
    let labels = labels::changed(&machine.labels, &request)?;
    if labels != machine.labels {
        member
            .write(vec![labels::write(&machine.id, labels.clone())])
            .await?;
    }
    Ok(MachineRecord { labels, ..machine })
}

/// Keeps new replicas away from a machine, or ends that.
async fn set_cordon(
    member: &Member,
    request: CordonMachineRequest,
) -> Result<MachineRecord, Failure> {
    let machine = member.cluster().machine_record(&request.machine)?.clone();
    if (machine.cordoned_at_ms != 0) == request.cordon {
        return Ok(machine);
    }
    let cordoned_at_ms = if request.cordon { now_ms() } else { 0 };
    member
        .write(vec![cordon::write(&machine.id, cordoned_at_ms)])
        .await?;
    Ok(MachineRecord {
        cordoned_at_ms,
        ..machine
    })
}

/// Runs a call's work in a task of its own, so that it also ends if the caller hangs up. A change
/// that stopped half-way would leave the cluster in between, and would release its lock while a
/// write is still on its way.
pub(super) async fn to_its_end<T, W>(
    member: &Arc<Member>,
    work: impl FnOnce(Arc<Member>) -> W,
) -> Result<T, Failure>
where
    T: Send + 'static,
    W: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let working = member.tasks.spawn(work(Arc::clone(member)));
    working.await.unwrap_or_else(|error| {
        let message = format!("internal error in ucd: {error}");
        Err(Failure::new(Code::Internal, message))
    })
}

/// Registers a machine: with a join token, or for a user.
pub(super) async fn register(
    member: &Arc<Member>,
    request: AddMachineRequest,
    token: Option<String>,
) -> Result<AddMachineResponse, Failure> {
    to_its_end(member, |own| async move {
        let _one_at_a_time = own.registering.lock().await;
        register::add_machine(&own, request, token.as_deref()).await
    })
    .await
}

async fn remove_machine(
    member: Arc<Member>,
    request: RemoveMachineRequest,
) -> Result<RemoveMachineResponse, Failure> {
    // A registration that is being written ends first: this may be its rollback.
    let machine = {
        let _one_at_a_time = member.registering.lock().await;
        member.cluster().machine_record(&request.machine)?.clone()
    };
    if machine.id == member.membership.machine_id {
        return Err(Failure::new(
            Code::Refused,
            format!("{} is the machine you are connected to", machine.name),
        )
        .hint("connect to another machine, or run `sudo ucd reset --yes` on this one"));
    }
    let mut response = RemoveMachineResponse {
        machine: Some(machine.clone()),
        ..Default::default()
    };
    if !request.no_reset {
        let reset = match member.remote(&machine.id) {
            Ok(remote) => remote.reset().await,
            Err(failure) => Err(failure),
        };
        match reset {
            Ok(()) => response.was_reset = true,
            Err(failure) => response.reset_error = failure.to_string(),
        }
    }
    // What it had to do and the volumes that it had go with it.
    let cluster = member.cluster();
    let homes = machine.id.parse().into_iter();
    let homes = homes.flat_map(|id| cluster.volume_homes(id));
    let retirements = cluster
        .retirements()
        .filter(|(container, _)| container.machine.to_string() == machine.id);
    let mut writes: Vec<Write> = retirements
        .map(|(container, _)| delete(records::RETIRE, container.key()))
        .chain(homes.map(|(home, _)| delete(records::VOLUME_HOME, home.key())))
        .collect();
    writes.push(delete(records::MACHINE, machine.id));
    member.write(writes).await?;
    Ok(response)
}

/// Copies this machine's store.
pub(super) async fn back_up(member: &Arc<Member>, path: String) -> Result<BackupResponse, Failure> {
    let copied = to_its_end(member, |own| async move {
        backup::run(&own.store, own.paths.state_dir(), &path).await
    })
    .await;
    let cluster = member.cluster();
    let machine = cluster.own().map(|machine| machine.record.clone());
    let done = copied.map_err(|failure| match &machine {
        Some(machine) => failure.on(machine.name.clone()),
        None => failure,
    })?;
    let path = done.path.to_string_lossy().into_owned();
    Ok(BackupResponse {
        machine,
        bytes: done.bytes,
        digest: done.digest,
        path,
    })
}

#[tonic::async_trait]
impl Cluster for ClusterApi {
    async fn list_machines(
        &self,
        _: Request<ListMachinesRequest>,
    ) -> Result<Response<ListMachinesResponse>, Status> {
        Ok(Response::new(ListMachinesResponse {
            machines: list(&*self.app.member()?),
        }))
    }

    async fn add_machine(
        &self,
        request: Request<AddMachineRequest>,
    ) -> Result<Response<AddMachineResponse>, Status> {
        let member = self.app.member()?;
        let registered = register(&member, request.into_inner(), None).await?;
        Ok(Response::new(registered))
    }

    async fn rename_machine(
        &self,
        request: Request<RenameMachineRequest>,
    ) -> Result<Response<RenameMachineResponse>, Status> {
        let member = self.app.member()?;
        let request = request.into_inner();
        let machine = to_its_end(&member, |own| async move {
            let _one_at_a_time = own.registering.lock().await;
            rename(&own, request).await
        })
        .await?;
        Ok(Response::new(RenameMachineResponse {
            machine: Some(machine),
        }))
    }

    async fn label_machine(
        &self,
        request: Request<LabelMachineRequest>,
    ) -> Result<Response<LabelMachineResponse>, Status> {
        let member = self.app.member()?;
        let request = request.into_inner();
        let machine = to_its_end(&member, |own| async move {
            let _one_at_a_time = own.registering.lock().await;
            label(&own, request).await
        })
        .await?;
        Ok(Response::new(LabelMachineResponse {
            machine: Some(machine),
        }))
    }

    async fn cordon_machine(
        &self,
        request: Request<CordonMachineRequest>,
    ) -> Result<Response<CordonMachineResponse>, Status> {
        let member = self.app.member()?;
        let request = request.into_inner();
        let machine = to_its_end(&member, |own| async move {
            let _one_at_a_time = own.registering.lock().await;
            set_cordon(&own, request).await
        })
        .await?;
        Ok(Response::new(CordonMachineResponse {
            machine: Some(machine),
        }))
    }

    async fn remove_machine(
        &self,
        request: Request<RemoveMachineRequest>,
    ) -> Result<Response<RemoveMachineResponse>, Status> {
        let member = self.app.member()?;
        let request = request.into_inner();
        let removed = to_its_end(&member, |own| remove_machine(own, request)).await;
        Ok(Response::new(removed?))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let member = self.app.member()?;
        Ok(Response::new(
            tokens::create(&member, request.into_inner().ttl_s).await?,
        ))
    }

    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        Ok(Response::new(ListTokensResponse {
            tokens: tokens::list(&*self.app.member()?),
        }))
    }

    async fn remove_token(
        &self,
        request: Request<RemoveTokenRequest>,
    ) -> Result<Response<RemoveTokenResponse>, Status> {
        let member = self.app.member()?;
        let id = request.into_inner().id;
        let token = to_its_end(&member, |own| async move {
            // A join that is being registered with it ends first.
            let _one_at_a_time = own.registering.lock().await;
            tokens::remove(&own, &id).await
        })
        .await?;
        Ok(Response::new(RemoveTokenResponse { token: Some(token) }))
    }

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<BackupResponse>, Status> {
        let member = self.app.member()?;
        let BackupRequest { machine, path } = request.into_inner();
        if machine.is_empty() {
            return Ok(Response::new(back_up(&member, path).await?));
        }
        let cluster = member.cluster();
        let machine = cluster.machine(&machine)?;
        Ok(Response::new(if machine.id == member.id {
            back_up(&member, path).await?
        } else {
            member.peers.machine(machine).backup(path).await?
        }))
    }

    async fn examine(
        &self,
        request: Request<ExamineRequest>,
    ) -> Result<Response<ExamineResponse>, Status> {
        let member = self.app.member()?;
        Ok(Response::new(
            examine::run(&member, request.get_ref()).await?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use tokio::time::timeout;
    use uc_mesh::PrivateKey;

    use super::*;
    use crate::app::tests::{app, enter_cluster_of_one};
    use crate::cluster::peers;
    use crate::cluster::records::put;

    fn record(id: &str, name: &str, subnet: &str) -> MachineRecord {
        MachineRecord {
            id: id.repeat(16),
            name: name.into(),
            public_key: PrivateKey::generate().unwrap().public().to_string(),
            subnet: subnet.into(),
            ..MachineRecord::default()
        }
    }

    /// A cluster of one machine, and the record of another one that was never there.
    async fn cluster(directory: &tempfile::TempDir) -> (Arc<App>, Arc<Member>, MachineRecord) {
        let app = app(directory);
        let member = enter_cluster_of_one(&app).await;
        let other = record("b2", "m2", "10.210.1.0/24");
        let write = put(records::MACHINE, other.id.clone(), &other);
        member.write(vec![write]).await.unwrap();
        (app, member, other)
    }

    #[tokio::test]
    async fn cordon_label_and_rename_do_not_undo_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let (_app, member, other) = cluster(&directory).await;
        let set = async |cordon| {
            let request = CordonMachineRequest {
                machine: "m2".into(),
                cordon,
            };
            set_cordon(&member, request).await.unwrap()
        };
        let at = set(true).await.cordoned_at_ms;
        assert!(at != 0);
        assert_eq!(set(true).await.cordoned_at_ms, at, "it is cordoned already");
        let labels = LabelMachineRequest {
            machine: "m2".into(),
            set: [("disk".to_owned(), "ssd".to_owned())].into(),
            ..LabelMachineRequest::default()
        };
        label(&member, labels).await.unwrap();
        let request = RenameMachineRequest {
            machine: "m2".into(),
            new_name: "m3".into(),
        };
        rename(&member, request).await.unwrap();
        let known = member.cluster().machine_record("m3").unwrap().clone();
        assert_eq!(known.cordoned_at_ms, at);
        assert_eq!(known.labels.len(), 1);
        assert_eq!(known.subnet, other.subnet);
        let request = CordonMachineRequest {
            machine: "m3".into(),
            cordon: false,
        };
        set_cordon(&member, request).await.unwrap();
        let known = member.cluster().machine_record("m3").unwrap().clone();
        assert_eq!((known.cordoned_at_ms, known.labels.len()), (0, 1));
        member.stop().await;
    }

    #[tokio::test]
    async fn machine_whose_reset_hangs_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (_app, member, other) = cluster(&directory).await;
        peers::tests::hang(&member.peers, other.public_key.parse().unwrap());
        let request = RemoveMachineRequest {
            machine: other.id.clone(),
            no_reset: false,
        };
        tokio::time::pause();
        let removed = remove_machine(Arc::clone(&member), request).await.unwrap();
        tokio::time::resume();
        assert!(!removed.was_reset);
        assert!(
            removed.reset_error.contains("no answer"),
            "{}",
            removed.reset_error
        );
        assert!(member.cluster().machine_record(&other.id).is_err());
        member.stop().await;
    }

    #[tokio::test]
    async fn remove_machine_ends_although_the_caller_hangs_up() {
        let directory = tempfile::tempdir().unwrap();
        let (app, member, other) = cluster(&directory).await;
        let api = ClusterApi::new(app);
        let request = RemoveMachineRequest {
            machine: other.id.clone(),
            no_reset: false,
        };
        let mut call = api.remove_machine(Request::new(request));
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "the machine is being reset");
        drop(call);
        let mut records = member.store.watch();
        let removed = async {
            while member.cluster().machine_record(&other.id).is_ok() {
                records.changed().await.unwrap();
            }
        };
        let removed = timeout(Duration::from_secs(60), removed).await;
        member.stop().await;
        removed.expect("the record is deleted");
    }
}
