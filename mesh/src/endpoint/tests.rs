use proptest::prelude::*;

use super::*;
use crate::config::tests::{key, peer};

const A: &str = "192.0.2.1:51820";
const B: &str = "192.0.2.2:51820";
const C: &str = "192.0.2.3:51820";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn with(endpoints: &[&str]) -> PeerConfig {
    PeerConfig {
        endpoints: endpoints.iter().map(|text| at(text)).collect(),
        ..peer(2)
    }
}

/// One peer and the tunnel as the chooser sees it.
struct Bench {
    chooser: EndpointChooser,
    endpoint: Option<SocketAddr>,
    handshake: Option<Duration>,
}

impl Bench {
    fn new(endpoints: &[&str]) -> Self {
        Self::remembering(endpoints, None)
    }

    fn remembering(endpoints: &[&str], remembered: Option<&str>) -> Self {
        let mut chooser = EndpointChooser::default();
        let remembered = remembered
            .map(|text| (key(2).public(), at(text)))
            .into_iter()
            .collect();
        chooser.configure(s(0), &[with(endpoints)], &remembered);
        Self {
            chooser,
            endpoint: None,
            handshake: None,
        }
    }

    fn configure(&mut self, now: u64, endpoints: &[&str]) {
        self.chooser
            .configure(s(now), &[with(endpoints)], &BTreeMap::new());
    }

    /// A step; what it sets is set.
    fn step(&mut self, now: u64) -> Option<SocketAddr> {
        let observation = Observation {
            endpoint: self.endpoint,
            handshake_age: self.handshake.map(|at| s(now).saturating_sub(at)),
        };
        let changes = self
            .chooser
            .step(s(now), &BTreeMap::from([(key(2).public(), observation)]));
        assert!(changes.len() <= 1);
        let set = changes.first().map(|(_, endpoint)| *endpoint);
        self.endpoint = set.or(self.endpoint);
        set
    }

    fn reach(&self, now: u64) -> Reach {
        self.chooser.reach(s(now), &key(2).public())
    }
}

#[test]
fn first_endpoint_is_set_immediately_and_kept_for_15_seconds() {
    let mut bench = Bench::new(&[A, B]);
    assert_eq!(bench.reach(0), Reach::Down);
    assert_eq!(bench.step(0), Some(at(A)));
    for now in 1..15 {
        assert_eq!(bench.step(now), None, "at {now}");
        assert_eq!(bench.reach(now), Reach::Unknown);
    }
    assert_eq!(bench.step(15), Some(at(B)));
    assert_eq!(bench.reach(15), Reach::Unknown);
    assert_eq!(bench.step(30), Some(at(A)), "the turn comes round");
}

#[test]
fn answering_peer_keeps_its_endpoint_for_275_seconds_of_silence() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.handshake = Some(s(2));
    assert_eq!(bench.step(3), None);
    assert_eq!(bench.reach(3), Reach::Up);
    assert_eq!(bench.step(276), None);
    assert_eq!(bench.step(277), Some(at(B)));
}

#[test]
fn silence_is_counted_after_the_tunnel_forgot_an_expired_session() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.handshake = Some(s(1));
    bench.step(2);
    bench.handshake = None;
    assert_eq!(bench.step(200), None);
    assert_eq!(bench.reach(200), Reach::Up);
    assert_eq!(bench.step(276), Some(at(B)));
}

#[test]
fn handshake_dated_just_before_the_change_of_endpoint_counts() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.step(15);
    bench.handshake = Some(Duration::from_millis(14_750));
    assert_eq!(bench.step(16), None);
    assert_eq!(bench.reach(16), Reach::Up);
    assert_eq!(bench.step(200), None);
}

#[test]
fn single_endpoint_is_tried_repeatedly() {
    let mut bench = Bench::new(&[A]);
    assert_eq!(bench.step(0), Some(at(A)));
    assert_eq!(bench.step(15), Some(at(A)));
    assert_eq!(bench.step(20), None);
    assert_eq!(bench.step(30), Some(at(A)));
}

#[test]
fn peer_without_endpoints_is_down_until_it_contacts_us() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.step(0), None);
    assert_eq!(bench.step(100), None);
    bench.endpoint = Some(at(C));
    bench.handshake = Some(s(110));
    assert_eq!(bench.step(110), None);
    assert_eq!(bench.reach(110), Reach::Up);
    assert_eq!(bench.chooser.working(s(110))[&key(2).public()], at(C));
}

