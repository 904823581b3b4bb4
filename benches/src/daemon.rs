//! `bench daemon UCD`: what a running `ucd` costs as a member of a cluster with 50 other machines
//! and 1,000 replicas, while nothing changes and while replicas of another machine change.
//!
//! `ucd run` and `ucd mesh` are the real program, with a real `dockerd`, on a machine that is a
//! network namespace. They start without state, and join through the API. The other machines are
//! processes of this program with their own namespaces: real tunnels and real membership, so all
//! are up. One of them, the peer, has a real store with the records of all, and replicates with the
//! daemon over the protocol that daemons speak. The daemon has no other replication stream, and
//! calls no other machine.
//!
//! `UCD` is the program to measure: `cargo xtask bench daemon` builds and passes the present one,
//! `cargo xtask bench daemon --ucd PATH` measures another, which must speak the same protocol.
//! Needs root, and a `dockerd` that can be run.

mod api;
mod machine;
mod network;
mod peer;
mod process;
mod site;

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use uc_mesh::PublicKey;

use self::api::Api;
use self::machine::Machine;
use self::peer::Changes;
use self::process::{Memory, Spent};
use crate::figure::{Budget, Figure, note};
use crate::scratch::Scratch;

/// Before anything is measured, so that the handshakes and the first gossip of a join are over.
/// The join itself is acknowledged before.
const CALM: Duration = Duration::from_secs(15);
/// How long the idle daemon is measured.
const IDLE: Duration = Duration::from_secs(30);
/// 50 changes a second for 20 s.
const BUSY: Changes = Changes {
    count: 1_000,
    gap_ms: 20,
};
/// Time for another machine to start, and for the peer to make its changes.
const PATIENCE: Duration = Duration::from_secs(60);
const MB: f64 = 1_000_000.0;

/// Measures the program and reports, in namespaces of its own.
pub(crate) async fn run(ucd: &Path) -> anyhow::Result<()> {
    network::check()?;
    let ucd = ucd
        .canonicalize()
        .with_context(|| format!("cannot find {}", ucd.display()))?;
    let scratch = Scratch::new()?;
    let status = network::apart(&std::env::current_exe()?)
        .arg("daemon-apart")
        .arg(ucd)
        .arg(scratch.directory("daemon")?)
        .status()
        .await
        .context("cannot run unshare")?;
    ensure!(status.success(), "the run failed ({status})");
    Ok(())
}

/// The run itself, in its namespaces.
pub(crate) async fn run_apart(ucd: &Path, directory: &Path) -> anyhow::Result<()> {
    network::furnish().await?;
    let measured = Measured::start(ucd, directory)?;
    let outcome = measure(&measured, directory).await;
    if outcome.is_err() {
        show_log(directory)?;
    }
    outcome
}

/// Runs another machine of the cluster.
pub(crate) async fn run_machine(number: u8, measured: &str) -> anyhow::Result<()> {
    let machine = Machine::start(number, measured.parse()?).await?;
    say("ready").await?;
    machine.run().await
}

/// Runs the machine that has the records.
pub(crate) async fn run_peer(directory: &Path, measured: &str) -> anyhow::Result<()> {
    peer::run(directory, measured.parse()?).await
}

/// Writes a line to standard output, for the process that started this one.
async fn say(line: &str) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).await?;
    Ok(out.flush().await?)
}

async fn measure(measured: &Measured, directory: &Path) -> anyhow::Result<()> {
    let api = Api::connect().await?;
    let key = api.public_key().await?;
    let mut peer = Other::start_peer(directory, key)?;
    let mut others = Vec::new();
    for number in (1..=site::OTHERS).filter(|number| *number != site::PEER) {
        others.push(Other::start(number, key)?);
    }
    peer.hear("ready").await?;
    for other in &mut others {
        other.hear("ready").await?;
    }
    api.join(key).await?;
    api.wait_complete().await?;
    tokio::time::sleep(CALM).await;

    let before = measured.read()?;
    tokio::time::sleep(IDLE).await;
    let after = measured.read()?;
    after.report(&before, ["daemon/idle_cpu", "daemon/idle_memory"], 1.0)?;
    // Nothing was lost in the meantime, and the busy part starts with the same cluster.
    api.wait_complete().await?;

    let before = measured.read()?;
    peer.tell(&BUSY).await?;
    peer.hear("changed").await?;
    api.wait_changed(BUSY.count).await?;
    let after = measured.read()?;
    let names = ["daemon/busy_cpu", "daemon/busy_memory"];
    after.report(&before, names, 5.0)?;
    api.wait_complete().await
}

