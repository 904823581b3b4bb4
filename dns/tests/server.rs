//! The server over loopback, queried by hickory-resolver, by `dig`, and by hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uc_api::MachineId;
use uc_dns::{
    DnsError, Limits, MachineState, ReplicaHealth, Server, ServerConfig, Zone, ZoneInput,
    ZoneMachine, ZoneReplica,
};

const PATIENCE: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    zone: watch::Sender<Arc<Zone>>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

async fn start(zone: Zone, upstreams: Vec<SocketAddr>, limits: Limits) -> Running {
    let mut tries = 0;
    // A port that was free for UDP can be taken for TCP by a concurrent test. In that case, try
    // another one.
    let server = loop {
        let (upstreams, limits) = (upstreams.clone(), limits.clone());
        match Server::bind(ServerConfig {
            listen: vec![loopback()],
            upstreams,
            limits,
        })
        .await
        {
            Err(DnsError::Bind { .. }) if tries < 20 => tries += 1,
            bound => break bound.unwrap(),
        }
    };
    let address = server.addresses()[0];
    let (zone, receiver) = watch::channel(Arc::new(zone));
    let cancel = CancellationToken::new();
    let task = tokio::spawn(server.run(receiver, cancel.clone()));
    Running {
        address,
        zone,
        cancel,
        task,
    }
}

