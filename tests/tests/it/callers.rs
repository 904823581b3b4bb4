//! Only the daemons of the cluster reach the calls between daemons: no other user, container or
//! network of a machine does, whether or not the firewall's rules are there.

use std::fs::File;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_uid};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use uc_api::layout::PEER_API_PORT;
use uc_api::v1::{ObserveRequest, ObserveResponse};
use uc_mesh::{PrivateKey, PublicKey, management_address, noise};

use crate::cluster::{Cluster, on};

/// For a connection and its first answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Who tries: a user of one network namespace.
#[derive(Debug, Clone)]
struct Caller {
    what: &'static str,
    namespace: PathBuf,
    uid: u32,
}

/// How far a caller came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// No TCP connection.
    Nothing,
    /// A TCP connection, which was closed without an answer to any call.
    Port,
    /// A call was answered by the daemon.
    Call,
}

/// Every call between daemons, as `/uc.v1.Service/Method`, from the definitions of the protocol.
fn peer_calls() -> Vec<String> {
    let mut calls = Vec::new();
    for file in ["node.proto", "peer.proto"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../api/proto/uc/v1")
            .join(file);
        let text = std::fs::read_to_string(path).expect("a definition");
        let mut service = "";
        for line in text.lines() {
            let words: Vec<&str> = line.trim().split([' ', '(']).collect();
            match words.as_slice() {
                ["service", name, ..] => service = name,
                ["rpc", name, ..] => calls.push(format!("/uc.v1.{service}/{name}")),
                _ => {}
            }
        }
    }
    assert!(calls.len() > 15, "{calls:?}");
    calls
}

/// Runs `work` as the caller. The namespace and the user are those of a thread of its own.
fn as_caller<T: Send + 'static>(
    caller: &Caller,
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> T {
    let caller = caller.clone();
    let thread = std::thread::spawn(move || {
        let namespace = File::open(&caller.namespace).expect("a namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("entered");
        set_thread_uid(rustix::process::Uid::from_raw(caller.uid)).expect("another user");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work())
    });
    thread.join().expect("no panic")
}

async fn tcp(address: Ipv6Addr) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect(SocketAddr::new(address.into(), PEER_API_PORT));
    tokio::time::timeout(LIMIT, connecting).await?
}

/// A plain gRPC client, as anybody can write one.
async fn call(address: Ipv6Addr, path: &str) -> Reached {
    let Ok(stream) = tcp(address).await else {
        return Reached::Nothing;
    };
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::other("one connection is enough")) }
    });
    let endpoint = Endpoint::from_static("http://peer").timeout(LIMIT);
    let answered = match endpoint.connect_with_connector(connector).await {
        Ok(channel) => answer(channel, path).await,
        Err(_) => return Reached::Port,
    };
    match answered {
        // A closed connection. Everything else is the daemon's answer, a refusal included.
        Err(status)
            if matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Internal
            ) && status.details().is_empty() =>
        {
            Reached::Port
        }
        _ => Reached::Call,
    }
}

async fn answer(channel: Channel, path: &str) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<ObserveRequest, ObserveResponse> = ProstCodec::default();
    let path: PathAndQuery = path.parse().expect("a path");
    // An empty message is a valid request of each call.
    client
        .unary(Request::new(ObserveRequest {}), path, codec)
        .await
        .map(drop)
}

/// A client that knows the handshake, but not the key.
async fn handshake(address: Ipv6Addr, key: PublicKey) -> Reached {
    let Ok(stream) = tcp(address).await else {
        return Reached::Nothing;
    };
    let own = PrivateKey::generate().expect("a key");
    match tokio::time::timeout(LIMIT, noise::connect(stream, &own, &key)).await {
        Ok(Ok(_)) => Reached::Call,
        _ => Reached::Port,
    }
}

/// The most that a caller reaches by any means.
fn reached(caller: &Caller, key: PublicKey) -> Reached {
    let address = management_address(&key);
    // Read here: the caller can be a user who cannot read this repository.
    let calls = peer_calls();
    as_caller(caller, async move || {
        let mut most = handshake(address, key).await;
        for path in calls {
            most = most.max(call(address, &path).await);
            if most == Reached::Nothing {
                // The firewall answers the same for each call.
                break;
            }
        }
        most
    })
}

