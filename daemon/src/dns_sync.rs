//! Serves the cluster's names on this machine. The zone is rebuilt when records or liveness change,
//! and replaced as a whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uc_api::v1::{Health, ReplicaState};
use uc_api::{Code, Failure};
use uc_cluster_state::membership::Liveness;
use uc_dns::{ServerConfig, Zone, ZoneAlias, ZoneInput, ZoneMachine, ZoneReplica};

use crate::backoff::Backoff;
use crate::member::{Member, Readiness, Stage};
use crate::mesh_sync::{gateway, usable_machines};

const PORT: u16 = 53;
/// The host's resolver configuration, for names that are not in the zone.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut readiness = member.readiness.subscribe();
    let network_is_up = |readiness: &Readiness| readiness.network == Stage::Ready;
    tokio::select! {
        () = member.cancel.cancelled() => return,
        ready = readiness.wait_for(network_is_up) => if ready.is_err() { return },
    }
    let (sender, receiver) = watch::channel(Arc::new(zone(&member)));
    tokio::join!(rebuild(&member, sender), serve(&member, receiver));
}

async fn rebuild(member: &Member, zones: watch::Sender<Arc<Zone>>) {
    let mut records = member.store.watch();
    let mut alive = member.alive.subscribe();
    loop {
        zones.send_replace(Arc::new(zone(member)));
        tokio::select! {
            () = member.cancel.cancelled() => return,
            _ = records.changed() => {}
            changed = alive.changed() => if changed.is_err() { return },
        }
    }
}

async fn serve(member: &Member, zones: watch::Receiver<Arc<Zone>>) {
    let address = SocketAddr::new(gateway(member.membership.subnet).into(), PORT);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let upstreams = uc_dns::resolv_conf::upstreams(&resolv_conf);
        let config = ServerConfig {
            listen: vec![address],
            upstreams,
            ..ServerConfig::default()
        };
        let error = match uc_dns::Server::bind(config).await {
            Ok(server) => {
                member.stage(|readiness| readiness.dns = Stage::Ready);
                return server.run(zones, member.cancel.child_token()).await;
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "cannot serve DNS");
        let failure = Failure::new(Code::Refused, error.to_string()).hint(format!(
            "find the program that uses the port: `ss -lunp 'sport = :{PORT}'`"
        ));
        member.stage(|readiness| readiness.dns = Stage::Failed(failure));
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.wait(rand::random())) => {}
        }
    }
}

fn zone(member: &Member) -> Zone {
    let view = member.view();
    let liveness = member.liveness();
    let records = view.machines();
    // A machine without a subnet of its own is left out, with its replicas: their addresses lead to
    // the containers of the machine that holds the subnet.
    let (usable, _) = usable_machines(member, &records);
    let reachable: BTreeSet<&str> = usable
        .iter()
        .filter(|machine| machine.subnet.is_some())
        .map(|machine| machine.record.id.as_str())
        .collect();
    let machines = usable
        .iter()
        .filter_map(|machine| {
            let record = machine.record;
            let up = liveness.get(&record.id) != Some(&Liveness::Down);
            Some(ZoneMachine {
                id: record.id.parse().ok()?,
                name: record.name.parse().ok()?,
                ipv4: gateway(machine.subnet?),
                up,
            })
        })
        .collect();
    let known_replicas = view.replicas();
    let elsewhere = known_replicas
        .iter()
        .filter(|owned| owned.replica.own_resolvers)
        .filter_map(|owned| owned.replica.ip.parse().ok())
        .collect();
    let replicas = known_replicas
        .into_iter()
        .filter(|owned| reachable.contains(owned.machine.id.as_str()))
        .filter_map(|owned| {
            let replica = owned.replica;
            Some(ZoneReplica {
                ip: replica.ip.parse().ok()?,
                running: replica.state() == ReplicaState::Running,
                unhealthy: matches!(replica.health(), Health::Unhealthy | Health::Starting),
                draining: replica.draining,
                project: replica.project.parse().ok()?,
                service: replica.service.parse().ok()?,
                machine_id: owned.machine.id.parse().ok()?,
            })
        })
        .collect();
    let local_machine = member.membership.machine_id.parse().ok();
    let known = view.services();
    let aliases = known
        .iter()
        .flat_map(|(key, record)| {
            record
                .spec
                .iter()
                .flat_map(|spec| &spec.aliases)
                .map(move |name| (key, name))
        })
        .map(|(key, name)| ZoneAlias {
            service: key.clone(),
            name: name.clone(),
        })
        .collect();
    let services = known.into_keys().collect();
    Zone::build(&ZoneInput {
        local_machine,
        machines,
        services,
        aliases,
        elsewhere,
        replicas,
    })
}
