//! The contract of [`Engine`](super::Engine), as one suite for the fake and the real engine. So a
//! test that passes on the fake is also valid for Docker.

mod images;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use images::{load_makes_image_available, remove_image_keeps_an_image_that_a_container_uses};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use uc_api::v1;

use super::{spec, *};

/// A busybox image with `sh`, `cat`, `echo`, `sleep`, `true` and `false`.
pub(crate) const IMAGE: &str = "uc-test/busybox:1";
/// Time limit for what must happen soon. It is generous, because it is reached only when a test
/// fails.
const SOON: Duration = Duration::from_secs(20);

/// An engine without [`IMAGE`], and the archive that contains it.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) archive: Bytes,
}

type Case = fn(Bench) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases. The first one loads the image that the others need.
        pub(crate) const CASES: &[(&str, Case)] = &[$((stringify!($name), |bench| $name(bench).boxed())),*];
    };
}

cases!(
    load_makes_image_available,
    container_is_created_started_stopped_and_removed,
    containers_lists_only_ours,
    exited_container_keeps_code_and_log,
    logs_follow_until_the_container_exits,
    logs_are_limited_by_count_and_time,
    inspect_reports_health,
    engine_restarts_exited_container,
    set_restart_applies_to_a_running_container,
    exec_returns_output_and_exit_code,
    exec_passes_standard_input,
    exec_with_terminal_has_one_stream,
    exec_of_unknown_command_fails_like_docker,
    create_refuses_taken_name,
    start_refuses_taken_port,
    start_chooses_free_port_of_a_range,
    container_can_join_network_of_machine_or_other_container,
    inspect_restores_spec_values_from_labels,
    remove_keeps_named_and_removes_anonymous_volumes,
    anonymous_volumes_are_handed_on,
    remove_image_keeps_an_image_that_a_container_uses,
    events_report_changes,
);

/// Makes the spec of a service that runs a shell script and is not restarted.
pub(crate) fn service(name: &str, script: &str) -> v1::ServiceSpec {
    v1::ServiceSpec {
        project: "suite".into(),
        name: name.into(),
        image: IMAGE.into(),
        command: Some(v1::StringList {
            values: ["sh", "-c", script].map(str::to_owned).to_vec(),
        }),
        restart: v1::RestartPolicy::No.into(),
        ..Default::default()
    }
}

pub(crate) fn body(spec: &v1::ServiceSpec, name: &str) -> ContainerCreateBody {
    body_with(spec, name, &[])
}

fn body_with(
    spec: &v1::ServiceSpec,
    name: &str,
    handed_on: &[AnonymousVolume],
) -> ContainerCreateBody {
    let placement = spec::Placement {
        cluster: "c1",
        machine: "m1",
        bridge: std::net::Ipv4Addr::new(10, 233, 0, 1),
        revision: "r1",
        deployment: "d1",

        step: "",
        image_entrypoint: &[],
        api: ApiVersion::new(1, 41),
        shared: &BTreeMap::new(),
        files: &BTreeMap::new(),
        handed_on,
        secrets: &BTreeMap::new(),
    };
    spec::container(spec, name, &placement).unwrap()
}

impl Bench {
    async fn create(&self, spec: &v1::ServiceSpec) -> String {
        let name = spec::container_name(spec, rand::random());
        self.engine
            .create(&name, "", body(spec, &name))
            .await
            .unwrap()
    }

    async fn run(&self, spec: &v1::ServiceSpec) -> String {
        let id = self.create(spec).await;
        self.engine.start(&id).await.unwrap();
        id
    }