fn key_of(cluster: &Cluster, machine: &str) -> PublicKey {
    let socket = "--connect=unix:///run/uc/uc.sock";
    let script = format!("uc {socket} doctor >/dev/null; cat /var/lib/uc/machine.json");
    let text = cluster.machine(machine).sh(&script).expect("a machine");
    let identity: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let key: PrivateKey = identity["private_key"]
        .as_str()
        .and_then(|key| key.parse().ok())
        .expect("a key");
    key.public()
}

const SERVICES: &str = "
services:
  hosted:
    @busybox
    network_mode: host
    x-machines: m1
    command: sleep 100000
";

/// The callers on m1, and a container on a Docker network with IPv6 among them.
fn callers(cluster: &Cluster) -> Vec<Caller> {
    cluster.deploy("callers", SERVICES);
    let m1 = cluster.machine("m1");
    let hosted = on(&cluster.replicas("callers/hosted"), "m1")
        .container_id
        .clone();
    let pid_of = |container: &str| -> u32 {
        let script = format!("docker inspect --format '{{{{.State.Pid}}}}' {container}");
        let pid = m1.sh(&script).expect("a container");
        pid.trim().parse().expect("a number")
    };
    m1.sh(&format!(
        "docker rm -f callers-six >/dev/null 2>&1; docker network rm callers-six >/dev/null 2>&1
         set -e
         docker network create --ipv6 --subnet fd99:1:2:3::/64 callers-six
         docker run -d --name callers-six --network callers-six \
             $(docker inspect --format '{{{{.Config.Image}}}}' {hosted}) sleep 100000
         sysctl -qw net.ipv6.conf.all.forwarding=1
         ip6tables -t nat -A POSTROUTING -s fd99:1:2:3::/64 ! -d fd99:1:2:3::/64 -j MASQUERADE"
    ))
    .expect("a network with IPv6");
    let namespace = |pid| m1.network_namespace(pid).expect("a namespace");
    vec![
        Caller {
            what: "an unprivileged user",
            namespace: namespace(1),
            uid: 65534,
        },
        Caller {
            what: "an unprivileged user of a container on the host's network",
            namespace: namespace(pid_of(&hosted)),
            uid: 1000,
        },
        Caller {
            what: "root of a container on the host's network",
            namespace: namespace(pid_of(&hosted)),
            uid: 0,
        },
        Caller {
            what: "a container on a network with IPv6",
            namespace: namespace(pid_of("callers-six")),
            uid: 0,
        },
    ]
}

#[test]
fn no_process_but_the_daemon_reaches_a_call_between_daemons() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    let keys = ["m1", "m2"].map(|machine| (machine, key_of(&cluster, machine)));
    let callers = callers(&cluster);
    for (machine, key) in &keys {
        for caller in &callers {
            let what = caller.what;
            let found = reached(caller, *key);
            // Only root passes the rules of the firewall.
            let most = if what.starts_with("root") {
                Reached::Port
            } else {
                Reached::Nothing
            };
            assert!(found <= most, "{what} reached {found:?} of {machine}");
        }
    }
    // The proof of the key holds alone. The daemons add their rules again within half a minute, so
    // they are removed before each try.
    let mut opened = 0;
    for (machine, key) in &keys {
        for caller in &callers {
            for name in ["m1", "m2"] {
                let flush = "ip6tables -F && ip6tables -P FORWARD ACCEPT";
                cluster.machine(name).sh(flush).expect("flushed");
            }
            let found = reached(caller, *key);
            let what = caller.what;
            assert!(
                found < Reached::Call,
                "{what} reached {found:?} of {machine} without firewall"
            );
            opened += u32::from(found == Reached::Port);
        }
    }
    // Without the rules, most of them reach the port, and are refused there.
    assert!(opened >= 5, "{opened}");
    // In the meantime the daemons themselves have lost nothing.
    cluster
        .whole(crate::cluster::SOON)
        .expect("the daemons reach each other");
    cluster.deploy("callers", SERVICES);
    cluster
        .machine("m1")
        .sh("docker rm -f callers-six; docker network rm callers-six;
             ip6tables -t nat -D POSTROUTING -s fd99:1:2:3::/64 ! -d fd99:1:2:3::/64 -j MASQUERADE
             systemctl restart uc-mesh ucd")
        .expect("cleaned up");
    cluster
        .whole(crate::cluster::SOON)
        .expect("a whole cluster");
}
