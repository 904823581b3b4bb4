//! The failure detector without its socket and clock, for the fuzz target.

use std::collections::VecDeque;
use std::net::SocketAddr;

use foca::{AccumulatingRuntime, Foca, Identity as _, NoCustomBroadcast, PostcardCodec, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::input::Input;
use crate::id::MachineId;
use crate::membership::identity::Identity;
use crate::membership::seal::{FORGET_AFTER, OVERHEAD, PairKey, Sealer};
use crate::membership::{MAX_DATAGRAM, MAX_PAYLOAD, driver};

pub(super) struct Detector {
    foca: Foca<Identity, PostcardCodec, SmallRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Identity>,
    timers: VecDeque<Timer<Identity>>,
}

fn identity(n: u8) -> Identity {
    let address = SocketAddr::from(([127, 0, 0, 1], u16::from(n)));
    Identity {
        machine: MachineId([n; 16]),
        incarnation: 3,
        renewal: 0,
        address,
    }
}

impl Detector {
    pub(super) fn new(n: u8) -> Self {
        let foca = Foca::new(
            identity(n),
            driver::config(),
            SmallRng::seed_from_u64(n.into()),
            PostcardCodec,
        );
        Self {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: VecDeque::new(),
        }
    }

    /// Does what the driver does when a peer in the list is not active.
    pub(super) fn announce(&mut self, n: u8) {
        let _ = self.foca.announce(
            Identity {
                incarnation: 0,
                ..identity(n)
            },
            &mut self.runtime,
        );
    }

    pub(super) fn receive(&mut self, datagram: &[u8]) {
        let _ = self.foca.handle_data(datagram, &mut self.runtime);
    }

    /// Fires the timer that was set first.
    pub(super) fn fire(&mut self) {
        if let Some(timer) = self.timers.pop_front() {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
    }

    /// Carries out what foca wants, and returns the datagrams.
    pub(super) fn flush(&mut self) -> Vec<Vec<u8>> {
        while let Some((_, timer)) = self.runtime.to_schedule() {
            self.timers.push_back(timer);
        }
        while self.runtime.to_notify().is_some() {}
        let mut datagrams = Vec::new();
        while let Some((to, data)) = self.runtime.to_send() {
            assert!(data.len() <= MAX_PAYLOAD, "{} bytes", data.len());
            // Renewed or not, one of two identities of a machine wins.
            let renewed = to
                .renew()
                .is_none_or(|next| next.win_addr_conflict(&to) || next.renewal > 62);
            assert!(renewed, "{to:?} does not come back by renewing");
            datagrams.push(data.to_vec());
        }
        datagrams
    }
}

/// The sealer of machine `n`, which knows the other one of two.
pub(super) fn sealer(n: u8) -> Sealer {
    let mut sealer = Sealer::new(MachineId([n; 16]), 3, FORGET_AFTER);
    let other = MachineId([3 - n; 16]);
    sealer.set_peers([(other, PairKey::from_bytes([5; 32]))].into_iter());
    sealer
}

/// For each datagram, the input has a byte for what happens before it, two bytes of length, and as
/// much as the socket's buffer holds. The detector receives it twice: as a datagram that must be
/// opened, and as the payload of a member.
pub(super) fn run(mut input: Input<'_>) {
    let mut detector = Detector::new(1);
    let mut theirs = sealer(2);
    let mut ours = sealer(1);
    let now = Instant::now();
    while !input.is_empty() {
        let what = input.byte();
        for _ in 0..what & 7 {
            detector.fire();
            detector.flush();
        }
        if what & 8 != 0 {
            detector.announce(2 + (what >> 4));
        }
        let piece = input.piece();
        let datagram = piece.get(..=MAX_DATAGRAM).unwrap_or(piece);
        if let Ok(payload) = driver::open(&mut ours, datagram, now) {
            detector.receive(payload);
            detector.flush();
            assert!(ours.open(datagram, now).is_err(), "accepted twice");
        }
        let payload = datagram.get(..=MAX_PAYLOAD).unwrap_or(datagram);
        detector.receive(payload);
        detector.flush();
        check_seal(
            &mut theirs,
            payload.get(..MAX_PAYLOAD).unwrap_or(payload),
            what,
        );
    }
}

/// A peer opens what was sealed for it, and nothing that differs in one bit.
fn check_seal(theirs: &mut Sealer, payload: &[u8], what: u8) {
    let mut ours = sealer(1);
    let now = Instant::now();
    let mut sealed = theirs
        .seal(MachineId([1; 16]), payload)
        .expect("a machine that it knows");
    let place = usize::from(what) * 31 % sealed.len();
    if let Some(byte) = sealed.get_mut(place) {
        *byte ^= 1 << (what % 8);
    }
    assert!(ours.open(&sealed, now).is_err(), "bit flipped in {place}");
    if let Some(byte) = sealed.get_mut(place) {
        *byte ^= 1 << (what % 8);
    }
    assert_eq!(sealed.len(), OVERHEAD + payload.len());
    assert_eq!(ours.open(&sealed, now), Ok((MachineId([2; 16]), payload)));
}