    async fn until(&self, id: &str, what: &str, is: impl Fn(&Container) -> bool) -> Container {
        let look = async {
            loop {
                let container = self.engine.inspect(id).await.unwrap();
                if is(&container) {
                    return container;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let Ok(container) = timeout(SOON, look).await else {
            panic!("not {what} in time: {:?}", self.engine.inspect(id).await);
        };
        container
    }

    async fn exited(&self, id: &str) -> Container {
        self.until(id, "exited", |container| {
            container.record.state() == v1::ReplicaState::Exited
        })
        .await
    }

    async fn lines(&self, id: &str, options: LogOptions) -> Vec<LogLine> {
        let lines = self.engine.logs(id, options).await.unwrap();
        timeout(SOON, lines.map(Result::unwrap).collect())
            .await
            .unwrap()
    }

    async fn exec(&self, id: &str, options: ExecOptions, input: &[u8]) -> (String, String, i32) {
        let mut session = self.engine.exec(id, options).await.unwrap();
        if !input.is_empty() {
            session.input.write_all(input).await.unwrap();
            session.input.shutdown().await.unwrap();
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read = async {
            while let Some(piece) = session.output.next().await {
                match piece.unwrap() {
                    ExecOutput::Stdout(bytes) => stdout.extend(bytes),
                    ExecOutput::Stderr(bytes) => stderr.extend(bytes),
                }
            }
        };
        timeout(SOON, read).await.unwrap();
        let code = self.engine.exec_exit_code(&session.id).await.unwrap();
        (
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
            code,
        )
    }

    pub(crate) async fn load(&self) {
        let chunks: Vec<_> = self
            .archive
            .chunks(60_000)
            .map(Bytes::copy_from_slice)
            .map(Ok)
            .collect();
        self.engine
            .load(futures_util::stream::iter(chunks).boxed())
            .await
            .unwrap();
    }
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    let text = |line: &LogLine| {
        let stream = if line.stream == v1::LogStream::Stderr {
            "err"
        } else {
            "out"
        };
        format!("{stream} {}", String::from_utf8_lossy(&line.message))
    };
    lines.iter().map(text).collect()
}

fn words(command: &[&str]) -> ExecOptions {
    ExecOptions {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    }
}

async fn container_is_created_started_stopped_and_removed(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("life", "sleep 1000");
    spec.stop_grace_period_ms = Some(1500);
    let id = bench.create(&spec).await;
    let created = engine.inspect(&id).await.unwrap();
    assert_eq!(created.record.state(), v1::ReplicaState::Created);
    assert_eq!((created.record.exit_code, created.managed), (None, true));
    assert_eq!(created.stop_grace, Duration::from_secs(2));
    assert_eq!(
        (
            created.record.revision.as_str(),
            created.record.image.as_str()
        ),
        ("r1", IMAGE)
    );
    assert!(created.record.created_at_ms > 0);

    engine.start(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    let running = engine.inspect(&id[..12]).await.unwrap();
    assert_eq!(running.record.state(), v1::ReplicaState::Running);
    assert!(running.record.ip.starts_with("10."), "{:?}", running.record);
    assert_eq!(running.record.health(), v1::Health::None);
    assert!(engine.containers().await.unwrap().contains(&running));

    engine.stop(&id, Duration::ZERO).await.unwrap();
    engine.stop(&id, Duration::ZERO).await.unwrap();
    let stopped = engine.inspect(&id).await.unwrap();
    assert_eq!(stopped.record.state(), v1::ReplicaState::Exited);
    assert_eq!(
        (stopped.record.exit_code, stopped.record.ip.as_str()),
        (Some(137), "")
    );

    engine.start(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    assert!(matches!(
        engine.inspect(&id).await,
        Err(EngineError::NotFound { .. })
    ));
    assert!(matches!(
        engine.start(&id).await,
        Err(EngineError::NotFound { .. })
    ));
    assert!(matches!(
        engine.logs(&id, LogOptions::default()).await,
        Err(EngineError::NotFound { .. })
    ));
}

async fn containers_lists_only_ours(bench: Bench) {
    let spec = service("other", "true");
    let mut of_others = body(&spec, "others");
    of_others.labels = None;
    let id = bench.engine.create("others", "", of_others).await.unwrap();
    assert!(!bench.engine.inspect(&id).await.unwrap().managed);
    let listed = bench.engine.containers().await.unwrap();
    assert!(
        listed
            .iter()
            .all(|container| container.record.container_id != id)
    );
    bench.engine.remove(&id).await.unwrap();
}

async fn exited_container_keeps_code_and_log(bench: Bench) {
    let id = bench
        .run(&service(
            "exit",
            "echo one; sleep 0.2; echo two >&2; sleep 0.2; exit 3",
        ))
        .await;
    let exited = bench.exited(&id).await;
    assert_eq!(exited.record.exit_code, Some(3));
    let lines = bench.lines(&id, LogOptions::default()).await;
    assert_eq!(texts(&lines), ["out one", "err two"]);
    assert!(lines[0].time_ns < lines[1].time_ns);
    assert_eq!(logs::tail(&*bench.engine, &id, 1).await, ["two"]);
    assert_eq!(logs::tail(&*bench.engine, &id, 10).await, ["one", "two"]);
    bench.engine.remove(&id).await.unwrap();
}

async fn logs_follow_until_the_container_exits(bench: Bench) {
    let id = bench
        .run(&service("follow", "echo a; sleep 0.5; echo b; sleep 0.2"))
        .await;
    let options = LogOptions {
        follow: true,
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, options).await), ["out a", "out b"]);
    bench.engine.remove(&id).await.unwrap();
}

async fn logs_are_limited_by_count_and_time(bench: Bench) {
    let id = bench
        .run(&service("cut", "echo a; sleep 1; echo b; sleep 1; echo c"))
        .await;
    bench.exited(&id).await;
    let all = bench.lines(&id, LogOptions::default()).await;
    assert_eq!(all.len(), 3);
    let tail = LogOptions {
        tail: Some(2),
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, tail).await), ["out b", "out c"]);
    let middle = Some(all[1].time_ns / 1_000_000);
    let since = LogOptions {
        since_ms: middle,
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, since).await), ["out b", "out c"]);
    let until = LogOptions {
        until_ms: middle,
        ..Default::default()
    };
    assert_eq!(texts(&bench.lines(&id, until).await), ["out a", "out b"]);
    bench.engine.remove(&id).await.unwrap();
}

