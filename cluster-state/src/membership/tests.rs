use std::time::Instant;

use super::*;

mod forgery;

struct Node {
    membership: Membership,
    cancel: CancellationToken,
    address: SocketAddr,
}

fn machine(n: u8) -> MachineId {
    MachineId([n; 16])
}

/// The key of two machines, from a secret that only these tests have.
pub(super) fn pair_key(a: MachineId, b: MachineId) -> PairKey {
    let mut hasher = blake3::Hasher::new_derive_key("uc tests of membership");
    hasher.update(&a.min(b).0).update(&a.max(b).0);
    PairKey::from_bytes(*hasher.finalize().as_bytes())
}

/// What machine `me` knows of other machines.
fn peers<const N: usize>(me: u8, others: [(u8, SocketAddr); N]) -> BTreeMap<MachineId, Peer> {
    others
        .into_iter()
        .map(|(n, address)| {
            let key = pair_key(machine(me), machine(n));
            (machine(n), Peer { address, key })
        })
        .collect()
}

async fn start(n: u8, incarnation: u64, address: &str) -> Node {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let membership = Membership::start(socket, machine(n), incarnation, cancel.clone()).unwrap();
    Node {
        membership,
        cancel,
        address,
    }
}

/// Ends the task without a goodbye, as a killed process does.
fn kill(node: &Aborting) {
    node.runtime.abort();
}

/// A member whose task can be killed.
struct Aborting {
    runtime: tokio::task::JoinHandle<()>,
    address: SocketAddr,
}

async fn start_mortal(
    n: u8,
    incarnation: u64,
    address: &str,
    peers: BTreeMap<MachineId, Peer>,
) -> Aborting {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    let (send, commands) = mpsc::channel(COMMANDS);
    let (publish, _) = watch::channel(BTreeMap::new());
    let me = identity::Identity {
        machine: machine(n),
        incarnation,
        renewal: 0,
        address,
    };
    send.send(peers).await.unwrap();
    let driver = driver::Driver::new(socket, me, publish, seal::FORGET_AFTER);
    let runtime = tokio::spawn(driver::run(driver, commands, CancellationToken::new()));
    Aborting { runtime, address }
}

