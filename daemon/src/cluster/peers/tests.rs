use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http;
use tonic::transport::{Endpoint, Server, Uri};
use tower::{ServiceExt as _, service_fn};
use uc_api::v1::join_client::JoinClient;
use uc_api::v1::node_client::NodeClient;
use uc_api::v1::node_server::NodeServer;
use uc_api::v1::peer_client::PeerClient;
use uc_api::v1::{
    AddMachineRequest, MachineRecord, ObserveRequest, PeerExamineRequest, PeerResetRequest,
    TokenRecord,
};
use uc_api::{Code, Failure};
use uc_mesh::noise;

use super::*;
use crate::clock::now_ms;
use crate::cluster::machines::{Machines, Own};
use crate::cluster::member::{Member, Parts};
use crate::cluster::records::{self, delete, put};
use crate::engine::DockerEngine;
use crate::identity::Membership;
use crate::node::NodeService;
use crate::paths::Paths;
use crate::{grpc, reconcile};

/// A node's service as other daemons reach it.
pub(crate) fn remote_node(node: &NodeService) -> Remote {
    let (server, links) = mpsc::channel(4);
    let serving = Server::builder()
        .add_service(NodeServer::new(node.clone()))
        .serve_with_incoming(ReceiverStream::new(links).map(Ok::<_, io::Error>));
    tokio::spawn(serving);
    let key = PrivateKey::generate().unwrap();
    let machine = machine(record("a1", &key), &key);
    Peers::new(machine.id, key, server).machine(&machine)
}

/// The machine of this record, as a machine with the key sees it.
fn machine(record: MachineRecord, own_key: &PrivateKey) -> Machine {
    let own = Own {
        id: MachineId::from_bytes([0xa1; 16]),
        key: own_key.public(),
        network: "10.210.0.0/16".parse().unwrap(),
        prefix_length: 24,
    };
    let mut machines = Machines::of([record], &own).usable;
    Arc::unwrap_or_clone(machines.remove(0))
}

/// A member without a mesh, an engine or other machines.
struct Alone {
    _directory: tempfile::TempDir,
    member: Arc<Member>,
}

async fn alone() -> Alone {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
    std::fs::create_dir_all(paths.state_dir()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let parts = Parts {
        engine: Arc::new(DockerEngine::new(directory.path().join("no-docker.sock"))),
        membership: Membership {
            cluster_id: "c1".repeat(16),
            machine_id: "a1".repeat(16),
            network: "10.210.0.0/16".parse().unwrap(),
            subnet: "10.210.0.0/24".parse().unwrap(),
            wireguard_port: 51820,
            bootstrap: vec![record("a1", &key)],
        },
        paths,
        key,
    };
    let member = start(parts).await;
    member.finish_init().await.unwrap();
    Alone {
        _directory: directory,
        member,
    }
}

async fn start(parts: Parts) -> Arc<Member> {
    let (member, links) = Member::open(parts).await.unwrap();
    reconcile::start(&member, links, grpc::serve_peers);
    member
}

fn record(id: &str, key: &PrivateKey) -> MachineRecord {
    MachineRecord {
        id: id.repeat(16),
        name: format!("m-{id}"),
        public_key: key.public().to_string(),
        subnet: "10.210.0.0/24".into(),
        ..MachineRecord::default()
    }
}

/// A connection of a process that has `key`, to a server that expects `caller` to prove
/// `expected`.
async fn dial(
    member: &Arc<Member>,
    key: &PrivateKey,
    expected: PublicKey,
    caller: Caller,
) -> Result<Channel, tonic::transport::Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::clone(member);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _the_caller_sees_it = server.peers.accept(stream, &expected, caller).await;
    });
    let (own, peer) = (key.clone(), member.key.public());
    let connector = service_fn(move |_: Uri| {
        let own = own.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, io::Error>(TokioIo::new(noise::connect(stream, &own, &peer).await?))
        }
    });
    Endpoint::from_static("http://m")
        .connect_with_connector(connector)
        .await
}

fn code_of(status: Status) -> Code {
    Failure::from(status).code
}

#[tokio::test]
async fn member_is_served_until_its_record_is_removed() {
    let alone = alone().await;
    let key = PrivateKey::generate().unwrap();
    let machine = record("b2", &key);
    let write = put(records::MACHINE, machine.id.clone(), &machine);
    alone.member.write(vec![write]).await.unwrap();
    let caller = Caller::Member {
        id: machine.id.parse().unwrap(),
        key: key.public(),
    };
    let channel = dial(&alone.member, &key, key.public(), caller)
        .await
        .unwrap();
    let mut peer = PeerClient::new(channel.clone());
    peer.examine(PeerExamineRequest {}).await.unwrap();
    // It has no engine, and says so itself.
    let observed = NodeClient::new(channel.clone())
        .observe(ObserveRequest {})
        .await;
    assert_eq!(code_of(observed.unwrap_err()), Code::Unreachable);
    let mut join = JoinClient::new(channel);
    let registered = join.register(AddMachineRequest::default()).await;
    assert_eq!(code_of(registered.unwrap_err()), Code::Refused);

    let removed = delete(records::MACHINE, machine.id);
    alone.member.write(vec![removed]).await.unwrap();
    let refused = peer.examine(PeerExamineRequest {}).await.unwrap_err();
    assert_eq!(code_of(refused), Code::Refused);
    alone.member.stop().await;
}