async fn inspect_reports_health(bench: Bench) {
    for (probe, health) in [
        ("true", v1::Health::Healthy),
        ("false", v1::Health::Unhealthy),
    ] {
        let mut spec = service("health", "sleep 1000");
        spec.healthcheck = Some(v1::Healthcheck {
            test: vec!["CMD".into(), probe.into()],
            interval_ms: Some(200),
            timeout_ms: Some(10_000),
            start_period_ms: None,
            retries: Some(2),
            ..Default::default()
        });
        let id = bench.run(&spec).await;
        let container = bench.engine.inspect(&id).await.unwrap();
        let limits = container.healthcheck.unwrap();
        assert_eq!(
            (limits.interval, limits.retries),
            (Duration::from_millis(200), 2)
        );
        assert_eq!(container.record.health(), v1::Health::Starting);
        bench
            .until(&id, "probed", |container| {
                container.record.health() == health
            })
            .await;
        bench.engine.remove(&id).await.unwrap();
    }
}

async fn engine_restarts_exited_container(bench: Bench) {
    let mut spec = service("again", "sleep 0.1; exit 1");
    spec.restart = v1::RestartPolicy::Unspecified.into();
    let id = bench.run(&spec).await;
    let again = bench
        .until(&id, "restarted", |container| {
            container.record.restart_count > 0
        })
        .await;
    assert_eq!(again.restart, v1::RestartPolicy::OnFailure);
    assert!(again.restart_by_default && !again.record.finished);
    bench.engine.remove(&id).await.unwrap();

    let mut job = service("job", "true");
    job.restart = v1::RestartPolicy::Unspecified.into();
    let id = bench.run(&job).await;
    let done = bench.exited(&id).await;
    assert!(done.record.finished);
    assert_eq!(done.record.restart_count, 0);
    bench.engine.remove(&id).await.unwrap();
}

