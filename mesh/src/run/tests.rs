use super::*;
use crate::client::MeshClient;
use crate::config::tests::{config, key, peer};
use crate::endpoint::Reach;
use crate::guard::FakeGuard;
use crate::tunnel::Fake;

/// A mesh process on a fake tunnel and a fake guard, in a directory of its own.
struct Process {
    directory: std::sync::Arc<tempfile::TempDir>,
    fake: Fake,
    guard: FakeGuard,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), MeshError>>,
}

impl Process {
    async fn start() -> Self {
        Self::start_in(std::sync::Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn start_in(directory: std::sync::Arc<tempfile::TempDir>) -> Self {
        Self::start_with(directory, FakeGuard::default()).await
    }

    async fn start_with(directory: std::sync::Arc<tempfile::TempDir>, guard: FakeGuard) -> Self {
        let (fake, cancel) = (Fake::default(), CancellationToken::new());
        let paths = MeshPaths {
            config: directory.path().join("mesh.json"),
            socket: directory.path().join("run/mesh.sock"),
        };
        let socket = paths.socket.clone();
        let task = tokio::spawn(run(paths, fake.clone(), guard.clone(), cancel.clone()));
        for _ in 0..500 {
            if socket.exists() || task.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self {
            directory,
            fake,
            guard,
            cancel,
            task,
        }
    }

    fn client(&self) -> MeshClient {
        MeshClient::new(self.directory.path().join("run/mesh.sock"))
    }

    async fn stop(self) -> Result<(), MeshError> {
        self.cancel.cancel();
        self.task.await.unwrap()
    }
}

#[tokio::test]
async fn status_before_the_first_configuration_is_empty() {
    let process = Process::start().await;
    assert_eq!(
        process.client().status().await.unwrap(),
        MeshStatus::unconfigured()
    );
    process.stop().await.unwrap();
}

#[tokio::test]
async fn acknowledged_configuration_is_applied_written_and_restored() {
    let process = Process::start().await;
    process.client().apply(&config(1, &[2, 3])).await.unwrap();
    let json = std::fs::read(process.directory.path().join("mesh.json")).unwrap();
    assert_eq!(
        serde_json::from_slice::<MeshConfig>(&json).unwrap(),
        config(1, &[2, 3])
    );
    let status = process.client().status().await.unwrap();
    assert_eq!(status.public_key, Some(key(1).public()));
    assert_eq!(status.peers.len(), 2);
    let peer_2 = status.peer(&key(2).public()).unwrap();
    assert_eq!(
        peer_2.endpoint,
        Some(peer(2).endpoints[0]),
        "set without waiting for the next step"
    );
    assert_eq!(peer_2.reach, Reach::Unknown);

    let (directory, fake) = (process.directory.clone(), process.fake.clone());
    process.stop().await.unwrap();
    assert!(fake.state().closed);
    assert!(!directory.path().join("run/mesh.sock").exists());

    let process = Process::start_in(directory).await;
    assert_eq!(process.client().status().await.unwrap().peers.len(), 2);
    assert_eq!(process.fake.state().config, Some(config(1, &[2, 3])));
    process.stop().await.unwrap();
}

#[tokio::test]
async fn down_removes_the_files_and_a_new_configuration_works() {
    let process = Process::start().await;
    process.client().apply(&config(1, &[2])).await.unwrap();
    process.client().down().await.unwrap();
    assert!(process.fake.state().closed);
    assert!(!process.directory.path().join("mesh.json").exists());
    assert_eq!(
        process.client().status().await.unwrap(),
        MeshStatus::unconfigured()
    );
    process.client().down().await.unwrap();
    process.client().apply(&config(3, &[2])).await.unwrap();
    assert_eq!(
        process.client().status().await.unwrap().public_key,
        Some(key(3).public())
    );
    process.stop().await.unwrap();
}

#[tokio::test]
async fn tunnel_without_firewall_rules_is_not_opened() {
    let process = Process::start().await;
    process.guard.state().refuse = true;
    let error = process.client().apply(&config(1, &[2])).await.unwrap_err();
    assert!(
        error.to_string().contains(
            "cannot protect the mesh by firewall rules: ip6tables-restore is not installed"
        ),
        "{error}"
    );
    assert_eq!(process.fake.state().applied, 0);
    assert!(!process.client().status().await.unwrap().guarded);
    process.guard.state().refuse = false;
    process.client().apply(&config(1, &[2])).await.unwrap();
    assert!(process.client().status().await.unwrap().guarded);
    let directory = process.directory.clone();
    process.stop().await.unwrap();

    let guard = FakeGuard::default();
    guard.state().refuse = true;
    let process = Process::start_with(directory, guard).await;
    let error = process.task.await.unwrap().unwrap_err();
    assert!(matches!(error, MeshError::Firewall(_)), "{error}");
    assert_eq!(process.fake.state().applied, 0);
}

#[tokio::test]
async fn firewall_rules_are_kept_by_a_stop_and_removed_by_down() {
    let process = Process::start().await;
    let wanted = config(1, &[2]);
    process.client().apply(&wanted).await.unwrap();
    let (directory, guard) = (process.directory.clone(), process.guard.clone());
    process.stop().await.unwrap();
    assert_eq!(guard.state().spec, Some(GuardSpec::of(&wanted)));
    let process = Process::start_with(directory, guard).await;
    process.client().down().await.unwrap();
    assert_eq!(process.guard.state().spec, None);
    process.stop().await.unwrap();
}

#[tokio::test]
async fn previous_address_and_guests_are_guarded_until_the_tunnel_has_changed() {
    let process = Process::start().await;
    let mut before = config(1, &[2]);
    before.peers[0].guest = true;
    before.peers[0].allowed_ips = vec!["fdcc::2/128".parse().unwrap()];
    let mut after = config(3, &[4]);
    after.addresses = vec!["fdcc::3/128".parse().unwrap()];
    process.client().apply(&before).await.unwrap();
    process.client().apply(&after).await.unwrap();
    let (before, after) = (GuardSpec::of(&before), GuardSpec::of(&after));
    assert_eq!(before.guests.len(), 1);
    let both = before.clone().and(&after);
    assert_eq!(both.addresses.len(), 2);
    assert_eq!(process.guard.state().ensured, [before, both, after]);
    process.stop().await.unwrap();
}

#[tokio::test]
async fn removed_peer_loses_its_access_although_the_firewall_refuses() {
    let process = Process::start().await;
    process.client().apply(&config(1, &[2, 3])).await.unwrap();
    process.guard.state().refuse = true;
    let mut wanted = config(1, &[3, 4]);
    // A guest changes the rules.
    wanted.peers[1].guest = true;
    wanted.peers[1].allowed_ips = vec!["fdcc::4/128".parse().unwrap()];
    process.client().apply(&wanted).await.unwrap_err();
    let applied = process.fake.state().config.clone().unwrap();
    let keys: Vec<_> = applied.peers.iter().map(|peer| peer.public_key).collect();
    assert_eq!(
        keys,
        [key(3).public()],
        "neither the removed nor the new one"
    );
    process.guard.state().refuse = false;
    process.client().apply(&wanted).await.unwrap();
    assert_eq!(process.fake.state().config, Some(wanted));
    process.stop().await.unwrap();
}

#[tokio::test]
async fn unchanged_firewall_rules_are_not_applied_again() {
    let process = Process::start().await;
    for peers in [&[2][..], &[2, 3]] {
        process.client().apply(&config(1, peers)).await.unwrap();
    }
    assert_eq!(process.guard.state().ensured.len(), 1);
    process.stop().await.unwrap();
}

#[tokio::test]
async fn refused_configuration_is_neither_acknowledged_nor_written() {
    let process = Process::start().await;
    process.fake.state().refuse = Some("no such luck".to_owned());
    let error = process.client().apply(&config(1, &[2])).await.unwrap_err();
    assert!(
        matches!(&error, MeshError::Refused(reason) if reason.contains("no such luck")),
        "{error}"
    );
    assert!(!process.directory.path().join("mesh.json").exists());
    process.fake.state().refuse = None;
    process.client().apply(&config(1, &[2])).await.unwrap();
    process.stop().await.unwrap();
}

#[tokio::test]
async fn configuration_is_not_acknowledged_until_it_can_be_written() {
    let process = Process::start().await;
    // It answers when it has looked for a configuration to restore.
    process.client().status().await.unwrap();
    let obstacle = process.directory.path().join("mesh.json");
    std::fs::create_dir(&obstacle).unwrap();
    for _ in 0..2 {
        let error = process.client().apply(&config(1, &[2])).await.unwrap_err();
        assert!(error.to_string().contains("mesh.json"), "{error}");
    }
    std::fs::remove_dir(&obstacle).unwrap();
    process.client().apply(&config(1, &[2])).await.unwrap();
    assert!(obstacle.is_file());
    process.stop().await.unwrap();
}

#[tokio::test]
async fn invalid_configuration_is_refused_by_client_and_process() {
    let process = Process::start().await;
    let bad = config(1, &[1]);
    assert!(matches!(
        process.client().apply(&bad).await,
        Err(MeshError::Config(_))
    ));
    let socket = process.directory.path().join("run/mesh.sock");
    let line = serde_json::to_string(&Request::Apply(Box::new(bad))).unwrap();
    for (line, expected) in [
        (line.as_str(), "has the key of this machine"),
        ("{\"fly\":1}", "cannot read the request"),
    ] {
        let answer = say(&socket, line).await;
        assert!(answer.contains(expected), "{answer}");
    }
    assert_eq!(process.fake.state().applied, 0);
    process.stop().await.unwrap();
}

#[tokio::test]
async fn control_socket_belongs_to_root_and_to_one_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let process = Process::start().await;
    let socket = process.directory.path().join("run/mesh.sock");
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let second = Process::start_in(process.directory.clone()).await;
    let error = second.task.await.unwrap().unwrap_err();
    assert!(matches!(error, MeshError::AlreadyRunning(_)), "{error}");
    process
        .client()
        .status()
        .await
        .expect("the first one is untouched");
    process.stop().await.unwrap();
}

#[tokio::test]
async fn socket_of_a_dead_process_is_replaced() {
    let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(directory.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("run/mesh.sock")).unwrap());
    let process = Process::start_in(directory).await;
    let mut status = process.client().status().await;
    for _ in 0..100 {
        if status.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        status = process.client().status().await;
    }
    assert_eq!(status.unwrap(), MeshStatus::unconfigured());
    process.stop().await.unwrap();
}

#[tokio::test]
async fn damaged_configuration_is_renamed() {
    let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("mesh.json"), "{").unwrap();
    let process = Process::start_in(directory).await;
    assert_eq!(
        process.client().status().await.unwrap(),
        MeshStatus::unconfigured()
    );
    assert!(process.directory.path().join("mesh.json.damaged").exists());
    process.stop().await.unwrap();
}

