//! Machines that reach each other, and what must not disturb them.

use std::time::Duration;

use rustix::process::Signal;
use uc_mesh::endpoint::Reach;
use uc_mesh::{MeshError, PeerConfig};

use crate::machine::{Lan, Machine, PORT};

const SOON: Duration = Duration::from_secs(12);

async fn connect(machines: &[&Machine]) {
    for machine in machines {
        let others = machines.iter().filter(|other| other.n != machine.n);
        machine
            .apply(&others.map(|other| other.as_peer()).collect::<Vec<_>>())
            .await;
    }
}

#[tokio::test]
async fn two_machines_reach_each_other_under_both_addresses() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    let took = a.must_reach(b.inside(), SOON).await;
    eprintln!("first answer after {took:?}");
    a.must_reach(b.management(), SOON).await;
    b.must_reach(a.inside(), SOON).await;
    b.must_reach(a.management(), SOON).await;

    let status = a.client().status().await.unwrap();
    assert_eq!(
        (status.interface.as_str(), status.listen_port),
        ("uc0", PORT)
    );
    assert_eq!(status.public_key, Some(a.public_key()));
    let peer = status.peer(&b.public_key()).unwrap();
    assert_eq!(peer.endpoint, Some(b.endpoint()));
    assert_eq!(peer.reach, Reach::Up);
    assert!(peer.latest_handshake.unwrap() < 20_000);
    assert!(peer.rx_bytes > 0 && peer.tx_bytes > 0);

    let link = a.ip("link show uc0");
    assert!(link.contains("mtu 1420") && link.contains("UP"), "{link}");
    let route = a.ip("route get 10.210.2.77");
    assert!(
        route.contains("dev uc0") && route.contains("src 10.210.1.1"),
        "{route}"
    );
    let route = a.ip(&format!("-6 route get {}", b.management()));
    assert!(
        route.contains(&format!("src {}", a.management())),
        "{route}"
    );
}

#[tokio::test]
async fn a_third_machine_comes_and_goes_and_the_first_two_lose_no_packet() {
    let Some(lan) = Lan::new() else { return };
    let (a, b, c) = (
        lan.machine(1).await,
        lan.machine(2).await,
        lan.machine(3).await,
    );
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    b.must_reach(a.management(), SOON).await;
    assert!(!a.reaches(c.inside()), "the third is not there yet");
    let pinging = [a.keep_pinging(b.inside()), b.keep_pinging(a.management())];

    connect(&[&a, &b, &c]).await;
    for (from, to) in [(&a, &c), (&b, &c), (&c, &a), (&c, &b)] {
        from.must_reach(to.inside(), SOON).await;
    }
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        connect(&[&c, &b, &a]).await;
    }
    a.apply(&[b.as_peer()]).await;
    assert!(!a.reaches(c.inside()), "the third was removed");
    assert!(
        a.ip("route")
            .lines()
            .all(|line| !line.starts_with("10.210.3.0/24"))
    );
    b.must_reach(c.inside(), SOON).await;
    connect(&[&a, &b]).await;
    assert!(!b.reaches(c.management()));

    for pinging in pinging {
        let (sent, answered) = pinging.stop();
        assert!(sent > 50, "only {sent} pings sent");
        assert_eq!(answered, sent, "pings were lost");
    }
}

#[tokio::test]
async fn a_peer_that_changes_keeps_its_session() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    let pinging = a.keep_pinging(b.inside());
    let mut peer = b.as_peer();
    for n in 100..110 {
        peer.allowed_ips
            .push(format!("10.210.{n}.0/24").parse().unwrap());
        peer.keepalive_s = n;
        a.apply(&[peer.clone()]).await;
    }
    assert!(a.ip("route get 10.210.109.5").contains("dev uc0"));
    a.apply(&[b.as_peer()]).await;
    assert!(!a.ip("route").contains("10.210.109.0/24"));
    let (sent, answered) = pinging.stop();
    assert_eq!(answered, sent, "pings were lost");
}