async fn set_restart_applies_to_a_running_container(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("policy", "sleep 1; exit 4");
    spec.restart = v1::RestartPolicy::UnlessStopped.into();
    let id = bench.run(&spec).await;
    let set = async |policy, attempts| {
        engine.set_restart(&id, policy, attempts).await.unwrap();
        engine.inspect(&id).await.unwrap().restart
    };
    assert_eq!(
        set(v1::RestartPolicy::Always, 0).await,
        v1::RestartPolicy::Always
    );
    assert_eq!(
        set(v1::RestartPolicy::OnFailure, 3).await,
        v1::RestartPolicy::OnFailure
    );
    assert_eq!(set(v1::RestartPolicy::No, 0).await, v1::RestartPolicy::No);
    let ended = bench.exited(&id).await;
    assert_eq!(
        (ended.record.restart_count, ended.record.exit_code),
        (0, Some(4))
    );
    assert_eq!(
        set(v1::RestartPolicy::UnlessStopped, 0).await,
        v1::RestartPolicy::UnlessStopped
    );
    engine.remove(&id).await.unwrap();
    let missing = engine.set_restart(&id, v1::RestartPolicy::No, 0).await;
    assert!(
        matches!(missing, Err(EngineError::NotFound { .. })),
        "{missing:?}"
    );
}

async fn exec_returns_output_and_exit_code(bench: Bench) {
    let id = bench.run(&service("exec", "sleep 1000")).await;
    let got = bench
        .exec(
            &id,
            words(&["sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 5"]),
            b"",
        )
        .await;
    assert_eq!(got, ("out\n".into(), "err\n".into(), 5));
    bench.engine.remove(&id).await.unwrap();
}

async fn exec_passes_standard_input(bench: Bench) {
    let id = bench.run(&service("stdin", "sleep 1000")).await;
    let got = bench.exec(&id, words(&["cat"]), b"hello\n").await;
    assert_eq!(got, ("hello\n".into(), String::new(), 0));
    bench.engine.remove(&id).await.unwrap();
}

async fn exec_with_terminal_has_one_stream(bench: Bench) {
    let id = bench.run(&service("tty", "sleep 1000")).await;
    let options = ExecOptions {
        tty: true,
        ..words(&["sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.3"])
    };
    let session = bench.engine.exec(&id, options).await.unwrap();
    bench
        .engine
        .exec_resize(&session.id, 120, 40)
        .await
        .unwrap();
    let pieces: Vec<_> = timeout(SOON, session.output.map(Result::unwrap).collect())
        .await
        .unwrap();
    let text: Vec<u8> = pieces
        .into_iter()
        .flat_map(|piece| match piece {
            ExecOutput::Stdout(bytes) => bytes,
            ExecOutput::Stderr(bytes) => panic!("a terminal has no standard error: {bytes:?}"),
        })
        .collect();
    assert_eq!(String::from_utf8(text).unwrap(), "out\r\nerr\r\n");
    bench.engine.remove(&id).await.unwrap();
}

async fn exec_of_unknown_command_fails_like_docker(bench: Bench) {
    let id = bench.run(&service("fail", "sleep 1000")).await;
    let (stdout, stderr, code) = bench.exec(&id, words(&["no-such-program"]), b"").await;
    // Docker 20.10 returns 126. Users get 127 from every engine (`node::exec`).
    assert!([126, 127].contains(&code), "{code}");
    assert!(
        format!("{stdout}{stderr}").contains("not found"),
        "{stdout} {stderr}"
    );
    bench.engine.stop(&id, Duration::ZERO).await.unwrap();
    let refused = bench.engine.exec(&id, words(&["true"])).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Refused { .. }),
        "{refused:?}"
    );
    bench.engine.remove(&id).await.unwrap();
    let mut spec = service("nothing", "true");
    spec.command = Some(v1::StringList {
        values: vec!["no-such-program".into()],
    });
    let id = bench.create(&spec).await;
    let refused = bench.engine.start(&id).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Refused { .. }),
        "{refused:?}"
    );
    bench.engine.remove(&id).await.unwrap();
}

