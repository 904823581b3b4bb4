use uc_api::token::TokenMember;
use uc_mesh::PeerStatus;
use uc_mesh::endpoint::Reach;

use super::*;
use crate::app::tests::app;
use crate::fake_mesh::{Change, FakeMesh};

/// A valid token whose only member does not answer.
fn silent_token(id: &str) -> JoinToken {
    JoinToken {
        id: id.into(),
        private_key: PrivateKey::generate().unwrap().to_base64(),
        members: vec![TokenMember {
            public_key: PrivateKey::generate().unwrap().public().to_string(),
            endpoints: vec!["192.0.2.1:51820".into()],
        }],
        expires_at_ms: now_ms() + 3_600_000,
    }
}

type Joined = Result<(ClusterRecord, MachineRecord), Failure>;

fn start_join(app: &Arc<App>, token: &JoinToken) -> tokio::task::JoinHandle<Joined> {
    let app = Arc::clone(app);
    let request = JoinWithTokenRequest {
        token: token.to_line(),
        name: "m2".into(),
        ..JoinWithTokenRequest::default()
    };
    tokio::spawn(async move { join_with_token(&app, request).await })
}

fn start_init(app: &Arc<App>) -> tokio::task::JoinHandle<Joined> {
    let app = Arc::clone(app);
    let request = InitRequest {
        name: "m1".into(),
        ..InitRequest::default()
    };
    tokio::spawn(async move { init(&app, &request).await })
}

/// The result of a join that has to end soon.
async fn ended(join: tokio::task::JoinHandle<Joined>) -> Joined {
    let ended = timeout(Duration::from_secs(10), join).await;
    ended.expect("the join ends").expect("it does not panic")
}

#[tokio::test]
async fn join_that_still_runs_does_not_touch_the_mesh_of_a_member() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let mesh = FakeMesh::listen(&app.paths.mesh_socket());
    let joining = start_join(&app, &silent_token("t1"));
    mesh.changed_times(1).await;
    let mut members = app.watch_member();
    let initialising = start_init(&app);
    let entered = members.wait_for(Option::is_some);
    let entered = timeout(Duration::from_secs(10), entered).await;
    let member = entered.expect("init enters").unwrap().clone().unwrap();
    let before = mesh.changes().len();
    // The join fails now, unless it has ended.
    mesh.fail();
    ended(joining).await.unwrap_err();
    let of_member = Change::Apply(member.key.public());
    let changes = mesh.changes().split_off(before);
    assert!(
        changes.iter().all(|change| *change == of_member),
        "{changes:?}"
    );
    app.abort_joins(None);
    ended(initialising).await.unwrap_err();
}

#[tokio::test]
async fn join_ends_the_one_that_still_runs() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let mesh = FakeMesh::listen(&app.paths.mesh_socket());
    let tokens = ["t1", "t2"].map(silent_token);
    let first = start_join(&app, &tokens[0]);
    mesh.changed_times(1).await;
    let second = start_join(&app, &tokens[1]);
    let failure = ended(first).await.unwrap_err();
    assert!(failure.message.contains("another"), "{failure}");
    mesh.changed_times(3).await;
    let key = |token: &JoinToken| token_key(token).unwrap().public();
    let expected = [
        Change::Apply(key(&tokens[0])),
        Change::Down,
        Change::Apply(key(&tokens[1])),
    ];
    assert_eq!(mesh.changes(), expected);
    app.abort_joins(None);
    ended(second).await.unwrap_err();
    assert_eq!(mesh.changes().last(), Some(&Change::Down));
}

#[test]
fn members_with_a_handshake_are_asked_first() {
    let keys: Vec<PublicKey> = (1..=3)
        .map(|_| PrivateKey::generate().unwrap().public())
        .collect();
    let member = |key: &PublicKey| TokenMember {
        public_key: key.to_string(),
        endpoints: Vec::new(),
    };
    let token = JoinToken {
        id: "t".into(),
        private_key: String::new(),
        members: keys.iter().map(member).collect(),
        expires_at_ms: 0,
    };
    let peer = |key: &PublicKey, latest_handshake| PeerStatus {
        public_key: *key,
        endpoint: None,
        latest_handshake,
        rx_bytes: 0,
        tx_bytes: 0,
        allowed_ips: Vec::new(),
        reach: Reach::Unknown,
    };
    let mut status = MeshStatus::unconfigured();
    assert_eq!(
        answering_first(&token, &status),
        keys,
        "in the token's order"
    );
    status.peers = vec![
        peer(&keys[0], None),
        peer(&keys[1], None),
        peer(&keys[2], Some(5)),
    ];
    assert_eq!(
        answering_first(&token, &status),
        [keys[2], keys[0], keys[1]]
    );
}

#[tokio::test]
async fn reset_ends_a_join_that_waits() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let joining = async {
        let mut joining = app.begin_join("a");
        let _identity = app.identity.lock().await;
        let never = std::future::pending::<Result<(), Failure>>();
        joining.unless_reset(never).await
    };
    let (joined, reset) = tokio::join!(joining, crate::membership::leave::reset(&app, Some("a")));
    assert_eq!(joined.unwrap_err().code, Code::Refused);
    assert_eq!(reset, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn reset_of_another_machine_does_not_end_a_join() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let joining = async {
        let mut joining = app.begin_join("a");
        let _identity = app.identity.lock().await;
        let step = async {
            sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        joining.unless_reset(step).await
    };
    let (joined, reset) = tokio::join!(joining, crate::membership::leave::reset(&app, Some("b")));
    assert_eq!(joined, Ok(()));
    assert_eq!(reset, Ok(Vec::new()));
}

#[test]
fn invalid_networks_and_ports_are_refused() {
    assert_eq!(parse_network("").unwrap().to_string(), DEFAULT_NETWORK);
    assert_eq!(
        parse_network("10.9.8.7/16").unwrap().to_string(),
        "10.9.0.0/16"
    );
    for bad in ["10.0.0.0/24", "nonsense", "fd00::/8"] {
        assert!(parse_network(bad).unwrap_err().hint.is_some(), "{bad}");
    }
    assert_eq!(port(0).unwrap(), WIREGUARD_PORT);
    assert!(port(70_000).is_err());
}
