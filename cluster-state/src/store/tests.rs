use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::*;
use crate::kind::{Class, MAX_KEY, MAX_RECORD, MAX_TRANSACTION, RecordId};
use crate::session::SessionError;
use crate::watch::Changed;

mod classes;
mod lifecycle;
mod replication;

const CLUSTER: ClusterId = ClusterId([9; 16]);
const SPEC: u16 = 1;
const FACT: u16 = 2;
const SUBNET: u16 = 3;
const EVENT: u16 = 4;
const EPOCH: u16 = 5;
const KINDS: &[Kind] = &[
    Kind {
        id: SPEC,
        name: "spec",
        class: Class::Intent,
    },
    Kind {
        id: FACT,
        name: "fact",
        class: Class::Observation,
    },
    Kind {
        id: SUBNET,
        name: "subnet",
        class: Class::Claim,
    },
    Kind {
        id: EVENT,
        name: "event",
        class: Class::Log,
    },
    Kind {
        id: EPOCH,
        name: "schema epoch",
        class: Class::Registry,
    },
];
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn machine(n: u8) -> MachineId {
    MachineId([n; 16])
}

fn options(path: &Path, n: u8) -> Options {
    Options::new(path.join(format!("{n}.db")), CLUSTER, machine(n), KINDS)
}

async fn open(path: &Path, n: u8) -> Store {
    Store::open(options(path, n)).await.unwrap()
}

fn put(key: &str, value: &str) -> Write {
    Write::Put {
        kind: SPEC,
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    }
}

fn rows(keys: &[&str]) -> Vec<(String, Vec<u8>)> {
    keys.iter()
        .map(|key| ((*key).to_owned(), b"row".to_vec()))
        .collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn store_keeps_records_and_incarnation_over_clean_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    let before = store.actor();
    let commit = store
        .write(vec![put("a", "1"), put("b", "2")])
        .await
        .unwrap();
    assert_eq!((commit.actor, commit.version), (before, 2));
    store
        .write(vec![Write::Delete {
            kind: SPEC,
            key: "a".to_owned(),
        }])
        .await
        .unwrap();
    store.publish(FACT, rows(&["x"])).await.unwrap();
    assert_eq!(store.snapshot().number(), 3);
    store.close().await.unwrap();

    let store = open(dir.path(), 1).await;
    assert_eq!((store.actor(), store.starts()), (before, 2));
    let snapshot = store.snapshot();
    assert_eq!(
        snapshot.intents(SPEC).collect::<Vec<_>>(),
        [("b", &b"2"[..])]
    );
    assert_eq!(snapshot.get(SPEC, "a"), None);
    assert_eq!(
        snapshot.observations(FACT).collect::<Vec<_>>(),
        [(machine(1), "x", &b"row"[..])]
    );
    assert_eq!(snapshot.observations_of(FACT, machine(1)).count(), 1);
    let commit = store.write(vec![put("c", "3")]).await.unwrap();
    assert_eq!(
        commit.version, 6,
        "two puts, a delete, a row, a sweep, a put"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn store_starts_new_incarnation_after_crash_or_copy() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), 1).await;
    first.write(vec![put("a", "1")]).await.unwrap();
    // A copy of a running store's files is what a power cut or a backup leaves.
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    first.write(vec![put("b", "after the copy")]).await.unwrap();
    let incarnation = first.incarnation();
    first.close().await.unwrap();

    let second = open(crashed.path(), 1).await;
    assert!(second.incarnation() > incarnation);
    assert_eq!(
        second.snapshot().get(SPEC, "a"),
        Some(&b"1"[..]),
        "acknowledged, so it exists"
    );
    let commit = second.write(vec![put("c", "2")]).await.unwrap();
    assert_eq!(commit.version, 1, "a new actor counts from 1");
    second.close().await.unwrap();

    // A clean file that was copied is another file. The original may use the same versions.
    let restored = tempfile::tempdir().unwrap();
    copy(dir.path(), restored.path());
    let third = open(restored.path(), 1).await;
    assert!(third.incarnation() > incarnation);
    third.close().await.unwrap();
}

#[tokio::test]
async fn store_dropped_without_close_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    store.write(vec![put("a", "1")]).await.unwrap();
    let incarnation = store.incarnation();
    drop(store);
    let store = open(dir.path(), 1).await;
    assert!(store.incarnation() > incarnation);
    assert_eq!(store.snapshot().get(SPEC, "a"), Some(&b"1"[..]));
    store.close().await.unwrap();
}

