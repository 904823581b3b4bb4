//! One machine of the measured cluster, as a process with a store, links, the gRPC service and
//! membership. It reads commands from standard input, one line of JSON each, and answers on
//! standard output.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, Stdin, Stdout};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio_util::sync::CancellationToken;
use uc_cluster_state::membership::{Liveness, Membership, PairKey, Peer};
use uc_cluster_state::{Actor, ClusterId, MAX_TRANSACTION, Options, Store};

use crate::link::{self, machine};
use crate::observe::Observer;
use crate::record::{KINDS, now_ns, stamped};
use crate::serve::serve;

const CLUSTER: ClusterId = ClusterId([0xbe; 16]);

/// A command to a machine, which runs one at a time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Keep a link to a peer.
    Dial { peer: u8, address: SocketAddr },
    /// Write records `PREFIX0` and on, one at a time, at most `gap_us` apart: `Done`.
    Write {
        prefix: String,
        count: u64,
        gap_us: u64,
        value: usize,
    },
    /// Watch until that many records of the prefix were seen by each of the watchers: `Armed`,
    /// later `Seen`.
    Observe {
        prefix: String,
        count: usize,
        watchers: usize,
    },
    /// Write that many records in transactions as large as they may be: `At` with the time before
    /// the first.
    Import {
        prefix: String,
        count: u64,
        value: usize,
    },
    /// What is this machine's own version: `At`, now.
    Version,
    /// Wait until a machine's version is here: `At`.
    Reach {
        peer: u8,
        incarnation: u64,
        version: u64,
    },
    /// The digest of everything here: `Digest`.
    Digest,
    /// The machines to look for: `Done`.
    Look { peers: Vec<(u8, SocketAddr)> },
    /// Wait until a peer is up, or down: `At`.
    Await { peer: u8, up: bool },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Ready {
        link: SocketAddr,
        put: PathBuf,
        look: SocketAddr,
    },
    Done,
    Armed,
    /// For each watcher, how long after the write began it saw each record, in nanoseconds.
    Seen(Vec<Vec<(String, u64)>>),
    /// A moment and this machine's own incarnation and version.
    At {
        ns: u64,
        incarnation: u64,
        version: u64,
    },
    Digest(Vec<u8>),
}

/// The key of two machines. It is no secret, because the measured cluster has none.
fn pair_key(a: u8, b: u8) -> PairKey {
    let mut key = [0xbe; 32];
    key[..2].copy_from_slice(&[a.min(b), a.max(b)]);
    PairKey::from_bytes(key)
}

/// Opens the store of machine `n` in `directory`.
pub(crate) async fn open(n: u8, directory: &Path) -> anyhow::Result<Store> {
    let path = directory.join(format!("{n}.db"));
    Ok(Store::open(Options::new(path, CLUSTER, machine(n), KINDS)).await?)
}

/// Runs until standard input ends.
pub(crate) async fn run(n: u8, directory: &Path) -> anyhow::Result<()> {
    let store = open(n, directory).await?;
    let links = TcpListener::bind("127.0.0.1:0").await?;
    let put = directory.join(format!("{n}.sock"));
    let puts = UnixListener::bind(&put)?;
    let look = UdpSocket::bind("127.0.0.1:0").await?;
    let ready = Answer::Ready {
        link: links.local_addr()?,
        put,
        look: look.local_addr()?,
    };
    let membership = Membership::start(look, machine(n), store.starts(), CancellationToken::new())?;
    tokio::spawn(link::accept(store.clone(), links));
    tokio::spawn(serve(store.clone(), puts));
    let lines = BufReader::new(tokio::io::stdin()).lines();
    let mut served = Served {
        n,
        store,
        membership,
        lines,
        out: tokio::io::stdout(),
    };
    served.answer(&ready).await?;
    while let Some(line) = served.lines.next_line().await? {
        let command = serde_json::from_str(&line).with_context(|| format!("bad command {line}"))?;
        served.obey(command).await?;
    }
    Ok(())
}

struct Served {
    n: u8,
    store: Store,
    membership: Membership,
    lines: Lines<BufReader<Stdin>>,
    out: Stdout,
}

impl Served {
    async fn answer(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let line = serde_json::to_string(answer)? + "\n";
        self.out.write_all(line.as_bytes()).await?;
        Ok(self.out.flush().await?)
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        let answer = match command {
            Command::Dial { peer, address } => {
                tokio::spawn(link::dial(self.store.clone(), self.n, peer, address));
                Answer::Done
            }
            Command::Write {
                prefix,
                count,
                gap_us,
                value,
            } => {
                for n in 0..count {
                    // Uneven gaps: nothing here beats with a timer of the store.
                    tokio::time::sleep(Duration::from_micros(
                        gap_us / 2 + n * 7_919 % (gap_us / 2 + 1),
                    ))
                    .await;
                    self.store
                        .write(vec![stamped(format!("{prefix}{n}"), value)])
                        .await?;
                }
                Answer::Done
            }
            Command::Observe {
                prefix,
                count,
                watchers,
            } => {
                let observers: Vec<_> = (0..watchers)
                    .map(|_| Observer::new(&self.store, &prefix))
                    .collect();
                self.answer(&Answer::Armed).await?;
                let tasks: Vec<_> = observers
                    .into_iter()
                    .map(|observer| tokio::spawn(observer.see(count)))
                    .collect();
                let mut seen = Vec::new();
                for task in tasks {
                    seen.push(task.await??.into_iter().collect());
                }
                Answer::Seen(seen)
            }
            Command::Import {
                prefix,
                count,
                value,
            } => {
                let ns = now_ns();
                let keys: Vec<String> = (0..count).map(|n| format!("{prefix}{n}")).collect();
                for keys in keys.chunks(MAX_TRANSACTION) {
                    let writes = keys.iter().map(|key| stamped(key.clone(), value)).collect();
                    self.store.write(writes).await?;
                }
                self.at(ns)
            }
            Command::Version => self.at(now_ns()),
            Command::Reach {
                peer,
                incarnation,
                version,
            } => {
                self.store
                    .wait_for(
                        Actor {
                            machine: machine(peer),
                            incarnation,
                        },
                        version,
                    )
                    .await?;
                self.at(now_ns())
            }
            Command::Digest => Answer::Digest(self.store.snapshot().digest().to_vec()),
            Command::Look { peers } => {
                let peers = peers
                    .into_iter()
                    .map(|(peer, address)| {
                        let key = pair_key(self.n, peer);
                        (machine(peer), Peer { address, key })
                    })
                    .collect();
                self.membership.set_peers(peers).await;
                Answer::Done
            }
            Command::Await { peer, up } => {
                let wanted = if up { Liveness::Up } else { Liveness::Down };
                let mut liveness = self.membership.liveness();
                if liveness
                    .wait_for(|all| all.get(&machine(peer)) == Some(&wanted))
                    .await
                    .is_err()
                {
                    bail!("membership has ended");
                }
                self.at(now_ns())
            }
        };
        self.answer(&answer).await
    }

    fn at(&self, ns: u64) -> Answer {
        let me = self.store.actor();
        Answer::At {
            ns,
            incarnation: me.incarnation,
            version: self.store.snapshot().watermark(me),
        }
    }
}