#[tokio::test]
async fn broken_tunnel_ends_the_process_with_an_error() {
    let process = Process::start().await;
    process.client().apply(&config(1, &[2])).await.unwrap();
    process.fake.fail();
    let error = process.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("stopped working"), "{error}");
}

#[tokio::test]
async fn learned_endpoint_survives_new_configurations_and_restarts() {
    let process = Process::start().await;
    process.client().apply(&config(1, &[2])).await.unwrap();
    let elsewhere = "198.51.100.7:4000".parse().unwrap();
    if let Some(peer) = process.fake.state().peers.get_mut(&key(2).public()) {
        peer.endpoint = Some(elsewhere);
        peer.handshake_age = Some(Duration::ZERO);
    }
    process.client().apply(&config(1, &[2, 3])).await.unwrap();
    let status = process.client().status().await.unwrap();
    let peer_2 = status.peer(&key(2).public()).unwrap();
    assert_eq!(
        (peer_2.endpoint, peer_2.reach),
        (Some(elsewhere), Reach::Up)
    );
    let directory = process.directory.clone();
    process.stop().await.unwrap();

    let process = Process::start_in(directory).await;
    let status = process.client().status().await.unwrap();
    assert_eq!(
        status.peer(&key(2).public()).unwrap().endpoint,
        Some(elsewhere)
    );
    process.stop().await.unwrap();
}

