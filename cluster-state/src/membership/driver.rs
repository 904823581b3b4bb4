//! Socket, timers and peer list for foca.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::BufMut;
use foca::{
    AccumulatingRuntime, Codec as _, Config, Foca, Header, Member, Message, NoCustomBroadcast,
    PeriodicParams, PostcardCodec, Runtime as _, State, Timer,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::seal::{Refusal, Refused, Sealer};
use super::{
    ANNOUNCE, Liveness, MAX_DATAGRAM, MAX_PAYLOAD, PROBE_PERIOD, PROBE_RTT, Peer, SUSPECT_TO_DOWN,
    UNHEARD,
};
use crate::id::MachineId;

/// Pause after an error of the socket, so that a broken socket does not keep the processor busy.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);

/// How many members, on average, tell a suspect that it is suspected, each time peers are announced
/// to.
const TELLERS: usize = 8;
/// Age of a suspicion after which this machine always asks the suspect. By then the member that
/// began the suspicion has declared the suspect down, or the suspect has objected, and this machine
/// has not heard of it.
const ASKED_BY_ALL: Duration = SUSPECT_TO_DOWN.saturating_add(Duration::from_secs(2));
/// A suspect that is silent for this long is declared down here as well.
const DECLARED_DOWN: Duration = SUSPECT_TO_DOWN.saturating_mul(2);
/// Minimum number of questions before that, because this machine itself may have been stopped all
/// the time.
const MIN_ASKED: u32 = 2;
/// Minimum time between two log lines about refused datagrams, because anyone can cause them.
const REPORT: Duration = Duration::from_secs(60);

/// A timer of foca's. The order is reversed, because `BinaryHeap` returns the greatest and the
/// earliest is needed.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    timer: Timer<Identity>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .at
            .cmp(&self.at)
            .then_with(|| other.timer.cmp(&self.timer))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Watched {
    address: SocketAddr,
    /// When it was put on the list.
    since: Instant,
}

#[derive(Clone, Copy)]
struct Suspicion {
    since: Instant,
    /// How often this machine has asked the suspect itself.
    asked: u32,
}

pub(super) struct Driver {
    socket: UdpSocket,
    foca: Foca<Identity, PostcardCodec, SmallRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Identity>,
    timers: BinaryHeap<Due>,
    sealer: Sealer,
    refusals: Refusals,
    peers: BTreeMap<MachineId, Watched>,
    /// What `peers` was made from.
    given: BTreeMap<MachineId, Peer>,
    /// Suspects by identity and number of objections.
    suspected: HashMap<(Identity, u16), Suspicion>,
    publish: watch::Sender<BTreeMap<MachineId, Liveness>>,
    jitter: SmallRng,
}

/// Refused datagrams, and when they were logged.
#[derive(Default)]
struct Refusals {
    counted: Refused,
    logged: Refused,
    logged_at: Option<Instant>,
    warned_at: Option<Instant>,
}

enum Event {
    Stop,
    Peers(BTreeMap<MachineId, Peer>),
    Datagram(std::io::Result<(usize, SocketAddr)>),
    Timer,
    Announce,
}

/// Runs until cancelled.
pub(super) async fn run(
    mut driver: Driver,
    mut commands: mpsc::Receiver<BTreeMap<MachineId, Peer>>,
    cancel: CancellationToken,
) {
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    let mut announce = Instant::now();
    let mut open = true;
    loop {
        let due = driver.timers.peek().map(|due| due.at);
        let event = tokio::select! {
            () = cancel.cancelled() => Event::Stop,
            peers = commands.recv(), if open => match peers {
                Some(peers) => Event::Peers(peers),
                None => { open = false; continue }
            },
            received = driver.socket.recv_from(&mut buffer) => Event::Datagram(received),
            () = sleep_until(due) => Event::Timer,
            () = tokio::time::sleep_until(announce) => Event::Announce,
        };
        match event {
            Event::Stop => {
                driver.leave().await;
                return;
            }
            Event::Peers(peers) => {
                driver.take_peers(peers);
            }
            Event::Datagram(Ok((length, from))) => {
                let datagram = buffer
                    .get(..length)
                    .expect("the socket writes no more than the buffer holds");
                if !driver.receive(datagram, from, Instant::now()) {
                    // A flood of invalid datagrams costs no more than opening them.
                    continue;
                }
            }
            Event::Datagram(Err(error)) => {
                tracing::debug!(%error, "membership socket");
                tokio::time::sleep(SOCKET_PAUSE).await;
            }
            Event::Timer => driver.fire(),
            Event::Announce => {
                driver.announce();
                driver.see_to_suspects(Instant::now());
                driver.refusals.log(Instant::now());
                let millis = u64::try_from(ANNOUNCE.as_millis()).unwrap_or(1_000);
                let wait = driver
                    .jitter
                    .random_range(millis * 8 / 10..=millis * 12 / 10);
                announce = Instant::now() + Duration::from_millis(wait);
            }
        }
        driver.flush().await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    pub(super) fn new(
        socket: UdpSocket,
        me: Identity,
        publish: watch::Sender<BTreeMap<MachineId, Liveness>>,
        forget_after: Duration,
    ) -> Self {
        let seed = me.machine.0.iter().fold(me.incarnation, |seed, byte| {
            seed.rotate_left(7) ^ u64::from(*byte)
        });
        Self {
            socket,
            foca: Foca::new(me, config(), SmallRng::seed_from_u64(seed), PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            sealer: Sealer::new(me.machine, me.incarnation, forget_after),
            refusals: Refusals::default(),
            peers: BTreeMap::new(),
            given: BTreeMap::new(),
            suspected: HashMap::new(),
            publish,
            jitter: SmallRng::seed_from_u64(seed.rotate_left(32)),
        }
    }

    /// Makes foca believe something about a member without telling the others.
    #[cfg(test)]
    pub(super) fn believe(&mut self, member: Member<Identity>) {
        self.foca
            .apply_many(std::iter::once(member), false, &mut self.runtime)
            .unwrap();
    }

    /// Takes the datagrams that are waiting, sealed, with their receivers.
    #[cfg(test)]
    pub(super) fn take_datagrams(&mut self) -> Vec<(MachineId, Option<Vec<u8>>)> {
        std::iter::from_fn(|| self.runtime.to_send())
            .map(|(to, data)| (to.machine, self.sealer.seal(to.machine, &data)))
            .collect()
    }

    /// Watches these peers. Records change far more often than peers do, and announcing to each
    /// peer that is down with each of them would be a flood, so what is known changes nothing.
    pub(super) fn take_peers(&mut self, peers: BTreeMap<MachineId, Peer>) {
        if self.given == peers {
            return;
        }
        self.set_peers(&peers);
        self.given = peers;
        self.announce();
    }

    pub(super) fn set_peers(&mut self, peers: &BTreeMap<MachineId, Peer>) {
        let now = Instant::now();
        let me = self.foca.identity().machine;
        let keys = peers.iter().map(|(machine, peer)| (*machine, peer.key));
        self.sealer
            .set_peers(keys.filter(|(machine, _)| *machine != me));
        self.peers = peers
            .iter()
            .filter(|(machine, _)| **machine != me)
            .map(|(machine, peer)| {
                let known = self.peers.get(machine);
                let watched = Watched {
                    address: peer.address,
                    since: known.map_or(now, |known| known.since),
                };
                (*machine, watched)
            })
            .collect();
    }

    /// Announces this machine to every peer that is not active.
    fn announce(&mut self) {
        let active: Vec<MachineId> = self
            .foca
            .iter_members()
            .map(|member| member.id().machine)
            .collect();
        for (machine, peer) in self
            .peers
            .iter()
            .filter(|(machine, _)| !active.contains(machine))
        {
            log(self
                .foca
                .announce(any_incarnation(*machine, peer.address), &mut self.runtime));
        }
    }

    /// Tells suspects that they are suspected, so that they can object, and declares down those
    /// that do not.
    ///
    /// foca leaves both to gossip, which sends an update a few times, to random members. A suspect
    /// that none of these reached would answer every probe, never object, and stay a suspect
    /// forever. A member that did not hear that a suspect is down would learn it only by its own
    /// probe. Among a thousand members that takes a quarter of an hour.
    ///
    /// A suspect can also have restarted under an identity that this machine has not heard of. So
    /// it is greeted under any identity, and its answer contains the present one.
    pub(super) fn see_to_suspects(&mut self, now: Instant) {
        let members = self.foca.num_members();
        let suspects: Vec<Member<Identity>> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == State::Suspect)
            .cloned()
            .collect();
        let before = std::mem::take(&mut self.suspected);
        for suspect in suspects {
            // An objection raises the incarnation in foca's sense, so it starts a new suspicion.
            let key = (*suspect.id(), suspect.incarnation());
            let mut suspicion = before.get(&key).copied().unwrap_or(Suspicion {
                since: now,
                asked: 0,
            });
            if now >= suspicion.since + DECLARED_DOWN && suspicion.asked >= MIN_ASKED {
                let down = Member::new(*suspect.id(), suspect.incarnation(), State::Down);
                log(self
                    .foca
                    .apply_many(std::iter::once(down), true, &mut self.runtime));
                continue;
            }
            let due = now >= suspicion.since + ASKED_BY_ALL;
            suspicion.asked += u32::from(due);
            self.suspected.insert(key, suspicion);
            if due || self.jitter.random_range(0..members.max(1)) < TELLERS {
                match self.accusation(&suspect) {
                    Ok(datagram) => self.runtime.send_to(*suspect.id(), &datagram),
                    Err(error) => tracing::debug!(%error, "membership"),
                }
                let whoever = any_incarnation(suspect.id().machine, suspect.id().address);
                log(self.foca.announce(whoever, &mut self.runtime));
            }
        }
    }

    /// Makes a gossip datagram of foca's with one update: the suspicion, addressed to the suspect
    /// itself.
    fn accusation(&self, suspect: &Member<Identity>) -> Result<Vec<u8>, postcard::Error> {
        let header = Header {
            src: *self.foca.identity(),
            // A lower bound, because foca does not reveal its own incarnation.
            src_incarnation: 0,
            dst: *suspect.id(),
            message: Message::Gossip,
        };
        let mut datagram = Vec::new();
        PostcardCodec.encode_header(&header, &mut datagram)?;
        datagram.put_u16(1);
        PostcardCodec.encode_member(suspect, &mut datagram)?;
        Ok(datagram)
    }

    /// Gives a datagram of a peer to foca. Returns false if it was refused.
    pub(super) fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> bool {
        match open(&mut self.sealer, datagram, now) {
            Ok(payload) => {
                log(self.foca.handle_data(payload, &mut self.runtime));
                true
            }
            Err(refusal) => {
                self.refusals.count(refusal, from, now);
                false
            }
        }
    }

    fn fire(&mut self) {
        let now = Instant::now();
        while self.timers.peek().is_some_and(|due| due.at <= now) {
            if let Some(due) = self.timers.pop() {
                log(self.foca.handle_timer(due.timer, &mut self.runtime));
            }
        }
    }

    async fn leave(&mut self) {
        log(self.foca.leave_cluster(&mut self.runtime));
        self.send().await;
    }

    /// Sends what foca has queued. A datagram that cannot be sent now is lost; SWIM tolerates loss.
    async fn send(&mut self) {
        while let Some((to, data)) = self.runtime.to_send() {
            // foca also knows members that are not in the list of peers, from other members.
            let sealed = self.sealer.seal(to.machine, &data);
            let (Some(peer), Some(sealed)) = (self.peers.get(&to.machine), sealed) else {
                tracing::trace!(machine = %to.machine, "datagram not sent: not a peer");
                continue;
            };
            let sending = self.socket.send_to(&sealed, peer.address);
            match tokio::time::timeout(SOCKET_PAUSE, sending).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::trace!(%error, peer = %to.machine, "datagram not sent"),
                Err(_) => tracing::trace!(peer = %to.machine, "datagram not sent in time"),
            }
        }
    }

    /// Sends datagrams, sets timers, and publishes foca's view of the members.
    async fn flush(&mut self) {
        let now = Instant::now();
        self.send().await;
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.push(Due {
                at: now + after,
                timer,
            });
        }
        while let Some(notification) = self.runtime.to_notify() {
            tracing::debug!(?notification, "membership");
        }
        let view = self.view(now);
        self.publish.send_if_modified(|current| {
            let modified = *current != view;
            *current = view;
            modified
        });
    }

    pub(super) fn view(&self, now: Instant) -> BTreeMap<MachineId, Liveness> {
        let states: BTreeMap<MachineId, State> = self
            .foca
            .iter_membership_state()
            .map(|member| (member.id().machine, member.state()))
            .collect();
        let judge = |machine: &MachineId, peer: &Watched| match states.get(machine) {
            Some(State::Alive) => Liveness::Up,
            Some(State::Suspect) => Liveness::Suspect,
            Some(State::Down) => Liveness::Down,
            None if now < peer.since + UNHEARD => Liveness::Suspect,
            None => Liveness::Down,
        };
        self.peers
            .iter()
            .map(|(machine, peer)| (*machine, judge(machine, peer)))
            .collect()
    }
}