async fn until(node: &Node, n: u8, wanted: Liveness, within: Duration) -> Duration {
    let started = Instant::now();
    let mut liveness = node.membership.liveness();
    let wait = liveness.wait_for(|all| all.get(&machine(n)) == Some(&wanted));
    let outcome = tokio::time::timeout(within, wait).await;
    assert!(outcome.is_ok(), "{n} is not {wanted:?} after {within:?}");
    started.elapsed()
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn membership_reports_killed_machine_suspect_down_and_up_again() {
    let (a, b) = (
        start(1, 1, "127.0.0.1:0").await,
        start(2, 1, "127.0.0.1:0").await,
    );
    let ab = peers(3, [(1, a.address), (2, b.address)]);
    let c = start_mortal(3, 1, "127.0.0.1:0", ab.clone()).await;
    let all = [(1, a.address), (2, b.address), (3, c.address)];
    a.membership.set_peers(peers(1, all)).await;
    b.membership.set_peers(peers(2, all)).await;
    until(&a, 3, Liveness::Up, SOON).await;
    until(&b, 3, Liveness::Up, SOON).await;
    until(&a, 2, Liveness::Up, SOON).await;
    assert!(
        !a.membership.liveness().borrow().contains_key(&machine(1)),
        "not of itself"
    );

    kill(&c);
    let suspect = until(&a, 3, Liveness::Suspect, Duration::from_secs(5)).await;
    let down = suspect + until(&a, 3, Liveness::Down, Duration::from_secs(8)).await;
    println!("killed: suspect after {suspect:?}, down after {down:?}");
    assert!(down <= Duration::from_secs(8), "{down:?}");
    until(&b, 3, Liveness::Down, SOON).await;
    assert_eq!(
        a.membership.liveness().borrow().get(&machine(2)),
        Some(&Liveness::Up)
    );

    // The socket is free once the task has ended.
    assert!(c.runtime.await.unwrap_err().is_cancelled());
    let _again = start_mortal(3, 2, &c.address.to_string(), ab).await;
    let up = until(&a, 3, Liveness::Up, SOON).await;
    println!("restarted: up after {up:?}");
    until(&b, 3, Liveness::Up, SOON).await;
}

#[tokio::test]
async fn membership_reports_leaving_machine_down_immediately() {
    let (a, b) = (
        start(1, 1, "127.0.0.1:0").await,
        start(2, 1, "127.0.0.1:0").await,
    );
    a.membership.set_peers(peers(1, [(2, b.address)])).await;
    b.membership.set_peers(peers(2, [(1, a.address)])).await;
    until(&a, 2, Liveness::Up, SOON).await;
    until(&b, 1, Liveness::Up, SOON).await;
    b.cancel.cancel();
    let down = until(&a, 2, Liveness::Down, SOON).await;
    assert!(down < Duration::from_secs(2), "{down:?}");
}

#[tokio::test]
async fn membership_accepts_restart_with_same_or_lower_incarnation() {
    // It is down only after this time anyway.
    let a = start_forgetful(1, Duration::from_secs(4)).await;
    let list = peers(2, [(1, a.address)]);
    let mut running = start_mortal(2, 50, "127.0.0.1:0", list.clone()).await;
    a.membership
        .set_peers(peers(1, [(2, running.address)]))
        .await;
    until(&a, 2, Liveness::Up, SOON).await;
    // A store restored from a copy was started fewer times.
    for incarnation in [50, 41] {
        kill(&running);
        let address = running.address.to_string();
        assert!(running.runtime.await.unwrap_err().is_cancelled());
        until(&a, 2, Liveness::Down, Duration::from_secs(12)).await;
        running = start_mortal(2, incarnation, &address, list.clone()).await;
        until(&a, 2, Liveness::Up, SOON).await;
    }
}

/// Forwards datagrams until it is cut.
async fn forward(to: SocketAddr, cut: watch::Receiver<bool>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 2_000];
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            if !*cut.borrow() {
                socket.send_to(&buffer[..length], to).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn membership_recovers_when_the_partition_heals() {
    let (a, b) = (
        start(1, 1, "127.0.0.1:0").await,
        start(2, 1, "127.0.0.1:0").await,
    );
    let (cut, partition) = watch::channel(false);
    a.membership
        .set_peers(peers(1, [(2, forward(b.address, partition.clone()).await)]))
        .await;
    b.membership
        .set_peers(peers(2, [(1, forward(a.address, partition).await)]))
        .await;
    until(&a, 2, Liveness::Up, SOON).await;
    until(&b, 1, Liveness::Up, SOON).await;
    cut.send_replace(true);
    until(&a, 2, Liveness::Down, SOON).await;
    until(&b, 1, Liveness::Down, SOON).await;
    cut.send_replace(false);
    until(&a, 2, Liveness::Up, SOON).await;
    until(&b, 1, Liveness::Up, SOON).await;
}

fn member(n: u16, incarnation: u64, address: SocketAddr) -> identity::Identity {
    let [high, low] = n.to_be_bytes();
    let mut machine = machine(low);
    machine.0[0] ^= high;
    identity::Identity {
        machine,
        incarnation,
        renewal: 0,
        address,
    }
}

/// A driver that does not run yet.
async fn idle(
    me: identity::Identity,
    forget_after: Duration,
) -> (
    driver::Driver,
    watch::Receiver<BTreeMap<MachineId, Liveness>>,
    SocketAddr,
) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (publish, liveness) = watch::channel(BTreeMap::new());
    let me = identity::Identity { address, ..me };
    (
        driver::Driver::new(socket, me, publish, forget_after),
        liveness,
        address,
    )
}

const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

fn run(
    driver: driver::Driver,
    liveness: watch::Receiver<BTreeMap<MachineId, Liveness>>,
    address: SocketAddr,
) -> Node {
    let (peers, commands) = mpsc::channel(COMMANDS);
    let cancel = CancellationToken::new();
    tokio::spawn(driver::run(driver, commands, cancel.clone()));
    Node {
        membership: Membership { peers, liveness },
        cancel,
        address,
    }
}

/// Runs a driver that forgets the numbers of silent peers earlier.
async fn start_forgetful(n: u16, forget_after: Duration) -> Node {
    let (driver, liveness, address) = idle(member(n, 1, UNKNOWN), forget_after).await;
    run(driver, liveness, address)
}

/// Runs a driver that suspects one identity of the second machine.
async fn start_suspecting(incarnation: u64, second: SocketAddr) -> Node {
    let (mut driver, liveness, address) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    driver.believe(foca::Member::new(
        member(2, incarnation, second),
        0,
        foca::State::Suspect,
    ));
    let node = run(driver, liveness, address);
    node.membership.set_peers(peers(1, [(2, second)])).await;
    node
}

#[tokio::test]
async fn peers_that_are_down_get_no_announcement_for_each_change_of_other_records() {
    let (mut driver, _liveness, _) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    let at = |port: u16| peers(1, [(2, SocketAddr::from(([127, 0, 0, 1], port)))]);
    let mut announced = |peers| {
        driver.take_peers(peers);
        driver.take_datagrams().len()
    };
    assert_eq!(announced(at(1)), 1);
    assert_eq!(announced(at(1)), 0);
    assert_eq!(announced(at(2)), 1, "another address");
}

/// foca sends the news of a suspicion a limited number of times, and the suspect may never receive
/// it. Then it would never object, answer each probe, and stay a suspect forever.
#[tokio::test]
async fn membership_tells_uninformed_suspect_which_objects() {
    let b = start(2, 1, "127.0.0.1:0").await;
    let a = start_suspecting(1, b.address).await;
    b.membership.set_peers(peers(2, [(1, a.address)])).await;
    until(&b, 1, Liveness::Up, SOON).await;
    until(&a, 2, Liveness::Up, SOON).await;
}

/// The suspect ignores what is meant for its earlier identity, and it does not announce itself.
#[tokio::test]
async fn membership_finds_suspect_with_new_identity() {
    let (mut a, _, address_a) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    let (mut b, _, address_b) = idle(member(2, 5, UNKNOWN), seal::FORGET_AFTER).await;
    a.set_peers(&peers(1, [(2, address_b)]));
    b.set_peers(&peers(2, [(1, address_a)]));
    let earlier = member(2, 1, address_b);
    a.believe(foca::Member::new(earlier, 0, foca::State::Suspect));
    a.take_datagrams();
    let now = tokio::time::Instant::now();
    assert_eq!(a.view(now)[&machine(2)], Liveness::Suspect);
    a.see_to_suspects(now);
    for (to, datagram) in a.take_datagrams() {
        assert_eq!(to, machine(2));
        assert!(b.receive(&datagram.unwrap(), address_a, now));
    }
    for (to, datagram) in b.take_datagrams() {
        assert_eq!(to, machine(1));
        assert!(a.receive(&datagram.unwrap(), address_b, now));
    }
    assert_eq!(a.view(now)[&machine(2)], Liveness::Up);
}

#[tokio::test]
async fn membership_limits_members_that_tell_a_suspect() {
    let (mut driver, _, address) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    for n in 2..=1_000 {
        driver.believe(foca::Member::alive(member(n, 1, address)));
    }
    driver.believe(foca::Member::new(
        member(2, 1, address),
        0,
        foca::State::Suspect,
    ));
    driver.take_datagrams();
    let now = tokio::time::Instant::now();
    for _ in 0..1_000 {
        driver.see_to_suspects(now);
    }
    let told = driver.take_datagrams().len();
    assert!(
        (2..=48).contains(&told),
        "{told} datagrams; two each time, eight times in a thousand"
    );
    driver.see_to_suspects(now + Duration::from_secs(6));
    assert_eq!(driver.take_datagrams().len(), 2);
}

/// foca also does not guarantee that every member hears that a suspect is down.
#[tokio::test]
async fn membership_declares_silent_suspect_down_without_gossip() {
    let (mut driver, _, nobody) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    let id = member(2, 1, nobody);
    driver.set_peers(&peers(1, [(2, nobody)]));
    let start = tokio::time::Instant::now();
    let after = |driver: &mut driver::Driver, seconds| {
        let now = start + Duration::from_secs(seconds);
        driver.see_to_suspects(now);
        driver.view(now)[&id.machine]
    };
    driver.believe(foca::Member::new(id, 0, foca::State::Suspect));
    assert_eq!(after(&mut driver, 0), Liveness::Suspect);
    assert_eq!(after(&mut driver, 7), Liveness::Suspect);
    // It objects and is suspected again, so the count starts again.
    driver.believe(foca::Member::new(id, 1, foca::State::Alive));
    driver.believe(foca::Member::new(id, 1, foca::State::Suspect));
    assert_eq!(after(&mut driver, 8), Liveness::Suspect);
    assert_eq!(after(&mut driver, 14), Liveness::Suspect);
    // This machine itself was stopped, so it asks once more before it decides.
    assert_eq!(after(&mut driver, 60), Liveness::Suspect);
    assert_eq!(after(&mut driver, 61), Liveness::Down);
}

#[tokio::test]
async fn membership_reports_unheard_peer_suspect_then_down() {
    let a = start(1, 1, "127.0.0.1:0").await;
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    a.membership
        .set_peers(peers(1, [(2, nobody.local_addr().unwrap())]))
        .await;
    until(&a, 2, Liveness::Suspect, SOON).await;
    until(&a, 2, Liveness::Down, UNHEARD + Duration::from_secs(3)).await;
    a.membership.set_peers(BTreeMap::new()).await;
    let mut liveness = a.membership.liveness();
    tokio::time::timeout(SOON, liveness.wait_for(BTreeMap::is_empty))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn membership_ignores_stray_datagrams() {
    let (a, b) = (
        start(1, 1, "127.0.0.1:0").await,
        start(2, 1, "127.0.0.1:0").await,
    );
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 7, 60, 1_200, 5_000] {
        stranger
            .send_to(&vec![0xff; length], a.address)
            .await
            .unwrap();
        stranger.send_to(&vec![0; length], a.address).await.unwrap();
    }
    a.membership.set_peers(peers(1, [(2, b.address)])).await;
    b.membership.set_peers(peers(2, [(1, a.address)])).await;
    until(&a, 2, Liveness::Up, SOON).await;
    until(&b, 1, Liveness::Up, SOON).await;
}
