//! What the measured daemon answers on its Unix socket, as it answers `uc`.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uc_api::layout::API_SOCKET;
use uc_api::v1::cluster_client::ClusterClient;
use uc_api::v1::machine_client::MachineClient;
use uc_api::v1::services_client::ServicesClient;
use uc_api::v1::{
    ExamineRequest, InfoRequest, JoinRequest, ListMachinesRequest, Liveness, PsRequest,
};
use uc_api::version::{CLIENT_VERSION_KEY, PROTOCOL, PROTOCOL_KEY, VERSION};
use uc_mesh::PublicKey;

use super::site;

/// Time for the daemon to answer after its start.
const START: Duration = Duration::from_secs(30);
/// Time for a machine to see all others and all records after it joined.
const SETTLE: Duration = Duration::from_secs(120);
/// Time for the last of many changes to be shown.
const ARRIVE: Duration = Duration::from_secs(10);
/// Pause before a question is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A connection to the daemon.
#[derive(Debug, Clone)]
pub(super) struct Api {
    channel: InterceptedService<Channel, Speaks>,
}

/// Adds our version to a call, without which a daemon refuses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaks;

impl Interceptor for Speaks {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLIENT_VERSION_KEY, MetadataValue::from_static(VERSION));
        metadata.insert(PROTOCOL_KEY, MetadataValue::from(PROTOCOL));
        Ok(request)
    }
}

impl Api {
    /// Connects as soon as the daemon listens.
    pub(super) async fn connect() -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{API_SOCKET}"))?;
        let connecting = async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    return channel;
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let channel = tokio::time::timeout(START, connecting)
            .await
            .context("ucd did not answer on its socket")?;
        Ok(Self {
            channel: InterceptedService::new(channel, Speaks),
        })
    }

    /// The public key that the daemon made at its first start.
    pub(super) async fn public_key(&self) -> anyhow::Result<PublicKey> {
        let mut machine = MachineClient::new(self.channel.clone());
        let info = machine.info(InfoRequest {}).await?.into_inner();
        Ok(info.public_key.parse()?)
    }

    /// Makes the machine a member. Returns when all parts of the daemon work.
    pub(super) async fn join(&self, measured: PublicKey) -> anyhow::Result<()> {
        let machines = 1..=site::MEASURED;
        let request = JoinRequest {
            cluster: Some(site::cluster()),
            machine: Some(site::machine(site::MEASURED, measured)),
            members: machines.map(|n| site::machine(n, measured)).collect(),
            wireguard_port: 0,
        };
        let mut machine = MachineClient::new(self.channel.clone());
        machine.join(request).await.context("cannot join")?;
        Ok(())
    }

    /// Waits until the daemon shows every replica, sees every machine, and reports no problem.
    pub(super) async fn wait_complete(&self) -> anyhow::Result<()> {
        let mut missing = None;
        let asking = async {
            loop {
                match self.complete().await {
                    Ok(()) => return,
                    Err(error) => missing = Some(error),
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        match tokio::time::timeout(SETTLE, asking).await {
            Ok(()) => Ok(()),
            Err(_) => Err(missing
                .unwrap_or_else(|| anyhow::anyhow!("no answer"))
                .context("the machine is not a complete member")),
        }
    }

    async fn complete(&self) -> anyhow::Result<()> {
        let mut services = ServicesClient::new(self.channel.clone());
        let replicas = services.ps(PsRequest::default()).await?.into_inner();
        let count = replicas.replicas.len();
        ensure!(count == site::REPLICAS, "it shows {count} replicas");
        let mut cluster = ClusterClient::new(self.channel.clone());
        let machines = cluster.list_machines(ListMachinesRequest {}).await?;
        let machines = machines.into_inner().machines;
        let count = machines.len();
        ensure!(
            count == usize::from(site::MEASURED),
            "it lists {count} machines"
        );
        for machine in &machines {
            let name = machine.machine.as_ref().map(|record| &record.name);
            ensure!(
                machine.liveness() == Liveness::Up,
                "it does not see {name:?}"
            );
            ensure!(machine.facts.is_some(), "it has no facts of {name:?}");
        }
        let examined = cluster.examine(ExamineRequest::default()).await?;
        let examined = examined.into_inner().machines;
        let [own] = examined.as_slice() else {
            bail!("it did not examine itself");
        };
        let found = own.examination.as_ref().context("no examination")?;
        if let Some(part) = found.unready.first() {
            bail!("{}: {}", part.part, part.reason);
        }
        if let Some(record) = found.unusable_records.first() {
            bail!("unusable record: {}", record.reason);
        }
        ensure!(!found.rejoining, "it fetches all records again");
        Ok(())
    }

    /// Waits until the daemon shows a change of the peer's replicas.
    pub(super) async fn wait_changed(&self, change: u32) -> anyhow::Result<()> {
        let slot = change as usize % site::REPLICAS_OF_MACHINE;
        let mut services = ServicesClient::new(self.channel.clone());
        let request = PsRequest {
            services: vec![site::service_key(site::service_of(site::PEER, slot))],
            ..PsRequest::default()
        };
        let container = site::container_id(site::PEER, slot);
        let asking = async {
            loop {
                let answer = services.ps(request.clone()).await?.into_inner();
                let mut shown = answer
                    .replicas
                    .iter()
                    .filter_map(|one| one.replica.as_ref());
                let replica = shown.find(|replica| replica.container_id == container);
                if replica.is_some_and(|replica| replica.restart_count == change) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        tokio::time::timeout(ARRIVE, asking)
            .await
            .context("the last change did not arrive")?
    }
}
