//! Three machines as processes, which receive commands on their standard input.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::machine::{Answer, Command};
use crate::relay;

/// Limit for a command.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two comparisons of the digests.
const COMPARE: Duration = Duration::from_millis(200);

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    n: u8,
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    link: SocketAddr,
    look: SocketAddr,
    /// Where it answers `Put`.
    pub(crate) put: PathBuf,
}

/// A moment on a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) ns: u64,
    pub(crate) incarnation: u64,
    pub(crate) version: u64,
}

impl Machine {
    async fn start(n: u8, directory: &Path) -> anyhow::Result<Self> {
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .arg("machine")
            .arg(n.to_string())
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a machine")?;
        let commands = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut answers = BufReader::new(stdout).lines();
        let Answer::Ready { link, put, look } = read(n, &mut answers).await? else {
            bail!("machine {n} did not say that it is ready");
        };
        Ok(Self {
            n,
            child,
            commands,
            answers,
            link,
            look,
            put,
        })
    }

    /// Tells without waiting for the answer.
    pub(crate) async fn tell(&mut self, command: &Command) -> anyhow::Result<()> {
        let line = serde_json::to_string(command)? + "\n";
        Ok(self.commands.write_all(line.as_bytes()).await?)
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> anyhow::Result<Answer> {
        read(self.n, &mut self.answers).await
    }

    async fn done(&mut self, command: &Command) -> anyhow::Result<()> {
        self.tell(command).await?;
        match self.answer().await? {
            Answer::Done => Ok(()),
            other => bail!("machine {} answered {other:?}", self.n),
        }
    }

    /// Tells something that ends in a moment.
    pub(crate) async fn at(&mut self, command: &Command) -> anyhow::Result<At> {
        self.tell(command).await?;
        self.moment().await
    }

    /// The answer to something that ends in a moment.
    pub(crate) async fn moment(&mut self) -> anyhow::Result<At> {
        match self.answer().await? {
            Answer::At {
                ns,
                incarnation,
                version,
            } => Ok(At {
                ns,
                incarnation,
                version,
            }),
            other => bail!("machine {} answered {other:?}", self.n),
        }
    }

    async fn digest(&mut self) -> anyhow::Result<Vec<u8>> {
        self.tell(&Command::Digest).await?;
        match self.answer().await? {
            Answer::Digest(digest) => Ok(digest),
            other => bail!("machine {} answered {other:?}", self.n),
        }
    }

    /// As a power cut would.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

async fn read(n: u8, answers: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<Answer> {
    let line = tokio::time::timeout(PATIENCE, answers.next_line())
        .await
        .with_context(|| format!("machine {n} did not answer within {} s", PATIENCE.as_secs()))??
        .with_context(|| format!("machine {n} has ended"))?;
    serde_json::from_str(&line).with_context(|| format!("machine {n} answered {line}"))
}

/// Three machines that replicate to each other. Each is linked with each.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine>,
}

impl Cluster {
    /// Starts it in a directory; with a delay, each link takes that long each way.
    pub(crate) async fn start(directory: &Path, delay: Option<Duration>) -> anyhow::Result<Self> {
        let mut machines: Vec<Machine> = Vec::new();
        for n in 1..=3 {
            let mut machine = Machine::start(n, directory).await?;
            for other in &machines {
                let address = match delay {
                    Some(delay) => relay::start(other.link, delay)?,
                    None => other.link,
                };
                machine
                    .done(&Command::Dial {
                        peer: other.n,
                        address,
                    })
                    .await?;
            }
            machines.push(machine);
        }
        let mut cluster = Self { machines };
        // The first record shows that the links are up.
        cluster.import("first/", 1, 8).await?;
        Ok(cluster)
    }

    /// Machine 1 writes records in large transactions; how long until both others have all, and all
    /// three the same.
    pub(crate) async fn import(
        &mut self,
        prefix: &str,
        count: u64,
        value: usize,
    ) -> anyhow::Result<Duration> {
        let [first, others @ ..] = self.machines.as_mut_slice() else {
            bail!("no machines")
        };
        let now = first.at(&Command::Version).await?;
        for other in &mut *others {
            let version = now.version + count;
            other
                .tell(&Command::Reach {
                    peer: 1,
                    incarnation: now.incarnation,
                    version,
                })
                .await?;
        }
        let prefix = prefix.to_owned();
        let begin = first
            .at(&Command::Import {
                prefix,
                count,
                value,
            })
            .await?;
        ensure!(
            begin.incarnation == now.incarnation,
            "machine 1 has a new incarnation"
        );
        let mut last = begin.ns;
        for other in others {
            last = last.max(other.moment().await?.ns);
        }
        self.compare().await?;
        Ok(Duration::from_nanos(last.saturating_sub(begin.ns)))
    }

    /// Waits until all machines have what machine 1 has, and how long that took.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<Duration> {
        let [first, others @ ..] = self.machines.as_mut_slice() else {
            bail!("no machines")
        };
        let now = first.at(&Command::Version).await?;
        let mut last = now.ns;
        for other in others {
            let reach = Command::Reach {
                peer: 1,
                incarnation: now.incarnation,
                version: now.version,
            };
            last = last.max(other.at(&reach).await?.ns);
        }
        self.compare().await?;
        Ok(Duration::from_nanos(last.saturating_sub(now.ns)))
    }

    /// All machines hold the same.
    async fn compare(&mut self) -> anyhow::Result<()> {
        let comparing = async {
            loop {
                let mut digests = Vec::new();
                for machine in &mut self.machines {
                    digests.push(machine.digest().await?);
                }
                if digests.iter().all(|digest| Some(digest) == digests.first()) {
                    return Ok(());
                }
                tokio::time::sleep(COMPARE).await;
            }
        };
        tokio::time::timeout(PATIENCE, comparing)
            .await
            .context("the machines do not hold the same")?
    }

    /// Machine 1 writes records one by one; the others' watchers' delays, in nanoseconds, by
    /// machine and watcher.
    pub(crate) async fn observe(
        &mut self,
        prefix: &str,
        count: u64,
        gap: Duration,
        watchers: usize,
    ) -> anyhow::Result<Vec<Vec<Vec<(String, u64)>>>> {
        let [first, others @ ..] = self.machines.as_mut_slice() else {
            bail!("no machines")
        };
        for other in &mut *others {
            let prefix = prefix.to_owned();
            other
                .tell(&Command::Observe {
                    prefix,
                    count: count as usize,
                    watchers,
                })
                .await?;
            let answer = other.answer().await?;
            ensure!(
                matches!(answer, Answer::Armed),
                "machine {} answered {answer:?}",
                other.n
            );
        }
        let (prefix, gap_us) = (prefix.to_owned(), gap.as_micros() as u64);
        first
            .done(&Command::Write {
                prefix,
                count,
                gap_us,
                value: crate::load::VALUE,
            })
            .await?;
        let mut all = Vec::new();
        for other in others {
            match other.answer().await? {
                Answer::Seen(seen) => all.push(seen),
                answer => bail!("machine {} answered {answer:?}", other.n),
            }
        }
        Ok(all)
    }

    /// Lets the machines look for each other, and waits until each sees each.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let all: Vec<_> = self
            .machines
            .iter()
            .map(|machine| (machine.n, machine.look))
            .collect();
        for machine in &mut self.machines {
            let peers = all
                .iter()
                .copied()
                .filter(|(n, _)| *n != machine.n)
                .collect();
            machine.done(&Command::Look { peers }).await?;
        }
        for machine in &mut self.machines {
            let me = machine.n;
            for (peer, _) in all.iter().filter(|(n, _)| *n != me) {
                machine
                    .at(&Command::Await {
                        peer: *peer,
                        up: true,
                    })
                    .await?;
            }
        }
        Ok(())
    }
}