#[tokio::test]
async fn the_process_restores_its_configuration_and_cleans_up() {
    let Some(lan) = Lan::new() else { return };
    let (mut a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    assert!(a.stop(Signal::TERM), "it ends in success: {}", a.stderr());
    assert!(!a.has_interface(), "the interface is gone");
    assert!(!a.directory.path().join("mesh.sock").exists());

    // Nobody applies anything: what is on disk is enough.
    a.start().await;
    a.must_reach(b.inside(), SOON).await;
    assert!(!a.stop(Signal::KILL));
    a.start().await;
    a.must_reach(b.inside(), SOON).await;
    b.must_reach(a.management(), SOON).await;
}

#[tokio::test]
async fn the_second_endpoint_is_tried_when_the_first_is_wrong() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    b.apply(&[PeerConfig {
        endpoints: Vec::new(),
        ..a.as_peer()
    }])
    .await;
    let endpoints = vec!["192.168.77.99:51820".parse().unwrap(), b.endpoint()];
    a.apply(&[PeerConfig {
        endpoints,
        ..b.as_peer()
    }])
    .await;
    let took = a.must_reach(b.inside(), Duration::from_secs(25)).await;
    assert!(
        took > Duration::from_secs(10),
        "the first endpoint had its 15 s, not {took:?}"
    );
    let status = a.client().status().await.unwrap();
    assert_eq!(
        status.peer(&b.public_key()).unwrap().endpoint,
        Some(b.endpoint())
    );
    let status = b.client().status().await.unwrap();
    assert_eq!(
        status.peer(&a.public_key()).unwrap().endpoint,
        Some(a.endpoint()),
        "learned from a's packets"
    );
}

#[tokio::test]
async fn a_machine_that_moved_is_followed_and_stays_followed() {
    let Some(lan) = Lan::new() else { return };
    let (mut a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    b.ip("addr del 192.168.77.2/24 dev eth0");
    b.ip("addr add 192.168.77.22/24 dev eth0");
    b.must_reach(a.inside(), SOON).await;
    let moved = Some("192.168.77.22:51820".parse().unwrap());
    let endpoint = async |a: &Machine| {
        a.client()
            .status()
            .await
            .unwrap()
            .peer(&b.public_key())
            .unwrap()
            .endpoint
    };
    assert_eq!(endpoint(&a).await, moved);

    // The configuration still says otherwise; what works is kept.
    let pinging = a.keep_pinging(b.inside());
    for _ in 0..5 {
        a.apply(&[b.as_peer()]).await;
    }
    let (sent, answered) = pinging.stop();
    assert_eq!((answered, endpoint(&a).await), (sent, moved));

    // Nor does a restart forget it.
    assert!(a.stop(Signal::TERM));
    a.start().await;
    a.must_reach(b.inside(), SOON).await;
    assert_eq!(endpoint(&a).await, moved);
}

#[tokio::test]
async fn an_interface_taken_away_ends_the_process_and_the_next_one_restores_it() {
    let Some(lan) = Lan::new() else { return };
    let (mut a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    a.ip("link del uc0");
    assert!(!a.ended().await, "it ends with an error");
    assert!(
        a.stderr().contains("interface uc0 stopped working"),
        "{}",
        a.stderr()
    );
    a.start().await;
    a.must_reach(b.inside(), SOON).await;
}

#[tokio::test]
async fn what_others_removed_is_repaired_by_applying_again() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    a.ip("route del 10.210.2.0/24");
    a.ip("addr del 10.210.1.1/32 dev uc0");
    a.ip("link set uc0 mtu 1300");
    a.ip("route add 10.77.0.0/24 dev uc0");
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;
    assert!(a.ip("link show uc0").contains("mtu 1420"));
    assert!(a.ip("route get 10.210.2.9").contains("src 10.210.1.1"));
    assert!(
        a.ip("route").contains("10.77.0.0/24"),
        "a route that is not ours is left alone"
    );
}

#[tokio::test]
async fn ipv6_switched_off_for_new_interfaces_does_no_harm() {
    let Some(lan) = Lan::new() else { return };
    let (mut a, b) = (lan.bare_machine(1), lan.machine(2).await);
    for name in ["all", "default"] {
        let setting = format!("net/ipv6/conf/{name}/disable_ipv6");
        let command = format!("echo 1 > /proc/sys/{setting}");
        assert!(
            a.command("sh")
                .args(["-c", &command])
                .status()
                .unwrap()
                .success()
        );
    }
    a.start().await;
    connect(&[&a, &b]).await;
    a.must_reach(b.management(), SOON).await;
}

#[tokio::test]
async fn a_peer_that_claims_our_own_subnet_does_not_get_it() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    a.ip("link add br-uc type bridge");
    a.ip("link set br-uc up");
    a.ip("addr add 10.210.1.1/24 dev br-uc");
    let mut peer = b.as_peer();
    peer.allowed_ips.push("10.210.1.0/24".parse().unwrap());
    a.apply(&[peer]).await;
    assert!(a.ip("route get 10.210.1.5").contains("dev br-uc"));
    // The machine's own address is on both interfaces; without the bridge the mesh still has it.
    b.apply(&[a.as_peer()]).await;
    a.ip("link del br-uc");
    b.must_reach(a.inside(), SOON).await;
    a.must_reach(b.inside(), SOON).await;
}

