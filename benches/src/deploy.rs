//! `bench deploy PROGRAMS TESTBED`: how long a deployment of twelve replicas on three machines
//! takes with `uc`, with `docker run` on each machine, and with Docker Swarm.
//!
//! The machines are those of a testbed of that name, which is started for it. All three tools use
//! the same three Docker engines, one after another in each round, with the same image, which every
//! engine has. Each deployment is measured twice: until its last replica runs, which the engine
//! reports as the time of the container's start, and until the tool has ended.
//!
//! `PROGRAMS` is a directory with `uc`, `ucd` and `install.sh`.

mod bare;
mod observe;
mod ours;
mod site;
mod swarm;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use uc_testbed::{Binaries, TestbedName};

use self::bare::Bare;
use self::observe::Replica;
use self::ours::Ours;
use self::site::Site;
use self::swarm::Swarm;
use crate::figure::{Budget, Figure, Rival, note, percentile};

/// The image of every replica. Swarm asks the registry for an image even if the engine has it. This
/// registry is a closed port of the machine itself, so the answer does not take a time-out.
const IMAGE: &str = "127.0.0.1:9/uc-bench/busybox:1";
/// What every replica runs. It ignores SIGTERM, so the tools stop it with SIGKILL.
const COMMAND: [&str; 2] = ["sleep", "infinity"];
/// Replicas, a third of them on each machine.
const REPLICAS: usize = 12;
/// Replicas that an update replaces at a time.
const PARALLELISM: usize = 4;
/// How long `uc` and Swarm watch a new replica in an update, in seconds. It is the default of `uc`.
const MONITOR: u32 = 2;
/// The label of every replica. Its value is the version, which no two deployments share.
const LABEL: &str = "uc-bench";
/// Each tool deploys this often. The median counts.
const ROUNDS: usize = 3;
/// No round begins after this, so that a slow machine measures fewer.
const LONGEST: Duration = Duration::from_secs(400);
/// Between two measurements, for what the engines do after a removal.
const CALM: Duration = Duration::from_secs(2);
/// Time until all replicas run, compared with `docker run`.
const TIMES_BARE: f64 = 1.3;

/// What is asked of a tool, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing runs yet.
    First,
    /// All replicas are replaced by those of another version.
    Update,
    /// The same version again.
    Nothing,
}

/// A tool that runs replicas on the machines.
trait Tool {
    /// As the figures name it.
    fn name(&self) -> &'static str;

    /// Carries out a stage with its own settings and waits for its end. `None`: the tool has
    /// nothing like it.
    fn run(&mut self, site: &Site, stage: Stage, version: &str) -> anyhow::Result<Option<Span>>;

    /// Removes what it has deployed, without waiting for the containers.
    fn remove(&mut self, site: &Site) -> anyhow::Result<()>;
}

/// When a tool was started and when it had ended, in nanoseconds since 1970. The machines and this
/// program share the clock.
#[derive(Debug, Clone, Copy)]
struct Span {
    began: u64,
    ended: u64,
}

/// Nanoseconds that a tool took in each round.
#[derive(Debug, Default)]
struct Times {
    first_running: Vec<u64>,
    first_ended: Vec<u64>,
    update_running: Vec<u64>,
    update_ended: Vec<u64>,
    nothing_ended: Vec<u64>,
}

/// One stage of one tool.
#[derive(Debug)]
struct Measured {
    /// Nanoseconds until the last replica ran; 0 if it ran before.
    running: u64,
    /// Nanoseconds until the tool had ended.
    ended: u64,
    replicas: Vec<Replica>,
}

/// A tool and what it took so far.
struct Contender {
    tool: Box<dyn Tool>,
    times: Times,
}

/// Measures the programs in this directory.
pub(crate) fn run(programs: &Path, testbed: &TestbedName) -> anyhow::Result<()> {
    let site = Site::start(&Binaries::in_directory(programs)?, testbed)?;
    let mut ours = Contender::new(Ours::new(&site)?);
    let mut rivals = vec![Contender::new(Bare)];
    match Swarm::start(&site) {
        Ok(swarm) => rivals.push(Contender::new(swarm)),
        Err(error) => note(&format!("measuring without Swarm: {error:#}")),
    }
    let begin = Instant::now();
    for number in 1..=ROUNDS {
        if begin.elapsed() > LONGEST {
            note(&format!(
                "stopped after {} of {ROUNDS} rounds and {} s",
                number - 1,
                LONGEST.as_secs()
            ));
            break;
        }
        ours.round(&site, number)?;
        let mut kept = Vec::new();
        for mut rival in rivals {
            match rival.round(&site, number) {
                Ok(()) => kept.push(rival),
                Err(error) => {
                    let name = rival.tool.name();
                    note(&format!("measuring without {name}: {error:#}"));
                    rival.clear(&site)?;
                }
            }
        }
        rivals = kept;
    }
    report(&mut ours, &mut rivals)
}

