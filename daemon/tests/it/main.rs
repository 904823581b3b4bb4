//! Runs the daemon in this process without cluster, Docker or mesh, and checks what its API
//! returns.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test program")]

use std::path::Path;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uc_api::v1::machine_client::MachineClient;
use uc_api::v1::services_client::ServicesClient;
use uc_api::v1::{
    IdentifyRequest, IdentifyResponse, InfoRequest, InitRequest, ListServicesRequest, ResetRequest,
};
use uc_api::version::{
    CLIENT_VERSION_KEY, CLUSTER_KEY, PROTOCOL, PROTOCOL_KEY, SERVER_VERSION_KEY, VERSION,
};
use uc_api::{Code, Failure};
use uc_daemon::paths::Paths;

struct Daemon {
    directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Daemon {
    async fn start() -> (Self, Channel) {
        let directory = tempfile::tempdir().unwrap();
        let task = tokio::spawn(uc_daemon::run(paths(directory.path())));
        let socket = directory.path().join("run/uc.sock");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        for _ in 0..500 {
            if let Ok(channel) = endpoint.connect().await {
                return (Self { directory, task }, channel);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the daemon is not listening: {:?}", task.await);
    }
}

fn paths(directory: &Path) -> Paths {
    Paths::new(directory.join("state"), directory.join("run"))
}

fn with_protocol(protocol: u32) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |mut request| {
        request
            .metadata_mut()
            .insert(PROTOCOL_KEY, MetadataValue::from(protocol));
        request
            .metadata_mut()
            .insert(CLIENT_VERSION_KEY, MetadataValue::from_static("9.9.9"));
        Ok(request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_without_cluster_refuses_with_hint() {
    let (_daemon, channel) = Daemon::start().await;
    let mut services = ServicesClient::with_interceptor(channel, with_protocol(PROTOCOL));
    let failure = Failure::from(
        services
            .list(ListServicesRequest::default())
            .await
            .unwrap_err(),
    );
    assert_eq!(failure.code, Code::Refused);
    assert!(
        failure.message.ends_with(" is not in a cluster")
            && !failure.message.starts_with("this machine"),
        "{failure}"
    );
    assert!(failure.hint.unwrap().contains("uc machine init"));
}

#[tokio::test(flavor = "multi_thread")]
async fn info_answers_without_docker_and_contains_the_key() {
    let (_daemon, channel) = Daemon::start().await;
    let mut machine = MachineClient::with_interceptor(channel, with_protocol(PROTOCOL));
    let answer = machine.info(InfoRequest {}).await.unwrap();
    assert_eq!(
        answer
            .metadata()
            .get(SERVER_VERSION_KEY)
            .unwrap()
            .to_str()
            .unwrap(),
        VERSION
    );
    let info = answer.into_inner();
    // What the fake daemon of the CLI's tests assumes: the id comes with the membership.
    assert_eq!(
        (info.cluster_id.as_str(), info.machine_id.as_str()),
        ("", "")
    );
    assert_eq!(info.machine_name, "");
    assert_eq!(info.public_key.len(), 44);
    assert!(!info.facts.unwrap().hostname.is_empty());
}

/// A call that is meant for a cluster does nothing on a machine that is not in it.
#[tokio::test(flavor = "multi_thread")]
async fn machine_outside_of_a_cluster_refuses_calls_meant_for_one() {
    let (_daemon, channel) = Daemon::start().await;
    let meant = |mut request: Request<()>| {
        let cluster = MetadataValue::from_static("c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1");
        request.metadata_mut().insert(CLUSTER_KEY, cluster);
        with_protocol(PROTOCOL)(request)
    };
    let mut machine = MachineClient::with_interceptor(channel.clone(), meant);
    let init = machine.init(InitRequest::default()).await.unwrap_err();
    assert_eq!(Failure::from(init).code, Code::WrongCluster);
    let reset = machine.reset(ResetRequest::default()).await.unwrap_err();
    assert_eq!(Failure::from(reset).code, Code::WrongCluster);
    let mut services = ServicesClient::with_interceptor(channel.clone(), meant);
    let list = services.list(ListServicesRequest::default()).await;
    assert_eq!(Failure::from(list.unwrap_err()).code, Code::WrongCluster);
    // Without the cluster's id it answers which machine it is.
    let mut machine = MachineClient::with_interceptor(channel, with_protocol(PROTOCOL));
    let answer = machine.identify(IdentifyRequest {}).await.unwrap();
    assert_eq!(answer.into_inner(), IdentifyResponse::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_of_a_machine_without_cluster_succeeds() {
    let (_daemon, channel) = Daemon::start().await;
    let mut machine = MachineClient::with_interceptor(channel, with_protocol(PROTOCOL));
    let removed = machine
        .reset(ResetRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(removed.removed, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_tells_older_and_newer_client_what_to_upgrade() {
    let (_daemon, channel) = Daemon::start().await;
    for (protocol, upgrade) in [(PROTOCOL + 1, "upgrade the machine"), (0, "upgrade uc")] {
        let mut machine = MachineClient::with_interceptor(channel.clone(), with_protocol(protocol));
        let failure = Failure::from(machine.info(InfoRequest {}).await.unwrap_err());
        assert_eq!(failure.code, Code::Version);
        assert!(failure.hint.unwrap().contains(upgrade));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_daemon_leaves_the_socket_to_the_first() {
    let (daemon, channel) = Daemon::start().await;
    let second = uc_daemon::run(paths(daemon.directory.path()))
        .await
        .unwrap_err();
    assert!(
        second
            .message
            .contains("another process is listening on it"),
        "{second}"
    );
    let mut machine = MachineClient::with_interceptor(channel, with_protocol(PROTOCOL));
    assert!(machine.info(InfoRequest {}).await.is_ok());
    assert!(!daemon.task.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn init_with_invalid_request_changes_nothing() {
    let (daemon, channel) = Daemon::start().await;
    let mut machine = MachineClient::with_interceptor(channel, with_protocol(PROTOCOL));
    let before = std::fs::read(daemon.directory.path().join("state/machine.json")).unwrap();
    for request in [
        InitRequest {
            network: "10.0.0.0/30".into(),
            ..InitRequest::default()
        },
        InitRequest {
            name: "Not A Name".into(),
            ..InitRequest::default()
        },
        InitRequest {
            endpoints: vec!["my_host".into()],
            name: "m1".into(),
            ..InitRequest::default()
        },
    ] {
        let failure = Failure::from(machine.init(request).await.unwrap_err());
        assert_eq!(failure.code, Code::Invalid, "{failure}");
    }
    assert_eq!(
        std::fs::read(daemon.directory.path().join("state/machine.json")).unwrap(),
        before
    );
    assert!(
        machine
            .info(InfoRequest {})
            .await
            .unwrap()
            .into_inner()
            .cluster_id
            .is_empty()
    );
}
