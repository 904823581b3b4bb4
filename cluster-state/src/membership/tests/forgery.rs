//! What other processes send does not change a machine's view of its peers.

use std::sync::{Arc, Mutex};

use bytes::BufMut;
use foca::{Codec as _, Header, Member, Message, PostcardCodec, State};

use super::*;

type Identity = identity::Identity;

/// Makes a datagram as foca makes it.
fn datagram(
    src: Identity,
    dst: Identity,
    message: Message<Identity>,
    updates: &[Member<Identity>],
) -> Vec<u8> {
    let header = Header {
        src,
        src_incarnation: 0,
        dst,
        message,
    };
    let mut datagram = Vec::new();
    PostcardCodec.encode_header(&header, &mut datagram).unwrap();
    if !updates.is_empty() {
        datagram.put_u16(u16::try_from(updates.len()).unwrap());
        for update in updates {
            PostcardCodec.encode_member(update, &mut datagram).unwrap();
        }
    }
    datagram
}

/// The sealer of machine `n`, which knows the first machine.
fn sealer(n: u8, key: PairKey) -> seal::Sealer {
    let mut sealer = seal::Sealer::new(machine(n), 1, seal::FORGET_AFTER);
    sealer.set_peers([(machine(1), key)].into_iter());
    sealer
}

type Views = Arc<Mutex<Vec<BTreeMap<MachineId, Liveness>>>>;

/// Keeps every view that a machine publishes.
fn record(node: &Node) -> Views {
    let views = Views::default();
    let mut liveness = node.membership.liveness();
    let recorded = Arc::clone(&views);
    tokio::spawn(async move {
        while liveness.changed().await.is_ok() {
            let view = liveness.borrow_and_update().clone();
            recorded.lock().unwrap().push(view);
        }
    });
    views
}

fn has(views: &Views, n: u8, liveness: Liveness) -> bool {
    let views = views.lock().unwrap();
    views
        .iter()
        .any(|view| view.get(&machine(n)) == Some(&liveness))
}

/// Machine 1 runs, and machine 2 answers it. A stranger tries to announce machine 3, which does not
/// run, and to declare machine 2 down.
#[tokio::test]
async fn membership_ignores_datagrams_that_no_member_sealed() {
    let (a, b) = (
        start(1, 1, "127.0.0.1:0").await,
        start(2, 1, "127.0.0.1:0").await,
    );
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = stranger.local_addr().unwrap();
    a.membership
        .set_peers(peers(1, [(2, b.address), (3, port), (4, port), (5, port)]))
        .await;
    b.membership.set_peers(peers(2, [(1, a.address)])).await;
    until(&a, 2, Liveness::Up, SOON).await;

    let views = record(&a);
    let (first, second) = (member(1, 1, a.address), member(2, 1, b.address));
    let third = member(3, 1, port);
    let announce = datagram(third, first, Message::Announce, &[]);
    let down = Member::new(second, 0, State::Down);
    let accuse = datagram(third, first, Message::Gossip, std::slice::from_ref(&down));
    let mut member_3 = sealer(3, pair_key(machine(1), machine(3)));
    let mut member_4 = sealer(4, pair_key(machine(1), machine(4)));
    let mut member_5 = sealer(5, pair_key(machine(1), machine(5)));
    let mut other_key = sealer(3, pair_key(machine(3), machine(9)));
    let mut unknown = sealer(9, pair_key(machine(1), machine(9)));

    let sealed = member_3.seal(machine(1), &announce).unwrap();
    let mut forged = vec![announce.clone(), accuse.clone()];
    // In every part of the header, and in the payload.
    for at in (0..sealed.len()).step_by(5) {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        forged.push(damaged);
        forged.push(sealed[..at].to_vec());
    }
    for payload in [&announce, &accuse] {
        forged.push(other_key.seal(machine(1), payload).unwrap());
        forged.push(unknown.seal(machine(1), payload).unwrap());
        // A member must not speak as another one.
        forged.push(member_4.seal(machine(1), payload).unwrap());
    }
    // The second machine can be declared down by its own goodbye only.
    let goodbye = datagram(second, first, Message::Gossip, &[down]);
    forged.push(goodbye.clone());
    forged.push(member_4.seal(machine(1), &goodbye).unwrap());
    for datagram in &forged {
        stranger.send_to(datagram, a.address).await.unwrap();
    }
    // Datagrams of one socket arrive in sequence, so the others have arrived before this one.
    let fifth = datagram(member(5, 1, port), first, Message::Announce, &[]);
    let fifth = member_5.seal(machine(1), &fifth).unwrap();
    stranger.send_to(&fifth, a.address).await.unwrap();
    until(&a, 5, Liveness::Up, SOON).await;
    assert!(!has(&views, 2, Liveness::Down), "{views:?}");
    assert!(!has(&views, 3, Liveness::Up), "{views:?}");
    assert!(!has(&views, 4, Liveness::Up), "{views:?}");

    // What the third machine sealed has these effects, so the test can fail.
    stranger.send_to(&sealed, a.address).await.unwrap();
    until(&a, 3, Liveness::Up, SOON).await;
    assert!(!has(&views, 2, Liveness::Down), "{views:?}");
    let accuse = member_3.seal(machine(1), &accuse).unwrap();
    stranger.send_to(&accuse, a.address).await.unwrap();
    let mut liveness = a.membership.liveness();
    let accused = liveness.wait_for(|_| has(&views, 2, Liveness::Down));
    tokio::time::timeout(SOON, accused).await.unwrap().unwrap();
}

/// Two drivers without a network between them.
#[tokio::test]
async fn membership_refuses_repeated_and_returned_datagrams() {
    let (mut a, _, address_a) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    let (mut b, _, address_b) = idle(member(2, 1, UNKNOWN), seal::FORGET_AFTER).await;
    a.set_peers(&peers(1, [(2, address_b)]));
    b.set_peers(&peers(2, [(1, address_a)]));
    let now = tokio::time::Instant::now();
    a.believe(foca::Member::new(
        member(2, 1, address_b),
        0,
        State::Suspect,
    ));
    a.see_to_suspects(now);
    let (_, datagram) = a.take_datagrams().pop().unwrap();
    let datagram = datagram.unwrap();
    assert!(!a.receive(&datagram, address_b, now), "returned");
    assert!(b.receive(&datagram, address_a, now));
    assert!(!b.receive(&datagram, address_a, now), "repeated");
}

#[tokio::test]
async fn membership_sends_nothing_to_members_without_a_key() {
    let (mut a, _, _) = idle(member(1, 1, UNKNOWN), seal::FORGET_AFTER).await;
    a.believe(foca::Member::new(member(2, 1, UNKNOWN), 0, State::Suspect));
    a.see_to_suspects(tokio::time::Instant::now());
    let datagrams = a.take_datagrams();
    assert!(!datagrams.is_empty());
    assert!(datagrams.iter().all(|(_, sealed)| sealed.is_none()));
}
