//! Runs the suite, and what only a real engine can show. Every test starts its own engine, so there
//! are few of them.

mod keys;
mod registry;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uc_api::v1::exec_request::Message as Asked;
use uc_api::v1::exec_response::Message as Answer;
use uc_api::{Code, ContentHash, Failure};

use super::dockerd::Dockerd;
use super::suite::service;
use super::{suite, *};
use crate::files::{Files, tests as content};
use crate::node::observe::Observation;
use crate::node::tests::{create, identity, start};
use crate::node::{Identity, Marks, NodeService, NodeState, observe};
use crate::paths::Paths;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_passes_the_suite() {
    let Some(dockerd) = Dockerd::start().await else {
        return;
    };
    let engine = Arc::new(DockerEngine::connect(dockerd.socket()).await.unwrap());
    println!("{:?}", engine.version().await.unwrap());
    let bench = suite::Bench {
        engine,
        archive: dockerd.archive().await,
    };
    for (name, case) in suite::CASES {
        let started = std::time::Instant::now();
        case(bench.clone()).await;
        println!("{name} {:?}", started.elapsed());
        let left = dockerd.volumes().await;
        let anonymous = |name: &String| uc_api::volumes::is_anonymous(name);
        assert!(!left.iter().any(anonymous), "{name}: {left:?}");
    }
}

fn contents(state: &tempfile::TempDir) -> Files {
    Files::new(state.path().join("files"))
}

/// A node over a fresh engine that has the suite's image.
struct Served {
    engine: Arc<DockerEngine>,
    node: NodeService,
    files: Files,
    _identity: watch::Sender<Option<Identity>>,
    _state: tempfile::TempDir,
}

/// What a node keeps in this directory.
fn saved(state: &tempfile::TempDir, marks: &Marks) -> NodeState {
    NodeState::open(&Paths::new(state.path(), state.path()), marks).unwrap()
}

async fn served(dockerd: &Dockerd) -> Served {
    let engine = Arc::new(DockerEngine::connect(dockerd.socket()).await.unwrap());
    let bench = suite::Bench {
        engine: engine.clone(),
        archive: dockerd.archive().await,
    };
    bench.load().await;
    let (sender, receiver) = watch::channel(Some(identity()));
    let state = tempfile::tempdir().unwrap();
    let files = contents(&state);
    let (marks, cancel) = (Marks::default(), CancellationToken::new());
    let saved = saved(&state, &marks);
    let node = NodeService::new(
        engine.clone(),
        files.clone(),
        receiver,
        marks,
        saved,
        cancel,
    );
    Served {
        engine,
        node,
        files,
        _identity: sender,
        _state: state,
    }
}

