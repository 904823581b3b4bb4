//! The failure detector without its socket and clock, for the fuzz target.

use std::collections::VecDeque;
use std::net::SocketAddr;

use foca::{AccumulatingRuntime, Foca, Identity as _, NoCustomBroadcast, PostcardCodec, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::identity::Identity;
use super::{MAX_PACKET, driver};
use crate::fuzzing::Input;
use crate::id::MachineId;

pub(crate) struct Detector {
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
    pub(crate) fn new(n: u8) -> Self {
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
    pub(crate) fn announce(&mut self, n: u8) {
        let _ = self.foca.announce(
            Identity {
                incarnation: 0,
                ..identity(n)
            },
            &mut self.runtime,
        );
    }

    pub(crate) fn receive(&mut self, datagram: &[u8]) {
        let _ = self.foca.handle_data(datagram, &mut self.runtime);
    }

    /// Fires the timer that was set first.
    pub(crate) fn fire(&mut self) {
        if let Some(timer) = self.timers.pop_front() {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
    }

    /// Carries out what foca wants, and returns the datagrams.
    pub(crate) fn flush(&mut self) -> Vec<Vec<u8>> {
        while let Some((_, timer)) = self.runtime.to_schedule() {
            self.timers.push_back(timer);
        }
        while self.runtime.to_notify().is_some() {}
        let mut datagrams = Vec::new();
        while let Some((to, data)) = self.runtime.to_send() {
            assert!(data.len() <= MAX_PACKET, "{} bytes", data.len());
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

/// For each datagram, the input has a byte for what happens before it, two bytes of length, and as
/// much as the socket's buffer holds.
pub(crate) fn run(mut input: Input<'_>) {
    let mut detector = Detector::new(1);
    while !input.is_empty() {
        let what = input.byte();
        for _ in 0..what & 7 {
            detector.fire();
            detector.flush();
        }
        if what & 8 != 0 {
            detector.announce(2 + (what >> 4));
        }
        let datagram = input.piece();
        detector.receive(datagram.get(..=MAX_PACKET).unwrap_or(datagram));
        detector.flush();
    }
}