#[tokio::test]
async fn key_of_another_machine_serves_nobody() {
    let alone = alone().await;
    let (key, stranger) = (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    );
    let caller = Caller::Member {
        id: MachineId::from_bytes([0xb2; 16]),
        key: key.public(),
    };
    let dialled = dial(&alone.member, &stranger, key.public(), caller).await;
    dialled.unwrap_err();
    alone.member.stop().await;
}

#[tokio::test]
async fn token_holder_may_only_register_and_only_while_the_token_is_valid() {
    let alone = alone().await;
    let key = PrivateKey::generate().unwrap();
    let token = TokenRecord {
        id: "t1".into(),
        public_key: key.public().to_string(),
        expires_at_ms: now_ms() + 3_600_000,
        ..TokenRecord::default()
    };
    let write = put(records::TOKEN, token.id.clone(), &token);
    alone.member.write(vec![write]).await.unwrap();
    let caller = Caller::Token { id: "t1".into() };
    let channel = dial(&alone.member, &key, key.public(), caller)
        .await
        .unwrap();
    let mut peer = PeerClient::new(channel.clone());
    for refused in [
        peer.examine(PeerExamineRequest {}).await.unwrap_err(),
        peer.reset(PeerResetRequest {}).await.unwrap_err(),
        NodeClient::new(channel.clone())
            .observe(ObserveRequest {})
            .await
            .unwrap_err(),
    ] {
        assert_eq!(code_of(refused), Code::Refused);
    }
    let mut join = JoinClient::new(channel);
    let machine = AddMachineRequest {
        machine_id: MachineId::from_bytes([0xb2; 16]).to_string(),
        name: "m2".into(),
        public_key: PrivateKey::generate().unwrap().public().to_string(),
        ..AddMachineRequest::default()
    };
    let registered = join.register(machine).await.unwrap().into_inner();
    assert_eq!(registered.machine.unwrap().name, "m2");

    alone
        .member
        .write(vec![delete(records::TOKEN, "t1".to_owned())])
        .await
        .unwrap();
    let refused = join.register(AddMachineRequest::default()).await;
    let refused = Failure::from(refused.unwrap_err());
    assert!(refused.message.contains("token is not valid"), "{refused}");
    alone.member.stop().await;
}

/// A valid token of this key, written to the member's store.
async fn write_token(member: &Member, key: &PrivateKey) -> Caller {
    let token = TokenRecord {
        id: "t1".into(),
        public_key: key.public().to_string(),
        expires_at_ms: now_ms() + 3_600_000,
        ..TokenRecord::default()
    };
    let write = put(records::TOKEN, token.id.clone(), &token);
    member.write(vec![write]).await.unwrap();
    Caller::Token { id: token.id }
}

#[tokio::test]
async fn caller_has_few_connections_of_which_the_oldest_end_first() {
    let alone = alone().await;
    let key = PrivateKey::generate().unwrap();
    let token = write_token(&alone.member, &key).await;
    let machine = Caller::Member {
        id: MachineId::from_bytes([0xb2; 16]),
        key: key.public(),
    };
    for (caller, count, most) in [(token, 100, 4), (machine, 20, 16)] {
        let mut channels = Vec::new();
        for _ in 0..count {
            let dialled = dial(&alone.member, &key, key.public(), caller.clone()).await;
            channels.push(dialled.unwrap());
        }
        let mut answering = Vec::new();
        for (n, channel) in channels.into_iter().enumerate() {
            let mut join = JoinClient::new(channel);
            let registered = join.register(AddMachineRequest::default()).await;
            if code_of(registered.unwrap_err()) != Code::Unreachable {
                answering.push(n);
            }
        }
        let newest: Vec<usize> = (count - most..count).collect();
        assert_eq!(answering, newest, "{caller:?}");
    }
    alone.member.stop().await;
}

/// A request of which nothing is ever sent.
#[derive(Debug)]
struct Unfinished;

impl Body for Unfinished {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn registration_that_is_never_sent_completely_ends() {
    let alone = alone().await;
    let key = PrivateKey::generate().unwrap();
    let caller = write_token(&alone.member, &key).await;
    let channel = dial(&alone.member, &key, key.public(), caller)
        .await
        .unwrap();
    let request = http::Request::post("http://m/uc.v1.Join/Register")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(Unfinished))
        .unwrap();
    let registering = channel.oneshot(request);
    tokio::time::pause();
    let ended = tokio::time::timeout(Duration::from_secs(20), registering).await;
    tokio::time::resume();
    let answer = ended.expect("it ends").unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(code_of(status), Code::TimedOut);
    alone.member.stop().await;
}