/// Returns the output (both streams) and the exit code of a command.
async fn exec(node: &NodeService, start: v1::ExecStart, input: &[u8]) -> (String, i32) {
    let asked = |message| {
        Ok::<_, tonic::Status>(v1::ExecRequest {
            message: Some(message),
        })
    };
    let requests = vec![
        asked(Asked::Start(start)),
        asked(Asked::Stdin(input.to_vec())),
    ];
    let mut answers = node.exec_with(stream::iter(requests)).await.unwrap();
    let mut output = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer.unwrap().message.unwrap() {
            Answer::Stdout(bytes) | Answer::Stderr(bytes) => output.extend(bytes),
            Answer::ExitCode(code) => return (String::from_utf8(output).unwrap(), code),
        }
    }
    panic!("no exit code after {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_serves_replicas() {
    let Some(dockerd) = Dockerd::start().await else {
        return;
    };
    let Served {
        engine,
        node,
        _identity,
        _state,
        ..
    } = served(&dockerd).await;

    // The container must see what the spec contains.
    let mut spec = service("we_b.x", "sleep 1000");
    spec.environment
        .insert("COLOUR".into(), "blue = green".into());
    spec.stop_grace_period_ms = Some(0);
    spec.read_only = true;
    let mount = |kind: v1::MountKind, source: String, target: &str| v1::MountSpec {
        kind: kind.into(),
        source,
        target: target.into(),
        ..Default::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made/by docker");
    spec.mounts = vec![
        mount(v1::MountKind::Tmpfs, String::new(), "/tmp"),
        mount(
            v1::MountKind::Bind,
            made.to_string_lossy().into_owned(),
            "/bound",
        ),
    ];
    let (_, id) = create(&node, spec).await.unwrap();
    let record = start(&node, &id).await.unwrap();
    assert_eq!(record.state(), v1::ReplicaState::Running);
    assert!(
        made.is_dir(),
        "a missing folder is created, as Compose does"
    );
    let of = |command: &str| v1::ExecStart {
        container: record.container_name.clone(),
        command: ["sh", "-c", command].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let (seen, code) = exec(
        &node,
        of("hostname; echo $COLOUR $UC_MACHINE_ID; cat /etc/resolv.conf"),
        b"",
    )
    .await;
    assert_eq!(code, 0);
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some(record.container_name.as_str()));
    assert_eq!(
        lines.next(),
        Some(format!("blue = green {}", identity().machine).as_str())
    );
    assert!(
        seen.contains("search suite.internal internal") && seen.contains("ndots:1"),
        "{seen}"
    );

    // Commands: a read-only file system, an unknown command, the default shell, a terminal.
    let (seen, code) = exec(
        &node,
        of("echo x > /etc/x; echo y > /tmp/y && cat /tmp/y"),
        b"",
    )
    .await;
    assert!(
        seen.contains("Read-only file system") && seen.contains("y\n") && code == 0,
        "{seen}"
    );
    let unknown = v1::ExecStart {
        command: vec!["no-such-program".into()],
        ..of("")
    };
    assert_eq!(exec(&node, unknown, b"").await.1, 127);
    let shell = v1::ExecStart {
        command: Vec::new(),
        ..of("")
    };
    assert_eq!(
        exec(&node, shell.clone(), b"echo from $0; exit 4\n").await,
        ("from sh\n".to_owned(), 4)
    );
    let size = Some(v1::TerminalSize {
        columns: 100,
        rows: 30,
    });
    let terminal = v1::ExecStart {
        tty: true,
        size,
        ..of("sleep 0.5; stty size; printf '\\0\\1 end'")
    };
    assert_eq!(
        exec(&node, terminal, b"").await,
        ("30 100\r\n\0\u{1} end".to_owned(), 0)
    );
    // More bytes than all buffers on the path can hold, in both directions at the same time.
    let much = vec![b'x'; 3_000_000];
    let (seen, code) = exec(
        &node,
        v1::ExecStart {
            command: vec!["cat".into()],
            ..of("")
        },
        &much,
    )
    .await;
    assert_eq!((seen.len(), code), (much.len(), 0));

    // Without its command, this image has nothing to run.
    let mut emptied = service("empty", "");
    emptied.command = Some(v1::StringList::default());
    let failure = create(&node, emptied).await.unwrap_err();
    assert!(
        failure.code == Code::Invalid && failure.message.contains("nothing to run"),
        "{failure:?}"
    );

    // A container that exits is reported with its log.
    let mut failing = service("bad", "echo about to fail; sleep 0.3; exit 9");
    failing.restart = v1::RestartPolicy::Unspecified.into();
    failing.stop_grace_period_ms = Some(0);
    let (_, bad) = create(&node, failing).await.unwrap();
    let failure = start(&node, &bad).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.log_tail.first().map(String::as_str)),
        (Code::Refused, Some("about to fail"))
    );

    // A log without new lines ends with its container.
    let request = v1::NodeLogsRequest {
        request: Some(v1::LogsRequest {
            tail: -1,
            follow: true,
            ..Default::default()
        }),
        container_ids: vec![id.clone(), bad.clone()],
    };
    let entries = node.logs_of(request).await;
    let (entries, removed) = tokio::join!(entries.collect::<Vec<_>>(), node.remove_all());
    removed.unwrap();
    assert!(
        entries
            .iter()
            .flatten()
            .any(|entry| entry.message == b"about to fail"),
        "{entries:?}"
    );
    assert!(engine.containers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_mounts_contents() {
    let Some(dockerd) = Dockerd::start().await else {
        return;
    };
    let Served {
        node,
        files,
        _identity,
        _state,
        ..
    } = served(&dockerd).await;
    let (folder, secret) = (content::small_folder(), content::one_file("s3cret"));
    for ((hash, archive), is_secret) in [(&folder, false), (&secret, true)] {
        content::receive(&files, content::parts(hash, is_secret, archive))
            .await
            .unwrap();
    }
    let file = |hash: &ContentHash, target: &str, secret: bool| v1::FileSpec {
        hash: hash.to_string(),
        target: target.into(),
        name: target.into(),
        secret,
    };
    let mut spec = service("files", "sleep 1000");
    spec.files = vec![
        file(&folder.0, "/site", false),
        file(&secret.0, "/run/secrets/key", true),
    ];
    spec.secret_environment
        .insert("KEY".into(), secret.0.to_string());
    spec.stop_grace_period_ms = Some(0);
    let (_, id) = create(&node, spec).await.unwrap();
    let record = start(&node, &id).await.unwrap();
    let named: BTreeSet<&str> = record.files.iter().map(String::as_str).collect();
    let expected = BTreeSet::from([folder.0.as_str(), secret.0.as_str()]);
    assert_eq!(named, expected, "they are kept while the container exists");
    let of = |command: &str| v1::ExecStart {
        container: record.container_name.clone(),
        command: ["sh", "-c", command].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let (seen, code) = exec(
        &node,
        of("cat /site/link /run/secrets/key; echo \" $KEY\"; stat -c %a /site/run.sh"),
        b"",
    )
    .await;
    assert_eq!((seen.as_str(), code), ("hellos3cret s3cret\n755\n", 0));
    // Not even root can write, also not in the folders.
    for path in ["/site/run.sh", "/site/new", "/run/secrets/key"] {
        let (seen, code) = exec(&node, of(&format!("echo x > {path}")), b"").await;
        assert!(
            code != 0 && seen.contains("Read-only file system"),
            "{path}: {seen}"
        );
    }
    node.remove_all().await.unwrap();
}

#[derive(Debug)]
struct Sink(mpsc::Sender<Observation>);

#[async_trait]
impl observe::ObservationSink for Sink {
    async fn publish(&self, observation: &Observation) -> Result<(), Failure> {
        self.0.send(observation.clone()).await.unwrap();
        Ok(())
    }

    async fn publish_facts(&self, _facts: &uc_api::v1::MachineFacts) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_can_restart_while_it_is_observed() {
    let Some(mut dockerd) = Dockerd::start().await else {
        return;
    };
    let engine = Arc::new(DockerEngine::new(dockerd.socket()));
    let bench = suite::Bench {
        engine: engine.clone(),
        archive: dockerd.archive().await,
    };
    bench.load().await;
    let (_identity, receiver) = watch::channel(Some(identity()));
    let state = tempfile::tempdir().unwrap();
    let marks = Marks::default();
    let cancel = CancellationToken::new();
    let node = NodeService::new(
        engine.clone(),
        contents(&state),
        receiver,
        marks.clone(),
        saved(&state, &marks),
        cancel.clone(),
    );
    let (sender, mut observations) = mpsc::channel(100);
    let observer = observe::run(
        engine.clone(),
        marks.clone(),
        observe::facts::host(),
        std::net::Ipv4Addr::new(10, 233, 0, 1),
        Arc::new(Sink(sender)),
        cancel.clone(),
    );
    let observer = tokio::spawn(observer);
    let mut until = async |what: &str, is: &dyn Fn(&Observation) -> bool| {
        let find = async {
            loop {
                let observation = observations.recv().await.unwrap();
                if is(&observation) {
                    return observation;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(40), find).await;
        found.unwrap_or_else(|_| panic!("never published: {what}"))
    };
    until("an empty machine", &|seen| {
        seen.replicas.is_empty() && !seen.facts.docker_version.is_empty()
    })
    .await;

    let mut spec = service("web", "sleep 1000");
    spec.restart = v1::RestartPolicy::UnlessStopped.into();
    spec.stop_grace_period_ms = Some(0);
    let (_, id) = create(&node, spec.clone()).await.unwrap();
    start(&node, &id).await.unwrap();
    let running = |seen: &Observation| {
        seen.replicas
            .iter()
            .any(|replica| replica.state() == v1::ReplicaState::Running && !replica.ip.is_empty())
    };
    let before = until("a running replica", &running).await;

    dockerd.end();
    let failure = node.observe_now().await.unwrap_err();
    assert_eq!(failure.code, Code::Unreachable, "{failure:?}");
    dockerd.begin().await;
    // The engine has restarted the container. Once it is observed, nothing of the time in between
    // is left.
    let names = |seen: &Observation| {
        seen.replicas
            .iter()
            .map(|replica| replica.container_name.clone())
            .collect::<BTreeSet<_>>()
    };
    let (_, second) = create(&node, spec).await.unwrap();
    let after = until("both replicas", &|seen| {
        seen.replicas.len() == 2 && running(seen)
    })
    .await;
    assert!(names(&after).is_superset(&names(&before)));
    marks.drain(&id);
    engine.stop(&id, Duration::ZERO).await.unwrap();
    let stopped = |seen: &Observation| {
        seen.replicas.iter().any(|replica| {
            replica.container_id == id
                && replica.state() == v1::ReplicaState::Exited
                && replica.draining
        })
    };
    until("a stopped replica", &stopped).await;
    node.remove(&id).await.unwrap();
    node.remove(&second).await.unwrap();
    until("an empty machine again", &|seen| seen.replicas.is_empty()).await;
    cancel.cancel();
    observer.await.unwrap();
}

/// A server that ends well on SIGTERM is the case for which `on-failure` does not do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_engine_brings_back_servers_and_not_jobs() {
    let Some(mut dockerd) = Dockerd::start().await else {
        return;
    };
    let engine = Arc::new(DockerEngine::new(dockerd.socket()));
    let bench = suite::Bench {
        engine: engine.clone(),
        archive: dockerd.archive().await,
    };
    bench.load().await;
    let (_identity, receiver) = watch::channel(Some(identity()));
    let state = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let marks = Marks::default();
    let node = NodeService::new(
        engine.clone(),
        contents(&state),
        receiver,
        marks.clone(),
        saved(&state, &marks),
        cancel.clone(),
    );
    let run = async |name, script| {
        let mut spec = service(name, script);
        spec.restart = v1::RestartPolicy::Unspecified.into();
        let (_, id) = create(&node, spec).await.unwrap();
        start(&node, &id).await.unwrap();
        id
    };
    let polite = "trap 'exit 0' TERM; while true; do sleep 0.2; done";
    let server = run("server", polite).await;
    let undecided = run("undecided", polite).await;
    let job = run("job", "echo done").await;
    engine
        .set_restart(&server, v1::RestartPolicy::UnlessStopped, 0)
        .await
        .unwrap();

    dockerd.end();
    dockerd.begin().await;
    let until_running = async |id: &str| {
        let running = async {
            loop {
                let container = engine.inspect(id).await.unwrap();
                if container.record.state() == v1::ReplicaState::Running {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), running)
            .await
            .unwrap();
    };
    until_running(&server).await;
    until_running(&undecided).await;
    let job = engine.inspect(&job).await.unwrap();
    assert!(job.record.finished, "{job:?}");

    // The daemon stops before the engine when the machine shuts down. It comes back after a boot.
    cancel.cancel();
    node.finish().await;
    let undecided = engine.inspect(&undecided).await.unwrap();
    assert_eq!(undecided.restart, v1::RestartPolicy::Always);
    node.remove_all().await.unwrap();
}
