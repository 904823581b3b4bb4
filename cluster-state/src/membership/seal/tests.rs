use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const KEY: PairKey = PairKey([7; 32]);

fn machine(n: u8) -> MachineId {
    MachineId([n; 16])
}

fn sealer(me: u8, start: u64, peers: &[(u8, PairKey)]) -> Sealer {
    let mut sealer = Sealer::new(machine(me), start, FORGET_AFTER);
    sealer.set_peers(peers.iter().map(|(n, key)| (machine(*n), *key)));
    sealer
}

/// Two machines that know each other.
fn pair() -> (Sealer, Sealer) {
    (sealer(1, 1, &[(2, KEY)]), sealer(2, 1, &[(1, KEY)]))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn opener_returns_sender_and_payload() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    for payload in [&b""[..], b"x", &[9; MAX_DATAGRAM - OVERHEAD]] {
        let datagram = a.seal(machine(2), payload).unwrap();
        assert_eq!(datagram.len(), OVERHEAD + payload.len());
        assert_eq!(b.open(&datagram, now), Ok((machine(1), payload)));
    }
    assert_eq!(a.seal(machine(3), b"x"), None, "not a peer");
}

#[test]
fn opener_refuses_every_flipped_bit_and_every_truncation() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    let datagram = a.seal(machine(2), b"the payload").unwrap();
    for bit in 0..datagram.len() * 8 {
        let mut flipped = datagram.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(b.open(&flipped, now).is_err(), "bit {bit}");
    }
    for length in 0..datagram.len() {
        assert!(b.open(&datagram[..length], now).is_err(), "{length} bytes");
    }
    let longer = [&datagram[..], &[0]].concat();
    assert!(b.open(&longer, now).is_err());
    // None of this has used up the number.
    assert_eq!(
        b.open(&datagram, now),
        Ok((machine(1), &b"the payload"[..]))
    );
}

#[test]
fn opener_reports_why_it_refuses() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    let invalid = Err(Refusal::InvalidMac {
        claimed: machine(1),
    });
    let other_key = PairKey([8; 32]);
    let mut guessing = sealer(1, 1, &[(2, other_key)]);
    let guessed = guessing.seal(machine(2), b"x").unwrap();
    assert_eq!(b.open(&guessed, now), invalid);

    let mut stranger = sealer(3, 1, &[(2, KEY)]);
    let strange = stranger.seal(machine(2), b"x").unwrap();
    assert_eq!(b.open(&strange, now), Err(Refusal::UnknownSender));

    // Meant for another machine, even if both pairs had the same key.
    let mut talking = sealer(1, 1, &[(3, KEY)]);
    let misdirected = talking.seal(machine(3), b"x").unwrap();
    assert_eq!(b.open(&misdirected, now), invalid);

    let mut newer = a.seal(machine(2), b"x").unwrap();
    newer[0] = 2;
    assert_eq!(b.open(&newer, now), Err(Refusal::UnknownVersion));
    assert_eq!(b.open(&[], now), Err(Refusal::Malformed));
    assert_eq!(b.open(&[VERSION; 40], now), Err(Refusal::Malformed));
    assert_eq!(
        b.open(&[VERSION; MAX_DATAGRAM + 1], now),
        Err(Refusal::Malformed)
    );
}

#[test]
fn opener_refuses_datagram_that_is_sent_back() {
    let (mut a, _) = pair();
    let now = Instant::now();
    let datagram = a.seal(machine(2), b"x").unwrap();
    assert_eq!(a.open(&datagram, now), Err(Refusal::UnknownSender));
    let mut renamed = datagram;
    renamed[1..17].copy_from_slice(&machine(2).0);
    assert_eq!(
        a.open(&renamed, now),
        Err(Refusal::InvalidMac {
            claimed: machine(2)
        })
    );
    assert_ne!(
        KEY.direction(machine(1), machine(2)),
        KEY.direction(machine(2), machine(1))
    );
}

#[test]
fn opener_accepts_each_datagram_once() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    let datagrams: Vec<_> = (0..5).map(|_| a.seal(machine(2), b"x").unwrap()).collect();
    for n in [3, 0, 4, 1, 2] {
        assert!(b.open(&datagrams[n], now).is_ok());
    }
    for datagram in &datagrams {
        assert_eq!(b.open(datagram, now), Err(Refusal::Repeated));
    }
}

#[test]
fn opener_accepts_later_start_and_refuses_earlier_one() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(a.seal(machine(2), b"old").unwrap());
    }
    assert!(b.open(&old[0], now).is_ok());
    let mut restarted = sealer(1, 2, &[(2, KEY)]);
    let new = restarted.seal(machine(2), b"new").unwrap();
    assert!(b.open(&new, now).is_ok());
    assert_eq!(b.open(&new, now), Err(Refusal::Repeated));
    assert_eq!(b.open(&old[1], now), Err(Refusal::EarlierStart));
}

