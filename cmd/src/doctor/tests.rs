//! A cluster in which nothing is wrong, and one thing at a time that is.

use uc_api::v1::{Liveness, MachineRecord, UnreadyPart, UnusableRecord};

use super::*;

const NOW: i64 = 1_795_262_400_000;

fn id(name: &str) -> String {
    format!("id-{name}")
}

fn store() -> StoreFigures {
    StoreFigures {
        changes: 40,
        actors: 3,
        commits: 1000,
        durable_commits: 20,
        commit_us: 900_000,
        commit_buckets: vec![500, 400, 90, 10, 0, 0, 0, 0, 0],
        commit_bucket_ends_us: vec![250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000],
        file_bytes: 65_536,
        ..Default::default()
    }
}

fn peer(name: &str) -> PeerFigures {
    PeerFigures {
        machine_id: id(name),
        machine_name: name.into(),
        liveness: Liveness::Up.into(),
        neighbour: true,
        connected: true,
        sessions: 1,
        lag: 2,
        frames_in: 7,
        frames_out: 9,
        bytes_in: 10_000,
        bytes_out: 812,
        ..Default::default()
    }
}

/// All is well with these machines; the first one was asked.
fn well(names: &[&str]) -> Vec<ExaminedMachine> {
    let one = |name: &&str| ExaminedMachine {
        machine: Some(MachineRecord {
            id: id(name),
            name: (*name).into(),
            ..Default::default()
        }),
        liveness: Liveness::Up.into(),
        connected: *name == names[0],
        asked_at_ms: NOW,
        heard_at_ms: NOW + 10,
        examination: Some(Examination {
            uc_version: "0.1.0".into(),
            docker_version: "28.5.1".into(),
            clock_from_ms: NOW + 5,
            clock_to_ms: NOW + 5,
            started_at_ms: NOW - 7_200_000,
            store: Some(store()),
            peers: names
                .iter()
                .filter(|other| *other != name)
                .map(|other| peer(other))
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    names.iter().map(one).collect()
}

/// m1, m2 and m3, one of them changed.
fn with(index: usize, change: impl FnOnce(&mut ExaminedMachine)) -> Vec<ExaminedMachine> {
    let mut machines = well(&["m1", "m2", "m3"]);
    change(&mut machines[index]);
    machines
}

/// m1, m2 and m3, one of which says something else.
fn saying(index: usize, change: impl FnOnce(&mut Examination)) -> Vec<ExaminedMachine> {
    with(index, |machine| {
        change(machine.examination.as_mut().unwrap());
    })
}

fn storing(index: usize, change: impl FnOnce(&mut StoreFigures)) -> Vec<ExaminedMachine> {
    saying(index, |said| change(said.store.as_mut().unwrap()))
}

/// No answer from it.
fn silent(index: usize, liveness: Liveness) -> Vec<ExaminedMachine> {
    with(index, |machine| {
        machine.examination = None;
        machine.liveness = liveness.into();
        machine.failure = "no answer within 5 s".into();
    })
}

fn of(looks: &[Vec<ExaminedMachine>]) -> Vec<(Severity, &'static str, Vec<String>)> {
    findings(looks)
        .into_iter()
        .map(|found| (found.severity, found.kind, found.machines))
        .collect()
}

/// The one finding there must be, as severity, kind and machines, and its words.
#[track_caller]
fn only(
    looks: &[Vec<ExaminedMachine>],
    severity: Severity,
    kind: &str,
    machines: &[&str],
) -> String {
    let found = findings(looks);
    let [one] = found.as_slice() else {
        panic!("{} findings: {found:#?}", found.len())
    };
    assert_eq!((one.severity, one.kind), (severity, kind), "{one:#?}");
    assert_eq!(one.machines, machines, "{one:#?}");
    assert!(!one.hint.is_empty(), "nothing to do about it: {one:#?}");
    one.message.clone()
}

use Severity::{Note, Problem, Warning};

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let machines = well(&["m1", "m2", "m3"]);
    assert_eq!(findings(std::slice::from_ref(&machines)), []);
    assert_eq!(findings(&[machines.clone(), machines.clone()]), []);
    assert!(!may_pass(&machines));
    assert_eq!(findings(&[well(&["m1"])]), []);
    assert_eq!(findings(&[]), []);
}

#[test]
fn a_machine_that_does_not_answer() {
    let said = only(&[silent(2, Liveness::Up)], Problem, "unanswered", &["m3"]);
    assert_eq!(said, "m3 does not answer: no answer within 5 s");
    only(&[silent(2, Liveness::Suspect)], Problem, "suspect", &["m3"]);
    let said = only(&[silent(2, Liveness::Down)], Problem, "down", &["m3"]);
    assert_eq!(said, "m3 is down: no answer within 5 s");
}

#[test]
fn an_evicted_machine_is_one_finding_and_none_that_is_down() {
    let mut machines = silent(2, Liveness::Down);
    machines[2].evicted = true;
    let said = only(&[machines], Problem, "evicted", &["m3"]);
    assert!(said.contains("silent for 72 h"), "{said}");
    let back = with(2, |machine| machine.evicted = true);
    assert!(only(&[back], Note, "evicted", &["m3"]).contains("answers again"));
}

#[test]
fn a_machine_that_answers_and_that_others_do_not_see() {
    let mut machines = saying(0, |said| said.peers[1].liveness = Liveness::Down.into());
    let said = only(
        std::slice::from_ref(&machines),
        Warning,
        "seen-down",
        &["m3", "m1"],
    );
    assert_eq!(said, "m3 answers, but is seen as down by m1");
    machines[1].examination.as_mut().unwrap().peers[1].liveness = Liveness::Suspect.into();
    let said = only(&[machines], Warning, "seen-down", &["m3", "m1", "m2"]);
    assert_eq!(
        said,
        "m3 answers, but is seen as down by m1 and suspect by m2"
    );
    let machines = saying(1, |said| said.peers[0].liveness = Liveness::Suspect.into());
    only(&[machines], Warning, "seen-suspect", &["m1", "m2"]);
}

#[test]
fn two_machines_without_a_session() {
    let all = well(&["m1", "m2", "m3"]);
    // One end is enough to say so.
    let apart = saying(0, |said| said.peers[1].connected = false);
    assert!(may_pass(&apart));
    only(
        &[apart.clone(), apart.clone()],
        Problem,
        "no-session",
        &["m1", "m3"],
    );
    assert!(
        only(
            std::slice::from_ref(&apart),
            Note,
            "no-session",
            &["m1", "m3"]
        )
        .contains("at the moment")
    );
    assert_eq!(of(&[apart.clone(), all.clone()]), [], "it is open again");
    assert_eq!(of(&[all, apart]), [], "it was there a moment ago");
    // In a large cluster not all are neighbours.
    let far = saying(0, |said| {
        said.peers[1].connected = false;
        said.peers[1].neighbour = false;
    });
    assert_eq!(of(&[far.clone(), far]), []);
    // With one that does not answer, that is the finding.
    let mut gone = silent(2, Liveness::Up);
    gone[0].examination.as_mut().unwrap().peers[1].connected = false;
    only(&[gone.clone(), gone], Problem, "unanswered", &["m3"]);
}

#[test]
fn parts_that_do_not_work() {
    let part = UnreadyPart {
        part: "DNS".into(),
        reason: "port 53 is taken".into(),
    };
    let said = only(
        &[saying(1, |said| said.unready = vec![part])],
        Problem,
        "unready",
        &["m2"],
    );
    assert_eq!(said, "m2: DNS does not work: port 53 is taken");
    let machines = saying(1, |said| said.docker_failure = "connection refused".into());
    let said = only(&[machines], Problem, "docker", &["m2"]);
    assert_eq!(said, "m2: Docker does not answer: connection refused");
}

#[test]
fn faulty_record_is_found_once() {
    let record = UnusableRecord {
        machine_name: "m3".into(),
        machine_id: "03".repeat(16),
        changes_itself: false,
        reason: "its subnet `x` is invalid".into(),
        record: "machine m3".into(),
    };
    let mut machines = saying(0, |said| said.unusable_records = vec![record.clone()]);
    machines[1].examination.as_mut().unwrap().unusable_records = vec![record];
    let said = only(&[machines], Problem, "faulty-record", &["m3"]);
    assert_eq!(
        said,
        "the record of machine m3 is faulty: its subnet `x` is invalid"
    );
    let double = |changes_itself| {
        let record = UnusableRecord {
            machine_name: "m3".into(),
            machine_id: "03".repeat(16),
            record: "machine m3".into(),
            reason: "double".into(),
            changes_itself,
        };
        let machines = saying(0, |said| said.unusable_records = vec![record]);
        findings(&[machines]).remove(0).hint
    };
    let remove = format!("`uc machine rm {}`", "03".repeat(16));
    let (by_itself, by_hand) = (double(true), double(false));
    assert!(by_itself.starts_with("m3 takes another one") && by_itself.ends_with(&remove));
    assert_eq!(by_hand, format!("remove it and add it again: {remove}"));
    let other = UnusableRecord {
        reason: "cut short".into(),
        record: "service shop/web".into(),
        ..UnusableRecord::default()
    };
    let machines = saying(0, |said| said.unusable_records = vec![other]);
    let said = only(&[machines], Problem, "faulty-record", &[]);
    assert_eq!(said, "the record of service shop/web is faulty: cut short");
}

#[test]
fn a_peer_lags_only_if_it_lasts() {
    let lagging = |lag| saying(0, |said| said.peers[1].lag = lag);
    assert!(may_pass(&lagging(LAG + 1)) && !may_pass(&lagging(LAG)));
    let said = only(&[lagging(500), lagging(500)], Warning, "lag", &["m3", "m1"]);
    assert_eq!(said, "m3 is 500 changes behind m1 and not catching up");
    let said = only(&[lagging(500), lagging(400)], Note, "lag", &["m3", "m1"]);
    assert!(
        said.contains("catching up: it was 500 a moment ago"),
        "{said}"
    );
    assert!(only(&[lagging(500)], Note, "lag", &["m3", "m1"]).ends_with("at the moment"));
    assert_eq!(of(&[lagging(500), lagging(3)]), [], "it caught up");
    assert_eq!(
        of(&[lagging(3), lagging(500)]),
        [],
        "something was just written"
    );
    // The lag of a session that ended is its last one, not the present one.
    let mut ended = lagging(500);
    let peer = &mut ended[0].examination.as_mut().unwrap().peers[1];
    (peer.connected, peer.neighbour) = (false, false);
    assert_eq!(of(&[ended.clone(), ended]), []);
}

#[test]
fn writes_that_fail() {
    let failed = |count| storing(1, |store| store.failed_commits = count);
    assert!(may_pass(&failed(1)));
    let said = only(&[failed(3), failed(4)], Problem, "writes", &["m2"]);
    assert_eq!(
        said,
        "m2: 4 record writes failed since its ucd started 2 hours ago, some of them just now"
    );
    let said = only(&[failed(1), failed(1)], Warning, "writes", &["m2"]);
    assert_eq!(
        said,
        "m2: 1 record write failed since its ucd started 2 hours ago"
    );
    let mut full = failed(0);
    full[1].examination.as_mut().unwrap().disk_failure =
        "No space left on device (os error 28)".into();
    let said = only(&[full], Problem, "writes", &["m2"]);
    assert_eq!(
        said,
        "m2 cannot write to its disk: No space left on device (os error 28)"
    );
}

#[test]
fn a_writer_that_does_not_keep_up() {
    let waiting = |count| storing(1, |store| store.waiting = count);
    assert!(may_pass(&waiting(WAITING + 1)));
    only(&[waiting(600), waiting(900)], Warning, "waiting", &["m2"]);
    only(&[waiting(600)], Note, "waiting", &["m2"]);
    assert_eq!(of(&[waiting(600), waiting(10)]), []);
    assert_eq!(of(&[waiting(10), waiting(600)]), []);
}

#[test]
fn slow_commits() {
    let buckets =
        |buckets: [u64; 9]| vec![storing(1, |store| store.commit_buckets = buckets.into())];
    only(
        &buckets([900, 0, 0, 0, 0, 0, 85, 15, 0]),
        Warning,
        "slow",
        &["m2"],
    );
    only(
        &buckets([900, 0, 0, 0, 0, 0, 0, 0, 100]),
        Warning,
        "slow",
        &["m2"],
    );
    assert_eq!(
        of(&buckets([900, 0, 0, 0, 0, 0, 90, 10, 0])),
        [],
        "99 in a hundred take 50 ms at most"
    );
    assert_eq!(
        of(&buckets([0, 0, 0, 0, 0, 0, 0, 50, 40])),
        [],
        "too few to say"
    );
}

#[test]
fn a_store_that_was_damaged_or_is_filled_anew() {
    let machines = saying(2, |said| {
        said.set_aside = "/var/lib/uc/state.db.damaged".into();
    });
    let said = only(&[machines], Problem, "damaged", &["m3"]);
    assert!(
        said.contains("/var/lib/uc/state.db.damaged") && said.contains("2 hours ago"),
        "{said}"
    );
    only(
        &[saying(2, |said| said.rejoining = true)],
        Warning,
        "rejoining",
        &["m3"],
    );
}

#[test]
fn clocks_are_apart_by_what_the_calls_time_does_not_explain() {
    let ahead = |index, ms: i64| {
        saying(index, |said| {
            said.clock_from_ms += ms;
            said.clock_to_ms += ms;
        })
    };
    let said = only(&[ahead(2, 5_000)], Warning, "clock", &["m3", "m2"]);
    assert_eq!(
        said,
        "the clock of m3 is 5.000 s (± 0.010 s) ahead of that of m2"
    );
    let said = only(&[ahead(2, -31_000)], Problem, "clock", &["m3", "m1"]);
    assert!(
        said.contains("31.000 s (± 0.010 s) behind that of m1"),
        "{said}"
    );
    assert_eq!(of(&[ahead(2, 2_000)]), []);
    assert_eq!(of(&[ahead(2, 2_010)]), [], "it may be 2 s");
    // The machine that was asked can be the one that is wrong: the others agree.
    let mut machines = well(&["m1", "m2", "m3"]);
    for machine in &mut machines[1..] {
        let said = machine.examination.as_mut().unwrap();
        said.clock_from_ms -= 40_000;
        said.clock_to_ms -= 40_000;
    }
    let said = only(&[machines], Problem, "clock", &["m1", "m3"]);
    assert!(said.contains("clock of m1 is 40.000 s"), "{said}");
    // A call that took long says little.
    let slow = with(2, |machine| {
        machine.heard_at_ms = NOW + 9_000;
        let said = machine.examination.as_mut().unwrap();
        (said.clock_from_ms, said.clock_to_ms) = (NOW + 4_000, NOW + 4_000);
    });
    assert_eq!(of(&[slow]), []);
}

#[test]
fn what_a_call_says_of_a_clock() {
    let machines = well(&["m1"]);
    assert_eq!(
        clock(&machines[0]),
        Some((0, 5)),
        "between 5 ms behind and 5 ms ahead"
    );
    assert_eq!(clock(&ExaminedMachine::default()), None);
}

#[test]
fn records_that_wait_for_a_clock_name_who_wrote_them() {
    let mut machines = storing(0, |store| store.quarantined = 2);
    machines[0]
        .examination
        .as_mut()
        .unwrap()
        .quarantined_writers = vec![id("m3"), "ab".repeat(16)];
    let said = only(&[machines], Warning, "quarantined", &["m1"]);
    assert!(
        said.contains("2 records") && said.contains("by m3 and abab"),
        "{said}"
    );
}

#[test]
fn records_of_unknown_form() {
    let said = only(
        &[storing(0, |store| store.opaque = 1)],
        Warning,
        "unknown-form",
        &["m1"],
    );
    assert!(
        said.contains("1 record in a format that its ucd 0.1.0"),
        "{said}"
    );
}

#[test]
fn differences_that_were_repaired() {
    let machines = saying(0, |said| said.peers[0].differences = 1);
    let said = only(&[machines], Warning, "differences", &["m1", "m2"]);
    assert!(said.contains("1 difference in the records of m2"), "{said}");
}

#[test]
fn conflicts_are_said_once() {
    let mut machines = storing(0, |store| store.conflicts = 2);
    machines[1]
        .examination
        .as_mut()
        .unwrap()
        .store
        .as_mut()
        .unwrap()
        .conflicts = 2;
    assert_eq!(
        only(&[machines], Warning, "conflicts", &[]),
        "2 conflicts are not resolved"
    );
    assert_eq!(
        only(
            &[storing(2, |store| store.conflicts = 1)],
            Warning,
            "conflicts",
            &[]
        ),
        "1 conflict is not resolved"
    );
}

#[test]
fn deletes_wait_for_those_that_are_down_and_not_for_the_evicted() {
    let waiting = |evicted| {
        let mut machines = silent(2, Liveness::Down);
        let said = machines[0].examination.as_mut().unwrap();
        said.store.as_mut().unwrap().tombstones = 4;
        (said.peers[1].liveness, said.peers[1].evicted) = (Liveness::Down.into(), evicted);
        machines[2].evicted = evicted;
        machines
    };
    let found = findings(&[waiting(false)]);
    assert_eq!(
        (found[1].severity, found[1].kind),
        (Note, "deletes"),
        "{found:#?}"
    );
    assert_eq!(found[1].message, "4 deletes are kept until m3 is back");
    only(&[waiting(true)], Problem, "evicted", &["m3"]);
    assert_eq!(
        of(&[storing(0, |store| store.tombstones = 4)]),
        [],
        "a moment later all have them"
    );
}

#[test]
fn different_versions() {
    let machines = saying(1, |said| said.uc_version = "0.2.0".into());
    let said = only(&[machines], Warning, "versions", &["m1", "m2", "m3"]);
    assert_eq!(
        said,
        "the machines run different versions of ucd: 0.1.0 on m1 and m3; 0.2.0 on m2"
    );
}

#[test]
fn the_worst_comes_first() {
    let mut machines = silent(2, Liveness::Down);
    let said = machines[0].examination.as_mut().unwrap();
    said.peers[1].liveness = Liveness::Down.into();
    let figures = said.store.as_mut().unwrap();
    (figures.tombstones, figures.conflicts) = (1, 1);
    machines[1].examination.as_mut().unwrap().docker_failure = "gone".into();
    let kinds: Vec<_> = of(&[machines])
        .into_iter()
        .map(|(severity, kind, _)| (severity, kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (Problem, "down"),
            (Problem, "docker"),
            (Warning, "conflicts"),
            (Note, "deletes")
        ]
    );
}

#[test]
fn figures_in_three_tables() {
    let mut machines = silent(2, Liveness::Down);
    let said = machines[0].examination.as_mut().unwrap();
    let peer = &mut said.peers[1];
    (peer.liveness, peer.evicted, peer.connected) = (Liveness::Down.into(), true, false);
    said.store.as_mut().unwrap().commit_buckets[8] = 100;
    machines[1].examination.as_mut().unwrap().store = Some(StoreFigures::default());
    insta::assert_snapshot!(anstream::adapter::strip_str(&figures::tables(&machines)).to_string());
}