/// A daemon of which no call to `Peer` ever ends.
#[derive(Debug, Clone)]
struct Hanging;

impl tonic::server::NamedService for Hanging {
    const NAME: &'static str = "uc.v1.Peer";
}

impl tower::Service<http::Request<tonic::body::Body>> for Hanging {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        std::future::pending()
    }
}

/// Has every call to the machine with this key hang.
pub(crate) fn hang(peers: &Peers, key: PublicKey) {
    let (server, links) = mpsc::channel(4);
    let serving = Server::builder()
        .add_service(Hanging)
        .serve_with_incoming(ReceiverStream::new(links).map(Ok::<_, io::Error>));
    tokio::spawn(serving);
    let channel = |traffic| link::in_memory(server.clone(), CancellationToken::new(), traffic);
    let channels = Channels {
        calls: channel(Traffic::Calls),
        bulk: channel(Traffic::Bulk),
    };
    peers.channels.lock().unwrap().insert(key, channels);
}

#[tokio::test]
async fn stream_is_sent_on_a_connection_on_which_the_machine_answers() {
    let key = PrivateKey::generate().unwrap();
    let (own_server, _links) = mpsc::channel(1);
    let (own_id, own_key) = (
        MachineId::from_bytes([0xa1; 16]),
        PrivateKey::generate().unwrap(),
    );
    let other = machine(record("b2", &key), &own_key);
    let peers = Peers::new(own_id, own_key, own_server);
    hang(&peers, key.public());
    let (server, mut links) = mpsc::channel::<Link>(4);
    tokio::spawn(async move {
        // As of a machine that lost power: the first connection ends when something is sent on it.
        let mut first = links.recv().await.unwrap();
        let _sent = first.read(&mut [0; 1]).await;
        drop(first);
        let links = ReceiverStream::new(links).map(Ok::<_, io::Error>);
        let serving = Server::builder().add_service(Hanging);
        serving.serve_with_incoming(links).await
    });
    let bulk = link::in_memory(server, CancellationToken::new(), Traffic::Bulk);
    let key = key.public();
    peers.channels.lock().unwrap().get_mut(&key).unwrap().bulk = bulk;
    let loaded = peers
        .machine(&other)
        .load_image(tokio_stream::empty())
        .await;
    // The server answers that it does not have the call. A connection that ended has no such
    // answer.
    let failure = loaded.unwrap_err();
    assert_eq!(failure.code, Code::Version, "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn reset_that_is_never_answered_is_given_up_soon() {
    let key = PrivateKey::generate().unwrap();
    let (own_server, _links) = mpsc::channel(1);
    let (own_id, own_key) = (
        MachineId::from_bytes([0xa1; 16]),
        PrivateKey::generate().unwrap(),
    );
    let other = machine(record("b2", &key), &own_key);
    let peers = Peers::new(own_id, own_key, own_server);
    hang(&peers, key.public());
    let started = tokio::time::Instant::now();
    let reset = peers.machine(&other).reset().await;
    assert_eq!(reset.unwrap_err().code, Code::TimedOut);
    assert!(started.elapsed() <= Duration::from_secs(60));
}

#[tokio::test]
async fn connection_of_a_removed_machine_ends_with_its_streams() {
    let alone = alone().await;
    let key = PrivateKey::generate().unwrap();
    let machine = record("b2", &key);
    let write = put(records::MACHINE, machine.id.clone(), &machine);
    alone.member.write(vec![write]).await.unwrap();
    let caller = Caller::Member {
        id: machine.id.parse().unwrap(),
        key: key.public(),
    };
    let channel = dial(&alone.member, &key, key.public(), caller)
        .await
        .unwrap();
    let mut peer = PeerClient::new(channel);
    let frames = peer.exchange(tokio_stream::pending()).await.unwrap();
    let mut frames = frames.into_inner();
    alone.member.peers.end_links(|_| true);
    peer.examine(PeerExamineRequest {}).await.unwrap();
    alone.member.peers.end_links(|_| false);
    while let Ok(Some(_)) = frames.message().await {}
    peer.examine(PeerExamineRequest {}).await.unwrap_err();
    alone.member.stop().await;
}

#[tokio::test]
async fn own_daemon_is_called_through_memory() {
    let alone = alone().await;
    let own = Arc::clone(alone.member.cluster().own().unwrap());
    let remote = alone.member.peers.machine(&own);
    let examined = remote.examine().await.unwrap();
    assert_eq!(examined.uc_version, VERSION);
    alone.member.stop().await;
}