/// A machine whose disk was restored starts with a number that its peers have seen, or a lower one.
#[test]
fn opener_accepts_restored_machine_after_a_minute_of_silence() {
    for start in [49, 50] {
        let now = Instant::now();
        let mut receiver = sealer(2, 1, &[(1, KEY)]);
        let mut before = sealer(1, 50, &[(2, KEY)]);
        let datagram = before.seal(machine(2), b"x").unwrap();
        assert!(receiver.open(&datagram, now).is_ok());

        let mut restored = sealer(1, start, &[(2, KEY)]);
        // What is refused does not extend the wait.
        for second in [0, 30, 59] {
            let mut restored = sealer(1, start, &[(2, KEY)]);
            let early = restored.seal(machine(2), b"x").unwrap();
            assert!(receiver.open(&early, now + seconds(second)).is_err());
        }
        let datagram = restored.seal(machine(2), b"x").unwrap();
        assert!(receiver.open(&datagram, now + seconds(60)).is_ok());
        let again = receiver.open(&datagram, now + seconds(61));
        assert_eq!(again, Err(Refusal::Repeated));
    }
}

#[test]
fn sealer_continues_numbers_of_peer_that_was_removed_and_added_again() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    for _ in 0..3 {
        let datagram = a.seal(machine(2), b"x").unwrap();
        assert!(b.open(&datagram, now).is_ok());
    }
    a.set_peers(std::iter::empty());
    a.set_peers([(machine(2), KEY)].into_iter());
    let datagram = a.seal(machine(2), b"x").unwrap();
    assert!(b.open(&datagram, now).is_ok());
}

#[test]
fn opener_remembers_numbers_as_long_as_the_key_is_the_same() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    let datagram = a.seal(machine(2), b"x").unwrap();
    assert!(b.open(&datagram, now).is_ok());
    b.set_peers([(machine(1), KEY), (machine(3), KEY)].into_iter());
    assert_eq!(b.open(&datagram, now), Err(Refusal::Repeated));
    b.set_peers([(machine(3), KEY)].into_iter());
    assert_eq!(b.open(&datagram, now), Err(Refusal::UnknownSender));
    assert_eq!(b.peers.len(), 1, "bounded by the peers");
}

#[test]
fn debug_hides_pair_key() {
    assert_eq!(format!("{KEY:?}"), "PairKey(hidden)");
    assert!(KEY == PairKey([7; 32]) && KEY != PairKey([6; 32]));
}

/// What a receiver must remember, kept without a window.
#[derive(Default)]
struct Oracle {
    known: Option<(u64, Instant, BTreeSet<u64>)>,
}

impl Oracle {
    fn accepts(&mut self, start: u64, sequence: u64, now: Instant) -> bool {
        if let Some((latest, last, seen)) = &mut self.known
            && now < *last + FORGET_AFTER
            && start <= *latest
        {
            let highest = *seen.last().unwrap();
            let fresh = start == *latest
                && !seen.contains(&sequence)
                && u128::from(sequence) + WINDOW as u128 > u128::from(highest);
            if fresh {
                seen.insert(sequence);
                *last = now;
            }
            return fresh;
        }
        self.known = Some((start, now, BTreeSet::from([sequence])));
        true
    }
}

impl Oracle {
    fn highest(&self) -> u64 {
        self.known
            .as_ref()
            .map_or(5_000, |(_, _, seen)| *seen.last().unwrap())
    }
}

/// A distance from the highest number that was accepted.
fn distance() -> impl Strategy<Value = u64> {
    const SIZE: u64 = WINDOW as u64;
    prop_oneof![
        6 => 0..40_u64,
        3 => SIZE - 3..SIZE + 3,
        1 => 0..3 * SIZE,
        1 => any::<u64>(),
    ]
}

/// Most starts are the same, so that the windows are well filled.
fn start() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(4_u64), 40 => Just(5), 1 => Just(6)]
}

fn wait() -> impl Strategy<Value = Duration> {
    prop_oneof![
        60 => Just(Duration::ZERO),
        4 => (0..60_u64).prop_map(seconds),
        1 => Just(FORGET_AFTER),
    ]
}

proptest! {
    #[test]
    fn window_accepts_what_the_oracle_accepts(
        datagrams in prop::collection::vec((start(), distance(), any::<bool>(), wait()), 1..400),
    ) {
        let mut oracle = Oracle::default();
        let mut received = Received::default();
        let mut now = Instant::now();
        for (start, distance, ahead, wait) in datagrams {
            let highest = oracle.highest();
            let sequence = if ahead {
                highest.saturating_add(distance)
            } else {
                highest.saturating_sub(distance)
            };
            now += wait;
            let accepted = received.accept(start, sequence, now, FORGET_AFTER).is_ok();
            prop_assert_eq!(accepted, oracle.accepts(start, sequence, now), "{}", sequence);
        }
    }
}