impl Refusals {
    fn count(&mut self, refusal: Refusal, from: SocketAddr, now: Instant) {
        self.counted.count(refusal);
        if let Refusal::InvalidMac { claimed } = refusal
            && self.warned_at.is_none_or(|at| now >= at + REPORT)
        {
            self.warned_at = Some(now);
            let total = self.counted.invalid_mac;
            tracing::warn!(%claimed, %from, total, "refused membership datagram: invalid MAC");
        }
    }

    /// Logs the counters if they have changed, at most once a minute.
    fn log(&mut self, now: Instant) {
        if self.counted != self.logged && self.logged_at.is_none_or(|at| now >= at + REPORT) {
            self.logged = self.counted;
            self.logged_at = Some(now);
            tracing::debug!(refused = ?self.counted, "refused membership datagrams");
        }
    }
}

/// Returns the payload of a peer's datagram. A peer must not speak as another machine.
pub(crate) fn open<'a>(
    sealer: &mut Sealer,
    datagram: &'a [u8],
    now: Instant,
) -> Result<&'a [u8], Refusal> {
    let (sender, payload) = sealer.open(datagram, now)?;
    let header: Result<Header<Identity>, _> = PostcardCodec.decode_header(payload);
    match header {
        Ok(header) if header.src.machine == sender => Ok(payload),
        Ok(_) => Err(Refusal::OtherSender),
        Err(_) => Err(Refusal::Malformed),
    }
}

/// Makes an identity for an announcement. A machine accepts it whatever its present incarnation is.
fn any_incarnation(machine: MachineId, address: SocketAddr) -> Identity {
    Identity {
        machine,
        incarnation: 0,
        renewal: 0,
        address,
    }
}

/// Logs what foca ignores (stray datagrams, late timers). None of it requires action.
fn log(outcome: Result<(), foca::Error>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "membership");
    }
}

pub(crate) fn config() -> Config {
    let every = |frequency, members| {
        NonZeroUsize::new(members).map(|num_members| PeriodicParams {
            frequency,
            num_members,
        })
    };
    let defaults = Config::simple();
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        suspect_to_down_after: SUSPECT_TO_DOWN,
        max_packet_size: NonZeroUsize::new(MAX_PAYLOAD).unwrap_or(defaults.max_packet_size),
        max_transmissions: NonZeroU8::new(10).unwrap_or(defaults.max_transmissions),
        notify_down_members: true,
        periodic_gossip: every(Duration::from_millis(200), 3),
        periodic_announce: every(Duration::from_secs(30), 1),
        // The list of peers serves this purpose for machines that are still members.
        periodic_announce_to_down_members: None,
        ..defaults
    }
}