#[tokio::test]
async fn store_on_full_disk_fails_writes_and_keeps_reading() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Options {
        max_bytes: 400 * 1024,
        ..options(dir.path(), 1)
    };
    let path = limited.path.clone();
    let store = Store::open(limited.clone()).await.unwrap();
    let value = "x".repeat(100_000);
    let mut written = 0;
    let error = loop {
        match store
            .write(vec![put(&format!("k{written}"), &value), put("small", "s")])
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10, "no limit");
    };
    assert_eq!(error, WriteError::DiskFull { path: path.clone() });
    assert!(error.to_string().contains(&path.display().to_string()));
    let version = store.snapshot().watermark(store.actor());
    let keys: Vec<String> = store
        .snapshot()
        .intents(SPEC)
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(
        keys.len(),
        written + 1,
        "all that was acknowledged, nothing that was not"
    );
    // What fits is still written, next to what does not fit. A failed write does not use up a
    // version.
    let large = store.write(vec![put("large", &value)]);
    let small = store.write(vec![put("tiny", "t")]);
    let (large, small) = tokio::join!(large, small);
    assert_eq!(large, Err(WriteError::DiskFull { path: path.clone() }));
    assert_eq!(small.unwrap().version, version + 1);
    store.close().await.unwrap();
    // With enough room everything works as before.
    let store = Store::open(Options {
        max_bytes: 0,
        ..limited
    })
    .await
    .unwrap();
    assert_eq!(store.snapshot().intents(SPEC).count(), written + 2);
    store.write(vec![put("large", &value)]).await.unwrap();
    store.close().await.unwrap();
}

/// A file system of its own, which only root can make. `None` otherwise; then the test above must
/// suffice.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=600k", "tmpfs"];
        let done = std::process::Command::new("mount")
            .args(mount)
            .arg(dir.path())
            .output();
        done.is_ok_and(|output| output.status.success())
            .then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[tokio::test]
async fn store_recovers_when_a_full_disk_has_room_again() {
    let Some(disk) = SmallDisk::new() else {
        println!("skipped: cannot mount a file system");
        return;
    };
    let dir = disk.0.path();
    let store = open(dir, 1).await;
    store.write(vec![put("a", "1")]).await.unwrap();
    let hog = dir.join("hog");
    // Writes as much as fits.
    let _ = std::fs::write(&hog, vec![1; 1 << 20]);
    let value = "v".repeat(60_000);
    let error = store.write(vec![put("b", &value)]).await.unwrap_err();
    assert!(matches!(error, WriteError::DiskFull { .. }), "{error}");
    let error = store
        .publish(FACT, vec![("x".to_owned(), value.clone().into_bytes())])
        .await
        .unwrap_err();
    assert!(matches!(error, WriteError::DiskFull { .. }), "{error}");
    assert_eq!(
        store.snapshot().intents(SPEC).collect::<Vec<_>>(),
        [("a", &b"1"[..])]
    );
    std::fs::remove_file(&hog).unwrap();
    assert_eq!(
        store.write(vec![put("b", &value)]).await.unwrap().version,
        2
    );
    store.close().await.unwrap();
    let store = open(dir, 1).await;
    assert_eq!(store.snapshot().intents(SPEC).count(), 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn open_refuses_store_of_others_or_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    assert!(matches!(
        Store::open(options(dir.path(), 1)).await,
        Err(OpenError::InUse { .. })
    ));
    store.close().await.unwrap();
    let other_cluster = Options {
        cluster: ClusterId([1; 16]),
        ..options(dir.path(), 1)
    };
    assert!(matches!(
        Store::open(other_cluster).await,
        Err(OpenError::OtherCluster { .. })
    ));
    let other_machine = Options {
        machine: machine(2),
        ..options(dir.path(), 1)
    };
    assert!(matches!(
        Store::open(other_machine).await,
        Err(OpenError::OtherMachine { .. })
    ));
    let missing = Options {
        path: dir.path().join("no/such/directory.db"),
        ..options(dir.path(), 1)
    };
    assert!(matches!(
        Store::open(missing).await,
        Err(OpenError::Io { .. })
    ));
    // None of this cost the owner anything.
    let store = open(dir.path(), 1).await;
    assert_eq!(store.starts(), 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn open_leaves_newer_format_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 1).await.close().await.unwrap();
    let path = options(dir.path(), 1).path;
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    assert!(matches!(
        Store::open(options(dir.path(), 1)).await,
        Err(OpenError::Newer { found: 99, .. })
    ));
}

#[tokio::test]
async fn write_beyond_limits_fails_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    let write = |writes: Vec<Write>| store.write(writes);
    let unknown = Write::Put {
        kind: 77,
        key: "k".to_owned(),
        value: Vec::new(),
    };
    assert_eq!(
        write(vec![put("good", "1"), unknown]).await,
        Err(WriteError::UnknownKind { kind: 77 })
    );
    let wrong = Write::Put {
        kind: FACT,
        key: "k".to_owned(),
        value: Vec::new(),
    };
    assert!(matches!(
        write(vec![wrong]).await,
        Err(WriteError::WrongClass { .. })
    ));
    assert!(matches!(
        store.publish(SPEC, rows(&["x"])).await,
        Err(WriteError::WrongClass { .. })
    ));
    assert!(matches!(
        write(vec![put("", "1")]).await,
        Err(WriteError::BadKey { bytes: 0, .. })
    ));
    assert!(matches!(
        write(vec![put(&"k".repeat(MAX_KEY + 1), "1")]).await,
        Err(WriteError::BadKey { .. })
    ));
    let large = "v".repeat(MAX_RECORD);
    assert!(matches!(
        write(vec![put("k", &large)]).await,
        Err(WriteError::RecordTooLarge { .. })
    ));
    let many = |n: usize| {
        (0..n)
            .map(|n| put(&format!("{n}"), "1"))
            .collect::<Vec<_>>()
    };
    let error = write(many(MAX_TRANSACTION + 1)).await;
    assert_eq!(
        error,
        Err(WriteError::TransactionTooLarge {
            records: MAX_TRANSACTION + 1
        })
    );
    let twice = store.publish(FACT, rows(&["x", "x"])).await;
    assert!(matches!(twice, Err(WriteError::DuplicateKey { .. })));
    assert_eq!(store.snapshot().number(), 0);
    write(many(MAX_TRANSACTION)).await.unwrap();
    write(vec![put("k", &large[1..])]).await.unwrap();
    assert_eq!(store.snapshot().intents(SPEC).count(), MAX_TRANSACTION + 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn watch_reports_changes_once_and_can_resume() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    let mut watch = store.watch();
    let early = store.snapshot().number();
    store
        .write(vec![put("a", "1"), put("b", "1")])
        .await
        .unwrap();
    store.write(vec![put("a", "2")]).await.unwrap();
    store.publish(FACT, rows(&["x"])).await.unwrap();
    let id = |kind, owner, key: &str| RecordId {
        kind,
        owner,
        key: Arc::from(key),
    };
    let all = [
        id(SPEC, None, "a"),
        id(SPEC, None, "b"),
        id(FACT, Some(machine(1)), "x"),
    ]
    .into_iter()
    .collect();
    let (changed, snapshot) = watch.changed().await.unwrap();
    assert_eq!(changed, Changed::Records(all));
    assert_eq!(snapshot.get(SPEC, "a"), Some(&b"2"[..]));
    let again = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
    assert!(again.is_err(), "nothing new");
    store.publish(FACT, rows(&["x"])).await.unwrap();
    store.write(vec![put("c", "1")]).await.unwrap();
    let (changed, _) = watch.changed().await.unwrap();
    assert_eq!(
        changed,
        Changed::Records([id(SPEC, None, "c")].into_iter().collect())
    );
    let (changed, _) = store.watch().resume_after(early).changed().await.unwrap();
    assert!(matches!(changed, Changed::Records(ids) if ids.len() == 4));
    store.close().await.unwrap();
    assert_eq!(watch.changed().await.unwrap_err(), StoreClosed);
}

#[tokio::test]
async fn store_closed_reports_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    let other = store.clone();
    store.close().await.unwrap();
    assert_eq!(
        other.write(vec![put("a", "1")]).await,
        Err(WriteError::Closed)
    );
    assert_eq!(other.close().await, Err(WriteError::Closed));
}