impl Contender {
    fn new(tool: impl Tool + 'static) -> Self {
        Self {
            tool: Box::new(tool),
            times: Times::default(),
        }
    }

    /// All stages once, in a round of this number.
    fn round(&mut self, site: &Site, number: usize) -> anyhow::Result<()> {
        note(&format!("round {number}: {}", self.tool.name()));
        let version = |stage| format!("{}-{number}-{stage}", self.tool.name());
        let (one, two) = (version("one"), version("two"));

        let Some(first) = self.stage(site, Stage::First, &one)? else {
            return Ok(());
        };
        self.times.first_running.push(first.running);
        self.times.first_ended.push(first.ended);

        if let Some(update) = self.stage(site, Stage::Update, &two)? {
            self.times.update_running.push(update.running);
            self.times.update_ended.push(update.ended);
            let left = observe::replicas(site, &one)?.len();
            ensure!(left == 0, "{left} replicas were not replaced");
            if let Some(nothing) = self.stage(site, Stage::Nothing, &two)? {
                let same = nothing.replicas == update.replicas;
                ensure!(same, "replicas changed without a reason");
                self.times.nothing_ended.push(nothing.ended);
            }
        }
        self.clear(site)
    }

    fn stage(
        &mut self,
        site: &Site,
        stage: Stage,
        version: &str,
    ) -> anyhow::Result<Option<Measured>> {
        let Some(span) = self.tool.run(site, stage, version)? else {
            return Ok(None);
        };
        let replicas = observe::replicas(site, version)?;
        let count = replicas.len();
        ensure!(count == REPLICAS, "{count} of {REPLICAS} replicas run");
        let last = replicas.iter().map(|replica| replica.started).max();
        let measured = Measured {
            running: last.context("no replicas")?.saturating_sub(span.began),
            ended: span.ended.saturating_sub(span.began),
            replicas,
        };
        let (running, ended) = (seconds(measured.running), seconds(measured.ended));
        note(&match stage {
            Stage::First | Stage::Update => {
                format!(
                    "  {stage:?}: {running:.2} s until all replicas run, {ended:.2} s to the end"
                )
            }
            Stage::Nothing => format!("  {stage:?}: {ended:.2} s to the end"),
        });
        thread::sleep(CALM);
        Ok(Some(measured))
    }

    fn clear(&mut self, site: &Site) -> anyhow::Result<()> {
        self.tool.remove(site)?;
        observe::wait_for_none(site)?;
        thread::sleep(CALM);
        Ok(())
    }
}

impl Times {
    /// The median in seconds; `None` if it was not measured.
    fn median(&mut self, of: fn(&mut Self) -> &mut Vec<u64>) -> Option<f64> {
        let samples = of(self);
        (!samples.is_empty()).then(|| seconds(percentile(samples, 50.0)))
    }
}

/// A figure's name, and where its samples are.
type Measure = (&'static str, fn(&mut Times) -> &mut Vec<u64>);

const MEASURES: [Measure; 5] = [
    ("deploy/first_running", |times| &mut times.first_running),
    ("deploy/first_ended", |times| &mut times.first_ended),
    ("deploy/update_running", |times| &mut times.update_running),
    ("deploy/update_ended", |times| &mut times.update_ended),
    ("deploy/nothing_ended", |times| &mut times.nothing_ended),
];

fn report(ours: &mut Contender, rivals: &mut [Contender]) -> anyhow::Result<()> {
    for (index, (name, of)) in MEASURES.into_iter().enumerate() {
        let value = ours.times.median(of).context("nothing was measured")?;
        let compared = rivals.iter_mut().filter_map(|rival| {
            Some(Rival {
                name: rival.tool.name(),
                value: rival.times.median(of)?,
                ratio: Budget::Free,
            })
        });
        let rivals: Vec<Rival> = compared.collect();
        let bare = rivals.iter().find(|rival| rival.name == bare::NAME);
        let budget = match bare {
            Some(bare) if index == 0 => Budget::AtMost(bare.value * TIMES_BARE),
            _ => Budget::Free,
        };
        Figure {
            rivals,
            ..Figure::new(name, value, "s", budget)
        }
        .report()?;
    }
    Ok(())
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// Nanoseconds since 1970.
fn now() -> anyhow::Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(u64::try_from(since.as_nanos())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_absent_for_a_stage_that_a_tool_does_not_have() {
        let mut times = Times {
            first_running: vec![3_000_000_000, 1_000_000_000, 2_500_000_000],
            ..Times::default()
        };
        assert_eq!(times.median(|times| &mut times.first_running), Some(2.5));
        assert_eq!(times.median(|times| &mut times.nothing_ended), None);
    }
}