async fn create_refuses_taken_name(bench: Bench) {
    let spec = service("name", "true");
    let id = bench
        .engine
        .create("suite-name-aaaa", "", body(&spec, "suite-name-aaaa"))
        .await
        .unwrap();
    let taken = bench
        .engine
        .create("suite-name-aaaa", "", body(&spec, "suite-name-aaaa"))
        .await
        .unwrap_err();
    assert!(matches!(taken, EngineError::NameTaken { .. }), "{taken:?}");
    assert_eq!(
        bench
            .engine
            .inspect("suite-name-aaaa")
            .await
            .unwrap()
            .record
            .container_id,
        id
    );
    bench.engine.remove(&id).await.unwrap();
}

async fn start_refuses_taken_port(bench: Bench) {
    let mut spec = service("port", "sleep 1000");
    spec.ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: 18080,
        ..Default::default()
    }];
    let first = bench.run(&spec).await;
    let record = bench.engine.inspect(&first).await.unwrap().record;
    let port = v1::PortSpec {
        protocol: v1::Protocol::Tcp.into(),
        ..spec.ports[0].clone()
    };
    assert_eq!(record.ports, [port]);
    let holders = bench.engine.port_holders().await.unwrap();
    let holder = holders.iter().find(|holder| holder.port == 18080).unwrap();
    assert_eq!(
        (holder.container_id.as_str(), holder.service.as_str()),
        (first.as_str(), "port")
    );
    assert_eq!(holder.container_name, record.container_name);

    let second = bench.create(&spec).await;
    let taken = bench.engine.start(&second).await.unwrap_err();
    assert!(matches!(taken, EngineError::PortTaken { .. }), "{taken:?}");
    bench.engine.remove(&first).await.unwrap();
    bench.engine.start(&second).await.unwrap();
    bench.engine.remove(&second).await.unwrap();
}

async fn start_chooses_free_port_of_a_range(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("range", "sleep 1000");
    spec.ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: 18_080,
        published_last: 18_081,
        protocol: v1::Protocol::Tcp.into(),
        ..Default::default()
    }];
    let asked = spec.ports.clone();
    let first = bench.create(&spec).await;
    assert_eq!(
        engine.inspect(&first).await.unwrap().record.ports,
        asked,
        "not before it runs"
    );
    engine.start(&first).await.unwrap();
    let second = bench.run(&spec).await;
    let mut chosen = Vec::new();
    for id in [&first, &second] {
        let ports = engine.inspect(id).await.unwrap().record.ports;
        assert_eq!((ports.len(), ports[0].published_last), (1, 0), "{ports:?}");
        chosen.push(ports[0].published_port);
    }
    chosen.sort_unstable();
    assert_eq!(chosen, [18_080, 18_081]);
    let third = bench.create(&spec).await;
    assert!(matches!(
        engine.start(&third).await,
        Err(EngineError::PortTaken { .. })
    ));
    for id in [first, second, third] {
        engine.remove(&id).await.unwrap();
    }
}

async fn container_can_join_network_of_machine_or_other_container(bench: Bench) {
    let engine = &bench.engine;
    let ip = async |id: &str| engine.inspect(id).await.unwrap().record.ip;
    let of = |mode: &str| v1::ServiceSpec {
        network_mode: mode.into(),
        ..service("net", "sleep 1000")
    };
    let host = bench.run(&of("host")).await;
    assert_eq!(ip(&host).await, "10.233.0.1", "the machine's address");
    engine.stop(&host, Duration::ZERO).await.unwrap();
    assert_eq!(ip(&host).await, "");
    let alone = bench.run(&of("none")).await;
    assert_eq!(ip(&alone).await, "");
    let base = bench.run(&of("")).await;
    let joined = bench.run(&of(&format!("container:{base}"))).await;
    assert_eq!(engine.inspect(&joined).await.unwrap().network_of, base);
    assert!(ip(&base).await.starts_with("10."));
    assert_eq!(ip(&joined).await, ip(&base).await);
    let listed = engine.containers().await.unwrap();
    let listed = listed
        .iter()
        .find(|container| container.record.container_id == joined)
        .unwrap();
    assert_eq!(listed.record.ip, ip(&base).await);
    engine.stop(&base, Duration::ZERO).await.unwrap();
    assert_eq!(ip(&joined).await, "", "removed with the other container");
    for id in [host, alone, joined, base] {
        engine.remove(&id).await.unwrap();
    }
}