#[tokio::test]
async fn writes_of_many_clients_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1).await;
    let started = Instant::now();
    let clients: Vec<_> = (0..64)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    store
                        .write(vec![put(&format!("{client}-{n}"), "v")])
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let snapshot = store.snapshot();
    assert_eq!(snapshot.intents(SPEC).count(), 64 * 20);
    assert_eq!(snapshot.version_vector().get(store.actor()), 64 * 20);
    assert!(
        snapshot.number() < 64 * 20,
        "{} commits for 1,280 writes",
        snapshot.number()
    );
    println!(
        "1,280 writes by 64 clients: {} commits, {:?}",
        snapshot.number(),
        started.elapsed()
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn store_stamps_stay_monotone_when_clock_steps_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock(AtomicU64::new(10_000_000)));
    let at = |clock: &Arc<TestClock>| Options {
        clock: Arc::clone(clock) as _,
        ..options(dir.path(), 1)
    };
    let store = Store::open(at(&clock)).await.unwrap();
    store.write(vec![put("a", "before")]).await.unwrap();
    let before = store.snapshot().siblings(SPEC, "a")[0].stamp;
    drop(store);
    clock.0.store(10_000_000 - 3_600_000, Ordering::Relaxed);
    let store = Store::open(at(&clock)).await.unwrap();
    store.write(vec![put("b", "after")]).await.unwrap();
    let snapshot = store.snapshot();
    assert!(snapshot.siblings(SPEC, "b")[0].stamp > before);
    assert_eq!(
        snapshot.get(SPEC, "a"),
        Some(&b"before"[..]),
        "a machine accepts its own stamps"
    );
    store.close().await.unwrap();
}
