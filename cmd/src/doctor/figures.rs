//! The store's figures in tables: the records of each machine, its writes, and its traffic with
//! each other machine.

use uc_api::v1::{ExaminedMachine, StoreFigures};

use super::records::p99_us;
use super::{Look, clock};
use crate::ui::{Cell, Table};
use crate::words;

/// The three tables, separated by empty lines.
pub(crate) fn tables(machines: &[ExaminedMachine]) -> String {
    let look = Look::new(machines);
    [kept(&look), written(&look, machines), exchanged(&look)]
        .map(|table| table.render())
        .join("\n")
}

fn kept(look: &Look<'_>) -> Table {
    let mut table = Table::new(&[
        "MACHINE",
        "CHANGES",
        "ACTORS",
        "TOMBSTONES",
        "COLLECTED",
        "CONFLICTS",
        "QUARANTINED",
        "OPAQUE",
        "LOOSE",
        "REJOINS",
        "FILE",
    ]);
    for machine in &look.answered {
        let store = machine.store;
        table.row([
            machine.name.into(),
            number(store.changes),
            number(store.actors),
            number(store.tombstones),
            number(store.collected),
            number(store.conflicts),
            number(store.quarantined),
            number(store.opaque),
            number(store.loose),
            number(store.rejoins),
            words::bytes(store.file_bytes).into(),
        ]);
    }
    table
}

fn written(look: &Look<'_>, machines: &[ExaminedMachine]) -> Table {
    let mut table = Table::new(&[
        "MACHINE", "COMMITS", "DURABLE", "FAILED", "WAITING", "MEAN", "P99", "UPTIME", "CLOCK",
        "DOCKER", "UC",
    ]);
    for machine in &look.answered {
        let store = machine.store;
        let examined = machines.iter().find(|one| {
            one.machine
                .as_ref()
                .is_some_and(|record| record.id == machine.id)
        });
        let clock = examined
            .and_then(clock)
            .map(|(ahead, error)| format!("{ahead:+} ms ± {error}"));
        table.row([
            machine.name.into(),
            number(store.commits),
            number(store.durable_commits),
            number(store.failed_commits),
            number(store.waiting),
            store
                .commit_us
                .checked_div(store.commits)
                .map_or_else(Cell::default, |us| micros(us).into()),
            p99(store).map_or_else(Cell::default, Cell::from),
            machine.uptime().into(),
            clock.map_or_else(Cell::default, Cell::from),
            machine.said.docker_version.as_str().into(),
            machine.said.uc_version.as_str().into(),
        ]);
    }
    table
}

fn exchanged(look: &Look<'_>) -> Table {
    let mut table = Table::new(&[
        "MACHINE",
        "PEER",
        "SEEN",
        "SESSION",
        "SESSIONS",
        "LAG",
        "FRAMES IN",
        "FRAMES OUT",
        "BYTES IN",
        "BYTES OUT",
        "DIFFERENCES",
    ]);
    for machine in &look.answered {
        for peer in &machine.said.peers {
            let session = match (peer.connected, peer.neighbour) {
                (true, _) => "open",
                (false, true) => "none",
                (false, false) => "no neighbour",
            };
            table.row([
                machine.name.into(),
                peer.machine_name.as_str().into(),
                words::machine_state(peer.liveness(), peer.evicted).into(),
                session.into(),
                number(peer.sessions),
                number(peer.lag),
                number(peer.frames_in),
                number(peer.frames_out),
                words::bytes(peer.bytes_in).into(),
                words::bytes(peer.bytes_out).into(),
                number(peer.differences),
            ]);
        }
    }
    table
}

fn number(count: u64) -> Cell {
    count.to_string().into()
}

/// `250 µs`, `2.5 ms`.
fn micros(us: u64) -> String {
    if us < 1000 {
        format!("{us} µs")
    } else {
        format!("{}.{} ms", us / 1000, us % 1000 / 100)
    }
}

/// Only the ends of the buckets are known, so this is a bound.
fn p99(store: &StoreFigures) -> Option<String> {
    match p99_us(store)? {
        u64::MAX => {
            let end = store.commit_bucket_ends_us.last()?;
            Some(format!("> {}", micros(*end)))
        }
        end => Some(format!("≤ {}", micros(end))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(
            [micros(250), micros(2_500), micros(50_000)],
            ["250 µs", "2.5 ms", "50.0 ms"]
        );
    }
}