async fn inspect_restores_spec_values_from_labels(bench: Bench) {
    let hook = |program: &str| v1::Hook {
        command: vec![program.to_owned(), "a \"b\" 'c'".to_owned()],
        privileged: true,
        environment: [("A".to_owned(), "b=c, d".to_owned())].into(),
        ..Default::default()
    };
    let mut spec = service("labels", "true");
    spec.post_start = vec![hook("warm")];
    spec.pre_stop = vec![hook("drain"), hook("wait")];
    spec.resources = Some(v1::Resources {
        reserved_nano_cpus: Some(250_000_000),
        reserved_memory: Some(64 << 20),
        ..Default::default()
    });
    let id = bench.create(&spec).await;
    let container = bench.engine.inspect(&id).await.unwrap();
    assert_eq!(
        (container.post_start, container.pre_stop),
        (spec.post_start, spec.pre_stop)
    );
    let record = container.record;
    assert_eq!(
        (record.reserved_nano_cpus, record.reserved_memory),
        (250_000_000, 64 << 20)
    );
    bench.engine.remove(&id).await.unwrap();
}

async fn remove_keeps_named_and_removes_anonymous_volumes(bench: Bench) {
    let engine = &bench.engine;
    let wanted = v1::VolumeSpec {
        project: "suite".into(),
        name: "suite_data".into(),
        ..Default::default()
    };
    let labels = spec::volume_labels(&wanted, "c1", "m1");
    engine.create_volume(&wanted, labels.clone()).await.unwrap();
    engine.create_volume(&wanted, labels).await.unwrap();
    let named = v1::VolumeRecord {
        name: "suite_data".into(),
        driver: "local".into(),
        project: "suite".into(),
    };
    let of = |volumes: Vec<Volume>| {
        volumes
            .into_iter()
            .map(|volume| volume.record)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(engine.volumes().await.unwrap()),
        std::slice::from_ref(&named)
    );

    let mut spec = service("volume", "sleep 1000");
    let mount = |source: &str, target: &str, read_only| v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        source: source.into(),
        target: target.into(),
        read_only,
        ..Default::default()
    };
    spec.mounts = vec![
        mount("suite_data", "/data", true),
        mount("", "/scratch", false),
    ];
    let id = bench.run(&spec).await;
    let mounts = engine.inspect(&id).await.unwrap().record.mounts;
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    assert_eq!(mounts[0], spec.mounts[0]);
    assert_eq!(
        of(engine.volumes().await.unwrap()),
        std::slice::from_ref(&named)
    );
    engine.remove(&id).await.unwrap();
    assert_eq!(of(engine.volumes().await.unwrap()), [named]);
}