#[test]
fn working_learned_endpoint_survives_new_configurations() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.handshake = Some(s(1));
    bench.step(1);
    bench.endpoint = Some(at(C));
    assert_eq!(bench.step(20), None);
    bench.configure(21, &[A, B]);
    assert_eq!(bench.step(21), None);
    bench.configure(22, &[B]);
    assert_eq!(bench.step(22), None);
    assert_eq!(bench.reach(22), Reach::Up);
    assert_eq!(bench.endpoint, Some(at(C)));
}

#[test]
fn failed_learned_endpoint_is_tried_after_the_configured_ones() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.handshake = Some(s(1));
    bench.endpoint = Some(at(C));
    bench.step(2);
    assert_eq!(bench.step(276), Some(at(A)));
    assert_eq!(bench.step(291), Some(at(B)));
    assert_eq!(bench.step(306), Some(at(C)));
    assert_eq!(bench.step(321), Some(at(A)));
}

#[test]
fn endpoint_in_use_is_kept_after_it_left_the_configuration() {
    let mut bench = Bench::new(&[A]);
    bench.step(0);
    bench.handshake = Some(s(1));
    bench.step(1);
    bench.configure(2, &[B]);
    assert_eq!(bench.step(2), None);
    assert_eq!(bench.step(276), Some(at(B)));
}

#[test]
fn new_candidate_is_tried_immediately_if_the_peer_is_not_up() {
    let mut bench = Bench::new(&[A]);
    bench.step(0);
    bench.configure(3, &[A, B]);
    assert_eq!(bench.step(3), Some(at(B)));
    bench.configure(4, &[A, B]);
    assert_eq!(
        bench.step(4),
        None,
        "the same configuration changes nothing"
    );
}

#[test]
fn removed_candidate_is_left_immediately_if_the_peer_is_not_up() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.configure(1, &[B]);
    assert_eq!(bench.step(1), Some(at(B)));
}

#[test]
fn remembered_endpoint_is_tried_first() {
    let mut bench = Bench::remembering(&[A, B], Some(C));
    assert_eq!(bench.step(0), Some(at(C)));
    assert_eq!(bench.step(15), Some(at(A)));
    assert_eq!(bench.step(30), Some(at(B)));
    assert_eq!(bench.step(45), Some(at(C)));
}

#[test]
fn endpoint_of_a_peer_that_contacted_us_is_kept() {
    let mut bench = Bench::new(&[A, B]);
    bench.endpoint = Some(at(C));
    assert_eq!(bench.step(0), None);
    bench.handshake = Some(s(0));
    assert_eq!(bench.step(1), None);
    assert_eq!(bench.reach(1), Reach::Up);
}

#[test]
fn reopened_tunnel_tries_the_last_endpoint_first() {
    let mut bench = Bench::new(&[A, B]);
    bench.step(0);
    bench.step(15);
    bench.handshake = Some(s(16));
    bench.step(16);
    bench.chooser.reopened();
    bench.endpoint = None;
    bench.handshake = None;
    assert_eq!(bench.step(17), Some(at(B)));
}

#[test]
fn peer_that_the_tunnel_does_not_have_is_left_alone() {
    let mut chooser = EndpointChooser::default();
    chooser.configure(s(0), &[with(&[A])], &BTreeMap::new());
    assert_eq!(chooser.step(s(1), &BTreeMap::new()), []);
}

proptest! {
    /// Whatever is configured and learned on the way: a peer that never answers is offered each of
    /// its endpoints within one round.
    #[test]
    fn every_endpoint_is_tried_in_turn(count in 1_u8..8, learned in proptest::option::of(0_u8..12), start in 0_u64..1000) {
        let all: Vec<String> = (0..count).map(|n| format!("192.0.2.{n}:1")).collect();
        let texts: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut bench = Bench::remembering(&texts, learned.map(|n| format!("192.0.2.{n}:1")).as_deref());
        let mut offered = std::collections::BTreeSet::new();
        for round in 0..u64::from(count) + 2 {
            offered.extend(bench.step(start + round * 15));
        }
        for text in &texts {
            prop_assert!(offered.contains(&at(text)), "{text} never tried: {offered:?}");
        }
    }

    /// A peer that is up is never touched, whatever is configured.
    #[test]
    fn working_endpoint_is_never_replaced(configs in proptest::collection::vec(proptest::collection::vec(0_u8..6, 0..5), 1..20)) {
        let mut bench = Bench::new(&[A]);
        bench.step(0);
        for (now, config) in (1_u64..).zip(&configs) {
            bench.handshake = Some(s(now));
            prop_assert_eq!(bench.step(now), None);
            let texts: Vec<String> = config.iter().map(|n| format!("192.0.2.{n}:51820")).collect();
            bench.configure(now, &texts.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(bench.step(now), None);
        }
    }
}
