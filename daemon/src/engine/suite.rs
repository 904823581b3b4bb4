//! The contract of [`Engine`](super::Engine), as one suite for the fake and the real engine. So a
//! test that passes on the fake is also valid for Docker.

mod containers;
mod images;
mod settings;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bytes::Bytes;
use containers::*;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use images::*;
use settings::*;
use streams::*;
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
