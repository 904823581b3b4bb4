//! The rival: three members of etcd on ports of the loopback interface, in a directory below
//! `target/`. If etcd is not installed, Debian's package is unpacked there, without installing it
//! or starting a service.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::figure::note;
use crate::put::StatusResponse;
use crate::scratch;

/// Limit for three members to elect a leader.
const ELECTION: Duration = Duration::from_secs(20);
/// Limit for a member to answer.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Three running members; ended when dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    members: Vec<Child>,
    /// Where the leader answers clients.
    pub(crate) leader: PathBuf,
    /// What it calls its version.
    pub(crate) version: String,
}

impl Etcd {
    /// Starts it and waits for a leader.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let program = program().await?;
        let peers = free_ports()?;
        let url = |address: &SocketAddr| format!("http://{address}");
        let cluster: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(n, peer)| format!("m{n}={}", url(peer)))
            .collect();
        let mut members = Vec::new();
        let mut sockets = Vec::new();
        for (n, peer) in peers.iter().enumerate() {
            // etcd accepts only a URL with a host and a port, so the socket's file has such a name.
            let socket = format!("m{n}:1");
            let client = format!("unix://{socket}");
            sockets.push(directory.join(socket));
            let log = std::fs::File::create(directory.join(format!("m{n}.log")))?;
            let mut command = Command::new(&program);
            command.args(["--name", &format!("m{n}")]);
            command
                .arg("--data-dir")
                .arg(directory.join(format!("m{n}")));
            command.args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ]);
            command.args([
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
            ]);
            command.args([
                "--initial-cluster",
                &cluster.join(","),
                "--initial-cluster-state",
                "new",
            ]);
            command.args(["--logger", "zap", "--log-level", "error"]);
            command.current_dir(directory);
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .kill_on_drop(true);
            members.push(
                command
                    .spawn()
                    .with_context(|| format!("cannot start {}", program.display()))?,
            );
        }
        let electing = async {
            loop {
                for socket in &sockets {
                    if let Some(status) = leads(socket).await {
                        return (socket.clone(), status.version);
                    }
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let (leader, version) = tokio::time::timeout(ELECTION, electing)
            .await
            .context("three members of etcd did not elect a leader")?;
        Ok(Self {
            members,
            leader,
            version,
        })
    }

    /// Ends the members.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.kill().await?;
        }
        Ok(())
    }
}

/// The status of a member if it is the leader.
async fn leads(client: &Path) -> Option<StatusResponse> {
    // The member can be starting or without a leader. The caller asks again.
    let asking = async { Client::connect(client).await?.status().await };
    let status = tokio::time::timeout(PATIENCE, asking).await.ok()?.ok()?;
    let me = status.header.as_ref()?.member;
    (status.leader != 0 && status.leader == me).then_some(status)
}

/// Three unused ports.
fn free_ports() -> anyhow::Result<Vec<SocketAddr>> {
    // All stay open until all are known, so that they differ.
    let listeners: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?)
}

async fn program() -> anyhow::Result<PathBuf> {
    let root = scratch::root().join("etcd");
    let unpacked = root.join("usr/bin/etcd");
    if let Some(path) = std::env::var_os("PATH") {
        let mut found = std::env::split_paths(&path).map(|directory| directory.join("etcd"));
        if let Some(program) = found.find(|program| program.is_file()) {
            return Ok(program);
        }
    }
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    note("etcd not found: unpacking Debian's etcd-server below target/bench");
    std::fs::create_dir_all(&root)?;
    let download = || {
        let mut download = Command::new("apt-get");
        download.args(["download", "-q", "etcd-server"]);
        download.current_dir(&root);
        download
    };
    if run(&mut download()).await.is_err() {
        // A machine on which nothing was installed yet has no package lists.
        run(Command::new("apt-get").args(["update", "-q"])).await?;
        run(&mut download()).await?;
    }
    let mut packages = std::fs::read_dir(&root)?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let Some(package) =
        packages.find(|path| path.extension().is_some_and(|ending| ending == "deb"))
    else {
        bail!("apt-get downloaded no package to {}", root.display());
    };
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root)).await?;
    ensure!(
        unpacked.is_file(),
        "the package etcd-server has no usr/bin/etcd"
    );
    Ok(unpacked)
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await;
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let status = status.with_context(|| format!("cannot run {program}; hint: install etcd"))?;
    ensure!(
        status.success(),
        "{program} failed ({status}); hint: install etcd"
    );
    Ok(())
}
