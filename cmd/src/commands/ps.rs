//! `uc ps`

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use uc_api::id::short;
use uc_api::v1::{Liveness, PsRequest, ReplicaRecord, ReplicaStatus};

use crate::answer::with_part;
use crate::args::{WideFormat, WideOutput};
use crate::connect::{Globals, ask, within};
use crate::error::CliResult;
use crate::ui::{Cell, DIM, RED, Table, Ui};
use crate::{times, view, words};

/// List the containers of services on all machines
///
/// On a terminal, long names are cut with `…` to fit its width. `-o wide` shows them in full, and
/// more columns.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// `SERVICE` or `PROJECT/SERVICE` [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// List only this project
    #[arg(short, long, default_value_t, hide_default_value = true)]
    project: String,
    #[command(flatten)]
    output: WideOutput,
}

pub(crate) async fn run(args: PsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let request = PsRequest {
        services: args.services,
        project: args.project,
    };
    let answer = ask(client.services().ps(within(30, request))).await?;
    let replicas = listed(answer.replicas)?;
    let format = args.output.output;
    if format == WideFormat::Json {
        return ui.json_list(replicas.iter().map(view::Replica::from));
    }
    if replicas.is_empty() {
        return ui.status("no containers");
    }
    let now = Timestamp::now();
    if format == WideFormat::Wide {
        ui.out(&wide_table(&replicas, now).render())?;
    } else {
        ui.table(&table(&replicas, now))?;
    }
    warn_of_engines(ui, &replicas, now)
}

/// Names the machines whose Docker engine does not answer, once each.
fn warn_of_engines(ui: &Ui, replicas: &[Listed], now: Timestamp) -> CliResult {
    let away: BTreeMap<&str, i64> = replicas
        .iter()
        .filter(|(_, status)| status.machine_liveness() != Liveness::Down)
        .map(|(_, status)| (status.machine_name.as_str(), status.engine_away_since_ms))
        .collect();
    for (machine, since_ms) in away {
        if let Some(text) = words::engine_away(machine, since_ms, now.as_millisecond()) {
            ui.warn(&text)?;
        }
    }
    Ok(())
}

/// The record of a replica and its state.
pub(crate) type Listed = (ReplicaRecord, ReplicaStatus);

/// The replicas of an answer.
pub(crate) fn listed(replicas: Vec<ReplicaStatus>) -> CliResult<Vec<Listed>> {
    with_part(replicas, "a replica", |status| status.replica.take())
}

const COLUMNS: [&str; 6] = [
    "SERVICE",
    "CONTAINER",
    "IMAGE",
    "CREATED",
    "STATE",
    "MACHINE",
];

/// The table of `uc ps` and `uc inspect`.
pub(super) fn table(replicas: &[Listed], now: Timestamp) -> Table {
    let mut table = Table::new(&COLUMNS).free_text(&["SERVICE", "IMAGE", "MACHINE"]);
    for (replica, status) in replicas {
        table.row(cells(replica, status, now));
    }
    table
}

/// The table of `uc ps -o wide`.
fn wide_table(replicas: &[Listed], now: Timestamp) -> Table {
    let titles: Vec<&str> = COLUMNS
        .into_iter()
        .chain(["IP", "NAME", "REVISION", "RESTARTS", "PORTS"])
        .collect();
    let mut table = Table::new(&titles);
    for (replica, status) in replicas {
        let [service, container, image, created, state, machine] = cells(replica, status, now);
        let ports: Vec<_> = replica.ports.iter().map(view::port_text).collect();
        table.row([
            service,
            container,
            image,
            created,
            state,
            machine,
            replica.ip.as_str().into(),
            replica.container_name.as_str().into(),
            replica.revision.as_str().into(),
            replica.restart_count.to_string().into(),
            ports.join(", ").into(),
        ]);
    }
    table
}

fn cells(replica: &ReplicaRecord, status: &ReplicaStatus, now: Timestamp) -> [Cell; 6] {
    let (mut text, condition) = words::condition(replica);
    let mut style = condition.style();
    let mut machine = Cell::from(status.machine_name.as_str());
    match status.machine_liveness() {
        // This is the last report of a machine that is down: it may no longer be true.
        Liveness::Down => {
            text = format!("was {text}");
            style = DIM;
            machine = Cell::styled(format!("{} (down)", status.machine_name), RED);
        }
        _ if status.engine_away_since_ms > 0 => {
            text = format!("was {text}");
            style = DIM;
            machine = Cell::styled(format!("{} (no Docker)", status.machine_name), RED);
        }
        Liveness::Suspect => machine = Cell::from(format!("{} (suspect)", status.machine_name)),
        Liveness::Up | Liveness::Unspecified => {}
    }
    if status.retirement.is_some() {
        text.push_str(", to be removed");
    } else if !status.current {
        text.push_str(", old revision");
    }
    [
        format!("{}/{}", replica.project, replica.service).into(),
        short(&replica.container_id).into(),
        replica.image.as_str().into(),
        times::ago(replica.created_at_ms, now).into(),
        Cell::styled(text, style),
        machine,
    ]
}

#[cfg(test)]
mod tests {
    use uc_api::v1::{Health, ReplicaState, RetireRecord};

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
        let status = |replica, machine: &str, liveness: Liveness, current| {
            let status = ReplicaStatus {
                machine_name: machine.into(),
                machine_liveness: liveness.into(),
                current,
                ..Default::default()
            };
            (replica, status)
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
        let mut removed = status(
            replica("old", ReplicaState::Running, Health::None),
            "m3",
            Liveness::Down,
            false,
        );
        removed.1.retirement = Some(RetireRecord::default());
        let mut away = status(
            replica("api", ReplicaState::Running, Health::Healthy),
            "m4",
            Liveness::Up,
            true,
        );
        away.1.engine_away_since_ms = 1;
        let replicas = [&replicas[..], &[away, removed]].concat();
        let text = table(&replicas, Timestamp::from_second(301).unwrap()).render();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