#[tokio::test]
async fn two_peers_with_one_subnet_are_reported() {
    let process = Process::start().await;
    let mut config = config(1, &[2, 3]);
    config.peers[1].allowed_ips = config.peers[0].allowed_ips.clone();
    process.client().apply(&config).await.unwrap();
    let status = process.client().status().await.unwrap();
    assert_eq!(status.conflicts.len(), 1);
    assert_eq!(status.peer(&key(3).public()).unwrap().allowed_ips, []);
    process.stop().await.unwrap();
}

#[tokio::test]
async fn client_reports_that_no_process_runs() {
    let client = MeshClient::new("/nonexistent/mesh.sock");
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, MeshError::NotRunning { .. }), "{error}");
    assert!(error.to_string().contains("systemctl"), "{error}");
}

#[tokio::test]
async fn client_gives_up_on_a_process_that_does_not_answer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mesh.sock");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let mut client = MeshClient::new(&socket);
    client.limit = Duration::from_millis(50);
    assert!(matches!(
        client.status().await,
        Err(MeshError::Timeout { .. })
    ));
}

/// A line to the control socket and the line that comes back.
async fn say(socket: &std::path::Path, line: &str) -> String {
    use tokio::io::{AsyncWriteExt as _, BufReader};
    let (read, mut write) = tokio::net::UnixStream::connect(socket)
        .await
        .unwrap()
        .into_split();
    write
        .write_all(format!("{line}\n").as_bytes())
        .await
        .unwrap();
    let answer = control::read_line(&mut BufReader::new(read))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}
