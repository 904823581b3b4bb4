//! `uc ps`

use clap::Args;
use jiff::Timestamp;
use uc_api::id::short;
use uc_api::v1::{Liveness, PsRequest, ReplicaStatus};

use crate::cli::Output;
use crate::connect::{Globals, within};
use crate::error::CliResult;
use crate::ui::{Cell, DIM, RED, Table, Ui};
use crate::{times, view};

/// List the containers of all services on all machines
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only these services, `SERVICE` or `PROJECT/SERVICE`
    services: Vec<String>,
    /// Only this project
    #[arg(short, long)]
    project: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: PsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = PsRequest {
        services: args.services,
        project: args.project.unwrap_or_default(),
    };
    let replicas = client
        .services()
        .ps(within(30, request))
        .await?
        .into_inner()
        .replicas;
    if args.output.is_json() {
        return ui.json(&replicas.iter().map(view::Replica::from).collect::<Vec<_>>());
    }
    if replicas.is_empty() {
        return ui.status("no containers");
    }
    ui.out(&table(&replicas, Timestamp::now()).render())
}

/// The table of `uc ps` and `uc inspect`.
pub(super) fn table(replicas: &[ReplicaStatus], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "CONTAINER",
        "IMAGE",
        "CREATED",
        "STATE",
        "IP",
        "MACHINE",
    ]);
    for status in replicas {
        let Some(replica) = &status.replica else {
            continue;
        };
        let (mut text, condition) = view::condition(replica);
        let mut style = condition.style();
        let mut machine = Cell::from(status.machine_name.as_str());
        match status.machine_liveness() {
            // What a dead machine said last is no longer known to be true.
            Liveness::Down => {
                text = format!("was {text}");
                style = DIM;
                machine = Cell::styled(format!("{} (down)", status.machine_name), RED);
            }
            Liveness::Suspect => machine = Cell::from(format!("{} (suspect)", status.machine_name)),
            Liveness::Up | Liveness::Unspecified => {}
        }
        if !status.current {
            text.push_str(", old revision");
        }
        table.row([
            format!("{}/{}", replica.project, replica.service).into(),
            short(&replica.container_id).into(),
            replica.image.as_str().into(),
            times::ago(replica.created_at_ms, now).into(),
            Cell::styled(text, style),
            replica.ip.as_str().into(),
            machine,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{Health, ReplicaRecord, ReplicaState};

    use super::*;

    #[test]
    fn each_replica_says_what_it_is() {
        let replica = |service: &str, state: ReplicaState, health: Health| ReplicaRecord {
            container_id: "0123456789abcdef".repeat(4),
            project: "shop".into(),
            service: service.into(),
            image: "nginx:1".into(),
            state: state.into(),
            health: health.into(),
            ip: "10.210.0.2".into(),
            created_at_ms: 1_000,
            exit_code: (state == ReplicaState::Exited).then_some(1),
            ..Default::default()
        };
        let status = |replica, machine: &str, liveness: Liveness, current| ReplicaStatus {
            replica: Some(replica),
            machine_name: machine.into(),
            machine_liveness: liveness.into(),
            current,
            ..Default::default()
        };
        let replicas = [
            status(
                replica("web", ReplicaState::Running, Health::Healthy),
                "m1",
                Liveness::Up,
                true,
            ),
            status(
                replica("web", ReplicaState::Exited, Health::None),
                "m2",
                Liveness::Suspect,
                false,
            ),
            status(
                replica("db", ReplicaState::Running, Health::None),
                "m3",
                Liveness::Down,
                true,
            ),
        ];
        let text = table(&replicas, Timestamp::from_second(301).unwrap()).render();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