/// The processes that are measured, and the engine that they need.
#[derive(Debug)]
struct Measured {
    daemon: Child,
    mesh: Child,
    _engine: Child,
}

impl Measured {
    fn start(ucd: &Path, directory: &Path) -> anyhow::Result<Self> {
        let start = |program: &Path, name: &str, arguments: &[&Path]| {
            let log = File::create(directory.join(name))?;
            network::on_machine(site::MEASURED, program)
                .args(arguments)
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))
        };
        let state = directory.join("state");
        let data = directory.join("docker");
        let in_state = |command| [Path::new("--state-dir"), &state, command];
        Ok(Self {
            _engine: start(
                Path::new("dockerd"),
                "dockerd.log",
                &[
                    Path::new("--data-root"),
                    &data,
                    Path::new("--bridge"),
                    Path::new("none"),
                ],
            )?,
            mesh: start(ucd, "mesh.log", &in_state(Path::new("mesh")))?,
            daemon: start(ucd, "ucd.log", &in_state(Path::new("run")))?,
        })
    }

    fn read(&self) -> anyhow::Result<Reading> {
        let cost = |child: &Child| {
            let pid = child.id().context("a measured process has ended")?;
            Ok::<_, anyhow::Error>((Spent::read(pid)?, Memory::read(pid)?))
        };
        Ok(Reading {
            daemon: cost(&self.daemon)?,
            mesh: cost(&self.mesh)?,
        })
    }
}

/// Shows what the processes logged last.
fn show_log(directory: &Path) -> anyhow::Result<()> {
    for name in ["dockerd.log", "mesh.log", "ucd.log"] {
        let log = std::fs::read_to_string(directory.join(name))?;
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(10));
        for line in last {
            note(&format!("{name}: {line}"));
        }
    }
    Ok(())
}

/// What `ucd run` and `ucd mesh` have cost so far.
#[derive(Debug)]
struct Reading {
    daemon: (Spent, Memory),
    mesh: (Spent, Memory),
}

impl Reading {
    /// Reports the daemon's processor time since an earlier reading, and the memory of both
    /// processes now.
    fn report(
        &self,
        earlier: &Self,
        [cpu, memory]: [&'static str; 2],
        budget: f64,
    ) -> anyhow::Result<()> {
        let daemon = self.daemon.0.since(&earlier.daemon.0);
        let mesh = self.mesh.0.since(&earlier.mesh.0);
        for (name, usage, held) in [
            ("ucd run", daemon, self.daemon.1),
            ("ucd mesh", mesh, self.mesh.1),
        ] {
            note(&format!(
                "{name}: {:.2} % of a core ({} ms), {:.1} MB resident, {:.1} MB proportional",
                usage.percent(),
                usage.processor.as_millis(),
                held.resident as f64 / MB,
                held.proportional as f64 / MB
            ));
        }
        Figure::new(cpu, daemon.percent(), "%", Budget::AtMost(budget)).report()?;
        let held = self.daemon.1.proportional + self.mesh.1.proportional;
        Figure::new(memory, held as f64 / MB, "MB", Budget::AtMost(80.0)).report()
    }
}

/// Another machine's process.
#[derive(Debug)]
struct Other {
    number: u8,
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(number: u8, measured: PublicKey) -> anyhow::Result<Self> {
        let mut command = network::on_machine(number, std::env::current_exe()?);
        command
            .arg("daemon-machine")
            .arg(number.to_string())
            .arg(measured.to_string());
        Self::spawn(number, command)
    }

    fn start_peer(directory: &Path, measured: PublicKey) -> anyhow::Result<Self> {
        let mut command = network::on_machine(site::PEER, std::env::current_exe()?);
        command
            .arg("daemon-peer")
            .arg(directory)
            .arg(measured.to_string());
        Self::spawn(site::PEER, command)
    }

    fn spawn(number: u8, mut command: tokio::process::Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start machine {number}"))?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self {
            number,
            _child: child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    async fn tell(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let line = serde_json::to_string(changes)? + "\n";
        Ok(self.stdin.write_all(line.as_bytes()).await?)
    }

    async fn hear(&mut self, expected: &str) -> anyhow::Result<()> {
        let number = self.number;
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line())
            .await
            .with_context(|| format!("machine {number} is not {expected} in time"))??
            .with_context(|| format!("machine {number} has ended"))?;
        if line != expected {
            bail!("machine {number} answered {line:?}");
        }
        Ok(())
    }
}
