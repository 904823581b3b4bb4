use futures_util::stream;
use uc_api::v1::MachineRecord;

use super::*;

fn machine(name: &str) -> Arc<Machine> {
    Arc::new(Machine {
        id: MachineId::from_bytes([1; 16]),
        name: name.parse().unwrap(),
        holds_name: true,
        key: uc_mesh::PrivateKey::from_bytes([1; 32]).public(),
        subnet: None,
        record: MachineRecord::default(),
    })
}

fn line(second: i64) -> LogEntry {
    LogEntry {
        time_ns: second * 1_000_000_000,
        message: second.to_string().into_bytes(),
        ..Default::default()
    }
}

/// What a machine sends: the lines of these seconds, each after a delay in milliseconds.
fn sends(lines: &[(u64, i64)]) -> Entries {
    stream::iter(lines.to_vec())
        .then(|(delay, second)| async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            Ok(line(second))
        })
        .boxed()
}

/// The merged stream as text: machine and message, or machine and problem.
async fn collect(machines: Vec<(&str, Entries)>, follow: bool) -> Vec<String> {
    let machines = machines
        .into_iter()
        .map(|(name, entries)| (machine(name), entries))
        .collect();
    merged(machines, follow)
        .map(|entry| {
            let message = String::from_utf8_lossy(&entry.message);
            format!("{} {message}{}", entry.machine_name, entry.problem)
        })
        .collect()
        .await
}

#[tokio::test(start_paused = true)]
async fn following_merges_the_history_of_machines_in_time_order() {
    // The history of m2 comes in pieces, as over a slow link, and then both follow.
    let m1 = sends(&[(0, 1), (0, 4), (0, 5), (5_000, 8)]);
    let m2 = sends(&[(300, 2), (100, 3), (100, 6), (2_000, 7)]);
    assert_eq!(
        collect(vec![("m1", m1), ("m2", m2)], true).await,
        [
            "m1 1", "m2 2", "m2 3", "m1 4", "m1 5", "m2 6", "m2 7", "m1 8"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn following_holds_lines_back_for_a_silent_machine_once() {
    let start = tokio::time::Instant::now();
    let silent = stream::pending().boxed();
    let machines = vec![
        (machine("m1"), silent),
        (machine("m2"), sends(&[(0, 1), (0, 2), (10, 3)])),
    ];
    let entries = merged(machines, true);
    tokio::pin!(entries);
    for second in 1..=3 {
        assert_eq!(entries.next().await.unwrap().time_ns, line(second).time_ns);
    }
    assert_eq!(start.elapsed(), FIRST_LINE + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn without_following_every_machine_is_waited_for() {
    let m1 = sends(&[(0, 2)]);
    let m2 = sends(&[(60_000, 1), (60_000, 3)]);
    assert_eq!(
        collect(vec![("m1", m1), ("m2", m2)], false).await,
        ["m2 1", "m1 2", "m2 3"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_reported_and_the_others_continue() {
    for follow in [false, true] {
        let broken = stream::iter([Ok(line(1)), Err(Status::unavailable("connection lost"))]);
        let got = collect(
            vec![("m1", broken.boxed()), ("m2", sends(&[(0, 2), (0, 3)]))],
            follow,
        );
        assert_eq!(
            got.await,
            ["m1 1", "m1 connection lost", "m2 2", "m2 3"],
            "follow={follow}"
        );
    }
}