/// What `VOLUME` in an image does, a create request can do as well.
async fn anonymous_volumes_are_handed_on(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("keeps", "sleep 1000");
    let unnamed = |target: &str| v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        target: target.into(),
        ..Default::default()
    };
    spec.mounts = vec![unnamed("/scratch"), unnamed("/dropped")];
    let create = async |spec: &v1::ServiceSpec, handed_on: &[AnonymousVolume]| {
        let name = spec::container_name(spec, rand::random());
        let mut body = body_with(spec, &name, handed_on);
        body.volumes = Some(vec!["/image".to_owned()]);
        let id = engine.create(&name, "", body).await.unwrap();
        engine.inspect(&id).await.unwrap()
    };
    let named = |container: &Container, target: &str| {
        let mut volumes = container.anonymous_volumes.iter();
        let volume = volumes.find(|volume| volume.target == target);
        volume.map(|volume| volume.name.clone())
    };
    let first = create(&spec, &[]).await;
    let targets: Vec<&str> = first
        .anonymous_volumes
        .iter()
        .map(|volume| volume.target.as_str())
        .collect();
    assert_eq!(targets, ["/dropped", "/image", "/scratch"]);
    assert!(
        first
            .record
            .mounts
            .iter()
            .all(|mount| uc_api::volumes::is_anonymous(&mount.source))
    );

    spec.mounts = vec![unnamed("/scratch")];
    spec.mounts.push(v1::MountSpec {
        kind: v1::MountKind::Tmpfs.into(),
        target: "/dropped".into(),
        ..Default::default()
    });
    let second = create(&spec, &first.hands_on_to(&spec)).await;
    assert_eq!(named(&second, "/image"), named(&first, "/image"));
    assert_eq!(named(&second, "/scratch"), named(&first, "/scratch"));
    assert_eq!(named(&second, "/dropped"), None);

    // The first one takes away only what the second one does not use.
    let first_id = &first.record.container_id;
    engine.remove(first_id).await.unwrap();
    let third = create(&spec, &second.hands_on_to(&spec)).await;
    engine.remove(&second.record.container_id).await.unwrap();
    let third_id = &third.record.container_id;
    engine.start(third_id).await.unwrap();
    let third = engine.inspect(third_id).await.unwrap();
    assert_eq!(named(&third, "/image"), named(&first, "/image"));
    engine.remove(third_id).await.unwrap();
    // With the last container the volumes go: the suite must leave none.
}

async fn events_report_changes(bench: Bench) {
    let mut events = bench.engine.events().await.unwrap();
    let id = bench.run(&service("events", "sleep 1000")).await;
    let mut seen = async |wanted: EngineEvent| {
        let find = async {
            while let Some(event) = events.next().await {
                if event.unwrap() == wanted {
                    return;
                }
            }
            panic!("the events ended");
        };
        timeout(SOON, find)
            .await
            .unwrap_or_else(|_| panic!("no event in time"));
    };
    seen(EngineEvent::Container(id.clone())).await;
    let wanted = v1::VolumeSpec {
        project: "suite".into(),
        name: "suite_events".into(),
        ..Default::default()
    };
    bench
        .engine
        .create_volume(&wanted, Vec::new())
        .await
        .unwrap();
    seen(EngineEvent::Volume).await;
    bench.engine.remove(&id).await.unwrap();
    seen(EngineEvent::Container(id)).await;
}

/// Each case runs on its own fake.
#[tokio::test]
async fn fake_engine_passes_the_suite() {
    for (name, case) in CASES {
        let engine = fake::FakeEngine::new();
        let bench = Bench {
            engine: Arc::new(engine.clone()),
            archive: format!("{}{IMAGE}", fake::ARCHIVE).into(),
        };
        if *name != CASES[0].0 {
            engine.add_image(IMAGE);
        }
        println!("{name}");
        case(bench).await;
        let left = engine.all_volumes();
        let anonymous = |name: &String| uc_api::volumes::is_anonymous(name);
        assert!(!left.iter().any(anonymous), "{name}: {left:?}");
    }
}

#[tokio::test]
async fn engine_reports_why_it_is_unreachable() {
    let fake = fake::FakeEngine::new();
    fake.set_offline(true);
    assert!(fake.containers().await.unwrap_err().is_unreachable());

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let missing = DockerEngine::connect(&socket).await.unwrap_err();
    assert_eq!(
        missing,
        EngineError::SocketMissing {
            socket: socket.clone()
        }
    );
    // The socket is bound, but no process listens on it any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let engine = DockerEngine::new(&socket);
    let refused = EngineError::NotRunning { socket };
    assert_eq!(engine.version().await.unwrap_err(), refused);
    assert_eq!(engine.containers().await.unwrap_err(), refused);
    assert!(
        engine
            .events()
            .await
            .is_err_and(|error| error.is_unreachable())
    );
}