#[tokio::test]
async fn a_new_address_a_new_port_and_a_new_key() {
    let Some(lan) = Lan::new() else { return };
    let (mut a, b) = (lan.machine(1).await, lan.machine(2).await);
    connect(&[&a, &b]).await;
    a.must_reach(b.inside(), SOON).await;

    // Renumbered: the routes follow.
    let mut config = a.config(&[b.as_peer()]);
    config.addresses[0] = "10.210.5.1/32".parse().unwrap();
    a.client().apply(&config).await.unwrap();
    assert!(a.ip("route get 10.210.2.1").contains("src 10.210.5.1"));
    assert!(!a.ip("addr show uc0").contains("10.210.1.1"));

    // Another port: the peer learns it.
    config.addresses[0] = "10.210.1.1/32".parse().unwrap();
    config.listen_port = 40_000;
    a.client().apply(&config).await.unwrap();
    a.must_reach(b.inside(), SOON).await;
    let learned = b
        .client()
        .status()
        .await
        .unwrap()
        .peer(&a.public_key())
        .unwrap()
        .endpoint;
    assert_eq!(learned, Some("192.168.77.1:40000".parse().unwrap()));

    // A port that is taken: refused, and nothing is lost.
    let mut other = lan.second_process_on(&a);
    other.start().await;
    let mut taken = other.config(&[]);
    (taken.interface, taken.listen_port) = ("uc1".to_owned(), 40_001);
    other.client().apply(&taken).await.unwrap();
    config.listen_port = 40_001;
    let error = a.client().apply(&config).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot listen on UDP port 40001"),
        "{error}"
    );
    a.must_reach(b.inside(), SOON).await;
    taken.listen_port = 40_000;
    let error = other.client().apply(&taken).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot listen on UDP port 40000"),
        "{error}"
    );

    // Another key is another machine.
    a.key = uc_mesh::PrivateKey::generate().unwrap();
    connect(&[&a, &b]).await;
    a.must_reach(b.management(), SOON).await;
    b.must_reach(a.management(), SOON).await;
}

#[tokio::test]
async fn an_interface_that_is_taken_is_a_clear_error() {
    let Some(lan) = Lan::new() else { return };
    let a = lan.machine(1).await;
    a.ip("link add uc0 type bridge");
    let error = a.client().apply(&a.config(&[])).await.unwrap_err();
    assert!(matches!(error, MeshError::Refused(_)), "{error}");
    assert!(
        error.to_string().contains("cannot open interface uc0"),
        "{error}"
    );
    a.ip("link del uc0");
    a.client().apply(&a.config(&[])).await.unwrap();
    assert!(a.has_interface());
}

#[tokio::test]
async fn a_thousand_peers_are_applied_and_the_one_that_is_there_is_reached() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.machine(1).await, lan.machine(2).await);
    b.apply(&[a.as_peer()]).await;
    // They are somewhere behind a router that swallows everything. (On the same link, unanswered
    // ARP would fill the socket's buffer.)
    a.ip("route add default via 192.168.77.2");
    let absent = (0..1000_u16).map(|n| PeerConfig {
        public_key: uc_mesh::PrivateKey::generate().unwrap().public(),
        endpoints: vec![
            format!("198.51.100.{}:{}", n % 250, 50_000 + n)
                .parse()
                .unwrap(),
        ],
        allowed_ips: vec![
            format!("10.{}.{}.0/24", 220 + n / 250, n % 250)
                .parse()
                .unwrap(),
        ],
        keepalive_s: 25,
        guest: false,
    });
    let mut peers: Vec<_> = absent.collect();
    peers.push(b.as_peer());
    let start = std::time::Instant::now();
    a.apply(&peers).await;
    let first = start.elapsed();
    a.must_reach(b.inside(), SOON).await;
    let start = std::time::Instant::now();
    a.apply(&peers).await;
    eprintln!("applied in {first:?}, again in {:?}", start.elapsed());
    assert_eq!(a.client().status().await.unwrap().peers.len(), 1001);
    assert!(a.ip("route get 10.223.249.7").contains("dev uc0"));
    let pinging = a.keep_pinging(b.inside());
    a.apply(&peers[900..]).await;
    a.apply(&peers).await;
    let (sent, answered) = pinging.stop();
    assert_eq!(answered, sent, "pings were lost");
}