impl Running {
    async fn stop(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// A zone with one machine and one service `web` of the project.
fn zone(project: &str, replicas: u8) -> Zone {
    let id = MachineId::from_bytes([1; 16]);
    let replica = |host| ZoneReplica {
        project: project.parse().unwrap(),
        service: "web".parse().unwrap(),
        machine_id: id,
        ip: Ipv4Addr::new(10, 210, 1, host),
        running: true,
        health: ReplicaHealth::Healthy,
        draining: false,
    };
    Zone::build(&ZoneInput {
        local_machine: Some(id),
        machines: vec![ZoneMachine {
            id,
            name: Some("m1".parse().unwrap()),
            ipv4: Ipv4Addr::new(10, 210, 1, 1),
            state: MachineState::Up,
        }],
        services: vec![],
        aliases: vec![],
        elsewhere: vec![],
        replicas: (2..replicas + 2).map(replica).collect(),
    })
}

fn resolver(server: SocketAddr, tcp: bool) -> TokioResolver {
    let mut connection = if tcp {
        ConnectionConfig::tcp()
    } else {
        ConnectionConfig::udp()
    };
    connection.port = server.port();
    let name_server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec![], vec![name_server]);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.attempts = 0;
    options.timeout = PATIENCE;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .unwrap()
}

async fn lookup(server: SocketAddr, tcp: bool, name: &str) -> Result<Vec<IpAddr>, String> {
    resolver(server, tcp)
        .lookup_ip(name)
        .await
        .map(|found| found.iter().collect())
        .map_err(|error| error.to_string())
}

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask_udp(server: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = [0; 4096];
    let length = timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .expect("no answer")
        .unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn send_query(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(bytes).await.unwrap();
}

async fn read_answer(stream: &mut TcpStream) -> Message {
    let length = timeout(PATIENCE, stream.read_u16())
        .await
        .expect("no answer")
        .unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

/// An address that never answers and never refuses: the socket is kept open and never read.
async fn silence() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn hickory_resolves_our_names_over_udp_and_tcp() {
    let server = start(zone("shop", 3), vec![], Limits::default()).await;
    let all: HashSet<IpAddr> = (2..5)
        .map(|host| IpAddr::from([10, 210, 1, host]))
        .collect();
    for tcp in [false, true] {
        for name in [
            "web.shop.internal.",
            "WEB.internal.",
            "nearest.web.shop.internal.",
            "m1.m.web.shop.internal.",
        ] {
            let found = lookup(server.address, tcp, name).await.unwrap();
            assert_eq!(found.into_iter().collect::<HashSet<_>>(), all, "{name}");
        }
        assert_eq!(
            lookup(server.address, tcp, "m1.machine.internal.")
                .await
                .unwrap(),
            [IpAddr::from([10, 210, 1, 1])]
        );
        let error = resolver(server.address, tcp)
            .ipv4_lookup("missing.internal.")
            .await
            .unwrap_err();
        assert!(error.is_nx_domain(), "{error}");
        let error = resolver(server.address, tcp)
            .ipv6_lookup("web.shop.internal.")
            .await
            .unwrap_err();
        assert!(
            error.is_no_records_found() && !error.is_nx_domain(),
            "{error}"
        );
        let names = resolver(server.address, tcp)
            .reverse_lookup(IpAddr::from([10, 210, 1, 3]))
            .await
            .unwrap();
        let names: Vec<String> = names
            .answers()
            .iter()
            .map(|record| record.data.to_string())
            .collect();
        assert_eq!(names, ["web.shop.internal."]);
    }
    server.stop().await;
}

#[tokio::test]
async fn server_answers_from_new_zone_immediately() {
    let server = start(zone("shop", 1), vec![], Limits::default()).await;
    assert_eq!(
        lookup(server.address, false, "web.shop.internal.")
            .await
            .unwrap()
            .len(),
        1
    );
    server.zone.send_replace(Arc::new(zone("shop", 2)));
    assert_eq!(
        lookup(server.address, false, "web.shop.internal.")
            .await
            .unwrap()
            .len(),
        2
    );
    server.zone.send_replace(Arc::new(zone("blog", 1)));
    assert!(
        lookup(server.address, false, "web.shop.internal.")
            .await
            .is_err()
    );
    server.stop().await;
}

#[tokio::test]
async fn server_truncates_long_answer_over_udp_but_not_tcp() {
    let server = start(zone("shop", 60), vec![], Limits::default()).await;
    let message = ask_udp(
        server.address,
        &question(1, "web.shop.internal.", RecordType::A),
    )
    .await;
    assert!(message.metadata.truncation);
    assert_eq!(message.answers.len(), 29);
    // Two queries at the same time on one connection.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_query(
        &mut stream,
        &question(2, "web.shop.internal.", RecordType::A),
    )
    .await;
    send_query(
        &mut stream,
        &question(3, "m1.machine.internal.", RecordType::A),
    )
    .await;
    let message = read_answer(&mut stream).await;
    assert_eq!(
        (
            message.metadata.id,
            message.answers.len(),
            message.metadata.truncation
        ),
        (2, 60, false)
    );
    assert_eq!(read_answer(&mut stream).await.metadata.id, 3);
    server.stop().await;
}

#[tokio::test]
async fn server_forwards_names_outside_the_zone() {
    // The upstream is a second server. It has the same domain, so it is asked for reverse names of
    // its own network.
    let upstream = start(zone("shop", 60), vec![], Limits::default()).await;
    let server = start(Zone::default(), vec![upstream.address], Limits::default()).await;
    let reverse = question(77, "5.1.210.10.in-addr.arpa.", RecordType::PTR);
    for _ in 0..2 {
        let message = ask_udp(server.address, &reverse).await;
        assert_eq!(message.metadata.id, 77);
        assert_eq!(message.answers[0].data.to_string(), "web.shop.internal.");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_query(
        &mut stream,
        &question(78, "5.1.210.10.in-addr.arpa.", RecordType::PTR),
    )
    .await;
    assert_eq!(read_answer(&mut stream).await.answers.len(), 1);
    // A name under our domain is never forwarded, even if the upstream has it.
    let message = ask_udp(
        server.address,
        &question(79, "web.shop.internal.", RecordType::A),
    )
    .await;
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(message.authorities.len(), 1);
    server.stop().await;
    upstream.stop().await;
}

#[tokio::test]
async fn server_answers_from_cache_without_upstream() {
    let upstream = UdpSocket::bind(loopback()).await.unwrap();
    let limits = Limits {
        upstream_patience: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = start(
        Zone::default(),
        vec![upstream.local_addr().unwrap()],
        limits,
    )
    .await;
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = upstream.recv_from(&mut buffer).await.unwrap();
        let mut response = buffer[..length].to_vec();
        response[2] |= 0x80;
        response[7] = 1;
        response.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07");
        // First a forged answer with another id, then one with another question. Neither must be
        // accepted.
        for at in [0, 14] {
            let mut lie = response.clone();
            lie[at] ^= 0x01;
            upstream.send_to(&lie, from).await.unwrap();
        }
        upstream.send_to(&response, from).await.unwrap();
    });
    for id in [5, 6] {
        let message = ask_udp(
            server.address,
            &question(id, "kept.example.", RecordType::A),
        )
        .await;
        assert_eq!(
            (message.metadata.id, message.answers[0].data.to_string()),
            (id, "192.0.2.7".to_owned())
        );
    }
    answering.await.unwrap();
    let message = ask_udp(
        server.address,
        &question(7, "other.example.", RecordType::A),
    )
    .await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    server.stop().await;
}

#[tokio::test]
async fn server_asks_next_resolver_after_silence_or_refusal() {
    let (_socket, silent) = silence().await;
    let refusing = start(Zone::default(), vec![], Limits::default()).await;
    let good = start(zone("shop", 1), vec![], Limits::default()).await;
    let limits = Limits {
        upstream_patience: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(
        Zone::default(),
        vec![silent, refusing.address, good.address],
        limits,
    )
    .await;
    let message = ask_udp(
        server.address,
        &question(1, "1.1.210.10.in-addr.arpa.", RecordType::PTR),
    )
    .await;
    assert_eq!(message.answers[0].data.to_string(), "m1.machine.internal.");
    for running in [server, refusing, good] {
        running.stop().await;
    }
}

#[tokio::test]
async fn server_refuses_to_forward_for_client_with_own_resolvers() {
    let upstream = start(zone("outside", 3), vec![], Limits::default()).await;
    let own = Zone::build(&ZoneInput {
        elsewhere: vec![Ipv4Addr::LOCALHOST],
        ..ZoneInput::default()
    });
    let server = start(own, vec![upstream.address], Limits::default()).await;
    let ours = ask_udp(
        server.address,
        &question(1, "web.shop.internal", RecordType::A),
    )
    .await;
    assert_eq!(ours.metadata.response_code, ResponseCode::NXDomain);
    let others = question(2, "example.com", RecordType::A);
    assert_eq!(
        ask_udp(server.address, &others)
            .await
            .metadata
            .response_code,
        ResponseCode::Refused
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_query(&mut stream, &others).await;
    assert_eq!(
        read_answer(&mut stream).await.metadata.response_code,
        ResponseCode::Refused
    );
    server.stop().await;
    upstream.stop().await;
}

#[tokio::test]
async fn server_answers_servfail_in_time_with_dead_resolvers() {
    let (_one, first) = silence().await;
    let (_two, second) = silence().await;
    let limits = Limits {
        upstream_patience: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(zone("shop", 1), vec![first, second], limits).await;
    let begin = Instant::now();
    let message = ask_udp(server.address, &question(1, "example.org.", RecordType::A)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert!(
        begin.elapsed() >= Duration::from_millis(600),
        "{:?}",
        begin.elapsed()
    );
    // Our own names do not wait behind forwarded ones.
    for number in 0..100 {
        let socket = UdpSocket::bind(loopback()).await.unwrap();
        socket
            .send_to(
                &question(number, "example.org.", RecordType::A),
                server.address,
            )
            .await
            .unwrap();
    }
    assert_eq!(
        lookup(server.address, false, "web.shop.internal.")
            .await
            .unwrap()
            .len(),
        1
    );
    server.stop().await;
}

#[tokio::test]
async fn server_declines_queries_over_the_forwarding_limit() {
    let (_socket, silent) = silence().await;
    let limits = Limits {
        forwarded: 2,
        upstream_patience: Duration::from_mins(1),
        ..Limits::default()
    };
    let server = start(Zone::default(), vec![silent], limits).await;
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    socket.connect(server.address).await.unwrap();
    for id in 0..5 {
        socket
            .send(&question(id, "example.org.", RecordType::A))
            .await
            .unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..3 {
        let length = timeout(PATIENCE, socket.recv(&mut buffer))
            .await
            .expect("three are declined")
            .unwrap();
        assert_eq!(
            Message::from_vec(&buffer[..length])
                .unwrap()
                .metadata
                .response_code,
            ResponseCode::ServFail
        );
    }
    // Two queries are still waiting. They must not delay the server's end.
    server.stop().await;
}

#[tokio::test]
async fn server_never_forwards_to_itself() {
    // Other tests take the ports of 127.0.0.1 as soon as they are free, so this one uses its own
    // address.
    let own = SocketAddr::from(([127, 53, 0, 1], 0));
    let first = Server::bind(ServerConfig {
        listen: vec![own],
        ..ServerConfig::default()
    })
    .await
    .unwrap();
    let address = first.addresses()[0];
    drop(first);
    let config = ServerConfig {
        listen: vec![address],
        upstreams: vec![address],
        limits: Limits {
            upstream_patience: Duration::from_mins(1),
            ..Limits::default()
        },
    };
    let server = Server::bind(config).await.unwrap();
    let (_zone, receiver) = watch::channel(Arc::new(Zone::default()));
    let cancel = CancellationToken::new();
    let task = tokio::spawn(server.run(receiver, cancel.clone()));
    let message = ask_udp(address, &question(1, "example.org.", RecordType::A)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    cancel.cancel();
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn server_survives_garbage() {
    let server = start(zone("shop", 1), vec![], Limits::default()).await;
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    for length in 0..64_usize {
        let bytes: Vec<u8> = (0..length)
            .map(|index| (index * 37 + length * 11) as u8)
            .collect();
        socket.send_to(&bytes, server.address).await.unwrap();
    }
    socket.send_to(&[0; 9_000], server.address).await.unwrap();
    for bytes in [
        &b"\xff\xff"[..],
        b"\0\x05hello",
        b"\0\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("the connection was closed")
            .ok();
    }
    assert_eq!(
        lookup(server.address, false, "web.shop.internal.")
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        lookup(server.address, true, "web.shop.internal.")
            .await
            .unwrap()
            .len(),
        1
    );
    server.stop().await;
}

#[tokio::test]
async fn server_closes_silent_connection_to_make_room() {
    let limits = Limits {
        connections: 1,
        idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = start(zone("shop", 1), vec![], limits).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(
        lookup(server.address, true, "web.shop.internal.")
            .await
            .unwrap()
            .len(),
        1
    );
    let ended = timeout(PATIENCE, silent.read_u8())
        .await
        .expect("it was closed");
    assert!(ended.is_err());
    server.stop().await;
}

#[tokio::test]
async fn bind_error_explains_unavailable_address() {
    let bind = |listen: Vec<SocketAddr>| {
        Server::bind(ServerConfig {
            listen,
            ..ServerConfig::default()
        })
    };
    let taken = TcpListener::bind(loopback()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(vec![address]).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("(tcp)") && text.contains("ss -lnp"),
        "{text}"
    );

    let error = bind(vec!["192.0.2.200:53".parse().unwrap()])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("192.0.2.200 is not an address of this machine"),
        "{error}"
    );
    assert!(matches!(bind(vec![]).await, Err(DnsError::NoAddress)));
}

#[tokio::test]
async fn server_agrees_with_dig() {
    let found = std::process::Command::new("dig")
        .arg("-v")
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: dig is not installed (Debian: bind9-dnsutils)"
        );
        return;
    }
    let server = start(zone("shop", 40), vec![], Limits::default()).await;
    let dig = async |arguments: &[&str]| {
        let output = tokio::process::Command::new("dig")
            .args([
                "@127.0.0.1",
                "-p",
                &server.address.port().to_string(),
                "+time=5",
                "+tries=1",
            ])
            .args(arguments)
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // 40 addresses do not fit in 512 bytes, so dig automatically retries over TCP.
    for arguments in [
        &["web.shop.internal"][..],
        &["+noedns", "web.shop.internal"],
        &["+tcp", "WEB.shop.INTERNAL"],
    ] {
        let mut all = vec!["+short"];
        all.extend(arguments);
        let answer = dig(&all).await;
        let lines: HashSet<&str> = answer
            .lines()
            .filter(|line| line.parse::<Ipv4Addr>().is_ok())
            .collect();
        assert_eq!(lines.len(), 40, "{arguments:?}: {answer}");
    }
    let answer = dig(&["+noedns", "+ignore", "web.shop.internal"]).await;
    assert!(
        answer.contains("flags: qr aa tc rd ra; QUERY: 1, ANSWER: 29"),
        "{answer}"
    );
    let answer = dig(&["missing.internal", "AAAA"]).await;
    assert!(
        answer.contains("status: NXDOMAIN") && answer.contains("flags: qr aa rd ra"),
        "{answer}"
    );
    assert!(
        answer.contains(
            "internal.\t\t1\tIN\tSOA\tns.internal. hostmaster.internal. 1 3600 600 86400 1"
        ),
        "{answer}"
    );
    let answer = dig(&["web.shop.internal", "AAAA"]).await;
    assert!(
        answer.contains("status: NOERROR") && answer.contains("ANSWER: 0, AUTHORITY: 1"),
        "{answer}"
    );
    assert_eq!(
        dig(&["+short", "-x", "10.210.1.2"]).await,
        "web.shop.internal.\n"
    );
    let answer = dig(&["+edns=3", "+noednsneg", "web.shop.internal"]).await;
    assert!(answer.contains("status: BADVERS"), "{answer}");
    let answer = dig(&["+opcode=notify", "web.shop.internal"]).await;
    assert!(answer.contains("status: NOTIMP"), "{answer}");
    let answer = dig(&["-c", "CH", "web.shop.internal"]).await;
    assert!(answer.contains("status: REFUSED"), "{answer}");
    let answer = dig(&["+qr", "example.org"]).await;
    assert!(answer.contains("status: SERVFAIL"), "{answer}");
    assert!(
        !answer.contains("Warning") && !answer.contains("malformed"),
        "{answer}"
    );
    server.stop().await;
}
