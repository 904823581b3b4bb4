//! The run itself: nodes, links, the queue of events, and the effect of each event.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::machine::{End, Machine, Purpose, Rows, Work, purpose};
use super::network::{Stream, normal};
use super::report::Report;
use super::track::Tracker;
use super::{Scenario, us};
use crate::id::{Dot, MachineId};
use crate::op::Op;

/// The wall clocks' time at the start, in milliseconds.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// Changes and faults begin after this time.
pub(super) const WARM_UP: u64 = 2_000_000;
const SECOND: u64 = 1_000_000;
/// As in the driver: a session ends after this long without a frame.
const SILENCE: u64 = 15 * SECOND;
/// As in the writer: the maximum number of requests in one transaction.
const MAX_GROUP: usize = 256;
/// Sigma of the log-normal duration of an fsync.
const FSYNC_SPREAD: f64 = 0.8;
/// Maximum number of failures that are reported. At this number the run ends.
const MAX_FAILURES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The next frame on a link arrives.
    Arrive {
        link: usize,
        side: usize,
        epoch: u32,
    },
    /// A second of a session is over.
    Tick {
        link: usize,
        side: usize,
        epoch: u32,
    },
    /// Two machines try to open a session.
    Connect { link: usize, epoch: u32 },
    /// A disk has finished a commit.
    Commit { node: usize, life: u32 },
    /// A second of a store is over.
    Maintain { node: usize, life: u32 },
    /// A user changes something.
    Change,
    /// A fault begins.
    Fault { number: usize },
    /// A partition ends.
    Heal { number: usize },
    /// A machine restarts.
    Restart { node: usize, life: u32, power: bool },
    /// Faults and changes are over.
    Calm,
    /// Checks whether all machines agree.
    Check,
}

/// Ordered by time, then by when the event was scheduled. The earliest comes first.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What waits for a commit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// A user on this machine, whose change is followed.
    Change,
    /// Nothing.
    Own,
    /// An end of a session.
    Session {
        link: usize,
        side: usize,
        epoch: u32,
    },
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: MachineId,
    pub(super) machine: Machine,
    pub(super) up: bool,
    /// False once the machine has left.
    pub(super) member: bool,
    /// Number of starts.
    pub(super) life: u32,
    pub(super) since: u64,
    pub(super) clock_ms: i64,
    /// Its present observations.
    pub(super) truth: Rows,
    pub(super) queue: VecDeque<(Work, Origin)>,
    pub(super) committing: Vec<(Work, Origin)>,
    started_ms: u64,
    round: u64,
    pub(super) links: Vec<usize>,
}

#[derive(Debug)]
struct Side {
    end: End,
    inbox: VecDeque<Bytes>,
    applying: bool,
    heard: u64,
}

/// Two machines that should have a session, or had one.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) ends: [usize; 2],
    pub(super) wanted: bool,
    /// Counts openings and closings.
    pub(super) epoch: u32,
    session: Option<Box<[Side; 2]>>,
    /// One stream towards each end.
    pub(super) streams: [Stream; 2],
    wake: [u64; 2],
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) watermarks: u64,
    pub(super) control: u64,
    pub(super) sessions: u64,
    pub(super) commits: u64,
    pub(super) events: u64,
}

#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) rng: SmallRng,
    pub(super) now: u64,
    queue: BinaryHeap<Due>,
    thought: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Link>,
    pub(super) pairs: BTreeMap<(usize, usize), usize>,
    /// For each partition, by number of the fault, the machines on the smaller side.
    pub(super) partitions: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) calm: bool,
    pub(super) tracker: Tracker,
    pub(super) history: Vec<std::sync::Arc<Op>>,
    pub(super) counters: Counters,
    pub(super) failures: Vec<String>,
    pub(super) settled: Option<u64>,
    /// Those of sessions that have ended.
    former_differences: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self {
            scenario,
            rng: SmallRng::seed_from_u64(scenario.seed),
            now: 0,
            queue: BinaryHeap::new(),
            thought: 0,
            nodes: Vec::new(),
            links: Vec::new(),
            pairs: BTreeMap::new(),
            partitions: BTreeMap::new(),
            calm: false,
            tracker: Tracker::default(),
            history: Vec::new(),
            counters: Counters::default(),
            failures: Vec::new(),
            settled: None,
            former_differences: 0,
        };
        world.found();
        let end = us(scenario.duration).max(WARM_UP);
        for _ in 0..scenario.workload.changes {
            let at = world.rng.random_range(WARM_UP..=end);
            world.at(at, Event::Change);
        }
        for (number, fault) in scenario.faults.iter().enumerate() {
            world.at(us(fault.at()).clamp(WARM_UP, end), Event::Fault { number });
        }
        world.at(end, Event::Calm);
        world
    }

    fn found(&mut self) {
        let founders: Vec<(MachineId, Rows)> = (0..self.scenario.machines)
            .map(|n| (self.machine_id(n), self.first_rows()))
            .collect();
        let power_cuts = self.power_cuts();
        match Machine::founders(&founders, EPOCH_MS, power_cuts) {
            Ok(machines) => {
                for (machine, (id, truth)) in machines.into_iter().zip(founders) {
                    self.add_node(id, machine, truth);
                }
            }
            Err(error) => self.fail(&error),
        }
        self.arrange();
    }

    pub(super) fn add_node(&mut self, id: MachineId, machine: Machine, truth: Rows) {
        let node = self.nodes.len();
        let skew = i64::try_from(self.scenario.clock_skew.as_millis()).unwrap_or(i64::MAX / 4);
        let clock_ms = self.rng.random_range(-skew..=skew);
        self.nodes.push(Node {
            id,
            machine,
            up: true,
            member: true,
            life: 0,
            since: self.now,
            clock_ms,
            truth,
            queue: VecDeque::new(),
            committing: Vec::new(),
            started_ms: 0,
            round: 0,
            links: Vec::new(),
        });
        let first = self.rng.random_range(0..SECOND);
        self.after(first, Event::Maintain { node, life: 0 });
    }

    pub(super) fn run(mut self) -> Report {
        while self.failures.len() < MAX_FAILURES
            && self.settled.is_none()
            && let Some(due) = self.queue.pop()
        {
            self.now = due.at;
            self.counters.events += 1;
            self.happen(due.event);
        }
        self.report()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { link, side, epoch } => self.arrive(link, side, epoch),
            Event::Tick { link, side, epoch } => self.tick(link, side, epoch),
            Event::Connect { link, epoch } => self.connect(link, epoch),
            Event::Commit { node, life } => self.committed(node, life),
            Event::Maintain { node, life } => self.maintain(node, life),
            Event::Change => self.change(),
            Event::Fault { number } => self.fault(number),
            Event::Heal { number } => self.heal(number),
            Event::Restart { node, life, power } => self.restart(node, life, power),
            Event::Calm => self.calm_down(),
            Event::Check => self.check(),
        }
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.thought += 1;
        self.queue.push(Due {
            at,
            number: self.thought,
            event,
        });
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn fail(&mut self, failure: &str) {
        self.failures
            .push(format!("at {:.3} s: {failure}", self.now as f64 / 1e6));
    }

    /// Returns about one second, with a jitter of 20 %.
    fn second(&mut self) -> u64 {
        self.rng.random_range(SECOND * 8 / 10..=SECOND * 12 / 10)
    }

    pub(super) fn clock(&self, node: usize) -> u64 {
        (EPOCH_MS + self.now / 1_000).saturating_add_signed(self.nodes[node].clock_ms)
    }

    pub(super) fn enqueue(&mut self, node: usize, work: Work, origin: Origin) {
        self.nodes[node].queue.push_back((work, origin));
        self.start_commit(node);
    }

    fn start_commit(&mut self, n: usize) {
        let started_ms = self.clock(n);
        let node = &mut self.nodes[n];
        if !node.committing.is_empty() || node.queue.is_empty() {
            return;
        }
        node.started_ms = started_ms;
        let group = node.queue.len().min(MAX_GROUP);
        node.committing.extend(node.queue.drain(..group));
        let durable = node.committing.iter().any(|(work, _)| work.is_durable());
        let life = node.life;
        let disk = self.scenario.disk;
        let takes = if durable {
            let spread = (FSYNC_SPREAD * normal(&mut self.rng)).exp();
            ((us(disk.fsync) as f64 * spread) as u64).min(us(disk.slowest))
        } else {
            us(disk.write)
        };
        self.after(takes, Event::Commit { node: n, life });
    }

    fn committed(&mut self, n: usize, life: u32) {
        if self.nodes[n].life == life {
            self.commit(n);
            self.start_commit(n);
        }
    }

    /// Makes visible what the disk has. A machine that crashes at this moment can get as far as
    /// here.
    pub(super) fn commit(&mut self, n: usize) {
        self.counters.commits += 1;
        let now = self.now;
        let node = &mut self.nodes[n];
        let (works, origins): (Vec<Work>, Vec<Origin>) =
            std::mem::take(&mut node.committing).into_iter().unzip();
        let done = match node.machine.commit(&works, node.started_ms) {
            Ok(done) => done,
            Err(error) => return self.fail(&error),
        };
        for work in &works {
            if let Work::Replace(fresh) = work {
                for (actor, version) in fresh.watermarks() {
                    self.tracker.seen_up_to(actor, version, n, node.since, now);
                }
            }
            if let Work::Apply(batch) = work {
                for op in &batch.ops {
                    self.tracker.seen(op.dot, n, node.since, now);
                }
                for (actor, version) in &batch.watermarks {
                    self.tracker
                        .seen_up_to(*actor, *version, n, node.since, now);
                }
            }
        }
        self.history.extend(done.intents);
        let made: Vec<Dot> = origins
            .iter()
            .zip(done.made)
            .filter_map(|(origin, made)| made.filter(|_| matches!(origin, Origin::Change)))
            .collect();
        for dot in made {
            self.tracker.made(dot, n, now);
        }
        if !self.nodes[n].up {
            return;
        }
        if done.begins_anew {
            return self.close_all(n);
        }
        for origin in &origins {
            if let Origin::Session { link, side, epoch } = *origin
                && self.links[link].epoch == epoch
                && let Some(session) = &mut self.links[link].session
            {
                session[side].applying = false;
                session[side].end.applied();
            }
        }
        for link in self.nodes[n].links.clone() {
            let side = usize::from(self.links[link].ends[1] == n);
            self.pump(link, side);
        }
        for origin in origins {
            if let Origin::Session { link, side, epoch } = origin
                && self.links[link].epoch == epoch
            {
                self.read(link, side);
            }
        }
    }

    fn maintain(&mut self, n: usize, life: u32) {
        let node = &mut self.nodes[n];
        if node.life != life || !node.up {
            return;
        }
        node.round += 1;
        let members = self.nodes.iter().filter(|node| node.member).count() as u64;
        let node = &self.nodes[n];
        if let Some(work) = node.machine.maintenance(node.round, members) {
            self.enqueue(n, work, Origin::Own);
        }
        self.after(SECOND, Event::Maintain { node: n, life });
    }

    fn connect(&mut self, l: usize, epoch: u32) {
        let link = &self.links[l];
        let [a, b] = link.ends;
        if link.epoch != epoch || !link.wanted || link.session.is_some() {
            return;
        }
        // Everything is fetched from one peer at a time.
        let open = |n: usize| {
            self.nodes[n]
                .links
                .iter()
                .any(|link| self.links[*link].session.is_some())
        };
        let fetches = [a, b]
            .into_iter()
            .any(|n| self.nodes[n].machine.state().is_rejoining() && open(n));
        if !self.nodes[a].up || !self.nodes[b].up || self.is_cut(a, b) || fetches {
            let again = self.second();
            return self.after(again, Event::Connect { link: l, epoch });
        }
        let side = |me: usize, peer: usize| Side {
            end: End::new(self.nodes[peer].id, &self.nodes[me].machine),
            inbox: VecDeque::new(),
            applying: false,
            heard: self.now,
        };
        let session = Box::new([side(a, b), side(b, a)]);
        let link = &mut self.links[l];
        link.session = Some(session);
        link.epoch += 1;
        link.streams = Default::default();
        link.wake = [u64::MAX; 2];
        let epoch = link.epoch;
        self.counters.sessions += 1;
        for side in [0, 1] {
            let first = self.second();
            self.after(
                first,
                Event::Tick {
                    link: l,
                    side,
                    epoch,
                },
            );
            self.pump(l, side);
        }
    }

    /// Ends a session, if there is one. Its ends try again later.
    pub(super) fn close(&mut self, l: usize) {
        let link = &mut self.links[l];
        if let Some(session) = link.session.take() {
            self.former_differences += session
                .iter()
                .map(|side| side.end.differences())
                .sum::<u64>();
        }
        link.epoch += 1;
        link.streams = Default::default();
        let epoch = link.epoch;
        if link.wanted {
            let again = self.second();
            self.after(again, Event::Connect { link: l, epoch });
        }
    }

    /// Returns how often digests differed although the watermarks were equal.
    pub(super) fn differences(&self) -> u64 {
        let sides = self
            .links
            .iter()
            .filter_map(|link| link.session.as_ref())
            .flat_map(|session| session.iter());
        self.former_differences + sides.map(|side| side.end.differences()).sum::<u64>()
    }

    pub(super) fn close_all(&mut self, n: usize) {
        for link in self.nodes[n].links.clone() {
            if self.links[link].session.is_some() {
                self.close(link);
            }
        }
    }

    pub(super) fn add_link(&mut self, ends: [usize; 2]) -> usize {
        let link = self.links.len();
        self.links.push(Link {
            ends,
            wanted: false,
            epoch: 0,
            session: None,
            streams: Default::default(),
            wake: [u64::MAX; 2],
        });
        for end in ends {
            self.nodes[end].links.push(link);
        }
        link
    }

    fn tick(&mut self, l: usize, side: usize, epoch: u32) {
        let link = &mut self.links[l];
        let Some(session) = link.session.as_mut().filter(|_| link.epoch == epoch) else {
            return;
        };
        if self.now - session[side].heard > SILENCE && !session[side].applying {
            return self.close(l);
        }
        session[side].end.tick(&self.nodes[link.ends[side]].machine);
        self.pump(l, side);
        let next = self.second();
        self.after(
            next,
            Event::Tick {
                link: l,
                side,
                epoch,
            },
        );
    }

    fn arrive(&mut self, l: usize, side: usize, epoch: u32) {
        let link = &mut self.links[l];
        let Some(session) = link.session.as_mut().filter(|_| link.epoch == epoch) else {
            return;
        };
        if link.wake[side] <= self.now {
            link.wake[side] = u64::MAX;
        }
        while let Some(frame) = link.streams[side].receive(self.now) {
            session[side].inbox.push_back(frame);
        }
        self.expect(l, side);
        self.read(l, side);
    }

    /// Schedules the arrival of the next frame towards `side`.
    pub(super) fn expect(&mut self, l: usize, side: usize) {
        let link = &mut self.links[l];
        if let Some(arrives) = link.streams[side].next_arrival()
            && arrives < link.wake[side]
        {
            link.wake[side] = arrives;
            let epoch = link.epoch;
            self.at(
                arrives.max(self.now),
                Event::Arrive {
                    link: l,
                    side,
                    epoch,
                },
            );
        }
    }

    /// Processes what has arrived, up to a frame whose changes must be committed first.
    fn read(&mut self, l: usize, side: usize) {
        let mut was_full = false;
        let mut wanted = None;
        loop {
            let link = &mut self.links[l];
            let n = link.ends[side];
            let clock = (EPOCH_MS + self.now / 1_000).saturating_add_signed(self.nodes[n].clock_ms);
            let Some(session) = &mut link.session else {
                return;
            };
            let here = &mut session[side];
            if here.applying {
                break;
            }
            let Some(frame) = here.inbox.pop_front() else {
                break;
            };
            here.heard = self.now;
            was_full |= !link.streams[side].has_room();
            link.streams[side].handled(frame.len());
            match here.end.handle(&frame, &self.nodes[n].machine, clock) {
                Ok(None) => {}
                Ok(Some(work)) => {
                    here.applying = true;
                    wanted = Some((
                        n,
                        work,
                        Origin::Session {
                            link: l,
                            side,
                            epoch: link.epoch,
                        },
                    ));
                }
                Err(error) => {
                    let ends = link.ends;
                    if let Some(wrong) = error {
                        self.fail(&format!("session of machines {ends:?}: {wrong}"));
                    }
                    return self.close(l);
                }
            }
        }
        self.pump(l, side);
        if was_full {
            self.pump(l, 1 - side);
        }
        if let Some((n, work, origin)) = wanted {
            self.enqueue(n, work, origin);
        }
    }

    /// Sends what is ready, as far as there is room.
    fn pump(&mut self, l: usize, side: usize) {
        let link = &mut self.links[l];
        let Some(session) = &mut link.session else {
            return;
        };
        let [a, b] = link.ends;
        let machine = &self.nodes[link.ends[side]].machine;
        let stream = &mut link.streams[1 - side];
        let measured = self.now >= WARM_UP && !self.calm;
        let mut path = None;
        while stream.has_room()
            && let Some(frame) = session[side].end.next_frame(machine)
        {
            if measured {
                match purpose(&frame) {
                    Purpose::Changes => {
                        self.counters.messages += 1;
                        self.counters.bytes += frame.len() as u64;
                    }
                    Purpose::Watermarks => self.counters.watermarks += 1,
                    Purpose::Control => self.counters.control += frame.len() as u64,
                }
            }
            let path = *path.get_or_insert_with(|| self.scenario.latency.path(a, b));
            stream.send(frame, self.now, path, self.scenario.loss, &mut self.rng);
        }
        if session[side].end.is_outgrown() {
            return self.close(l);
        }
        if path.is_some() {
            self.expect(l, 1 - side);
        }
    }
}
