//! Test machines: network namespaces on one bridge, removed when the test ends, however it ends.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use uc_mesh::{
    DEFAULT_MTU, MeshClient, MeshConfig, MeshError, PeerConfig, PrivateKey, PublicKey,
    management_address,
};

use crate::process::{DIRECTORY, LISTEN};

const PREFIX: &str = "ucmesh-";
pub(crate) const PORT: u16 = 51820;
/// Answers to pings that wait to be looked at: of ten minutes.
const REPLIES: usize = 10 * 60 * 20;

/// A network of machines, 192.168.77.0/24.
pub(crate) struct Lan {
    name: String,
}

impl Lan {
    /// None, with a notice, where namespaces or TUN devices cannot be made.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = Command::new("id")
            .arg("-u")
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let missing = if id.trim_ascii() != b"0" {
            Some("not root")
        } else if !Path::new("/dev/net/tun").exists() {
            Some("no /dev/net/tun")
        } else if ["ip", "nsenter", "ping", "iptables", "ip6tables"]
            .iter()
            .any(|program| which(program).is_none())
        {
            Some("ip, nsenter, ping and iptables are needed")
        } else {
            None
        };
        if let Some(reason) = missing {
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        sweep();
        let name = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lan = Self { name };
        ip(&format!("netns add {}", lan.name));
        ip(&format!("-n {} link add br0 type bridge", lan.name));
        ip(&format!("-n {} link set br0 up", lan.name));
        Some(lan)
    }

    /// Machine `n`, 1 to 9, with its mesh process running and not configured.
    pub(crate) async fn machine(&self, n: u8) -> Machine {
        let mut machine = self.bare_machine(n);
        machine.start().await;
        machine
    }

    /// Machine `n` without a mesh process.
    pub(crate) fn bare_machine(&self, n: u8) -> Machine {
        let namespace = format!("{}-{n}", self.name);
        ip(&format!("netns add {namespace}"));
        let machine = Machine::new(namespace.clone(), n);
        ip(&format!(
            "-n {} link add v{n} type veth peer name eth0 netns {namespace}",
            self.name
        ));
        ip(&format!("-n {} link set v{n} master br0 up", self.name));
        ip(&format!(
            "-n {namespace} addr add 192.168.77.{n}/24 dev eth0"
        ));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} link set lo up"));
        machine
    }
}

impl Lan {
    /// A command in the network between the machines.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/var/run/netns/{}", self.name))
            .arg(program);
        command
    }

    /// Room for another mesh process on the same machine.
    pub(crate) fn second_process_on(&self, machine: &Machine) -> Machine {
        assert!(machine.namespace.starts_with(&self.name));
        Machine::new(machine.namespace.clone(), machine.n)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) namespace: String,
    pub(crate) n: u8,
    pub(crate) key: PrivateKey,
    pub(crate) directory: tempfile::TempDir,
    process: Option<Child>,
}

impl Machine {
    fn new(namespace: String, n: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            namespace,
            n,
            key: PrivateKey::generate().unwrap(),
            directory,
            process: None,
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    pub(crate) fn management(&self) -> Ipv6Addr {
        management_address(&self.public_key())
    }

    /// Its address inside the mesh, as containers would know it.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 210, self.n, 1)
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::from(([192, 168, 77, self.n], PORT))
    }

    /// This machine as a peer of another one.
    pub(crate) fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.public_key(),
            endpoints: vec![self.endpoint()],
            allowed_ips: vec![
                format!("10.210.{}.0/24", self.n).parse().unwrap(),
                format!("{}/128", self.management()).parse().unwrap(),
            ],
            keepalive_s: 25,
            guest: false,
        }
    }

    pub(crate) fn config(&self, peers: &[PeerConfig]) -> MeshConfig {
        MeshConfig {
            private_key: self.key.clone(),
            listen_port: PORT,
            interface: "uc0".to_owned(),
            addresses: vec![
                format!("{}/32", self.inside()).parse().unwrap(),
                format!("{}/128", self.management()).parse().unwrap(),
            ],
            mtu: DEFAULT_MTU,
            peers: peers.to_vec(),
        }
    }

    pub(crate) fn client(&self) -> MeshClient {
        MeshClient::new(self.directory.path().join("mesh.sock"))
    }

    pub(crate) async fn apply(&self, peers: &[PeerConfig]) {
        self.client().apply(&self.config(peers)).await.unwrap();
    }

    /// Starts the mesh process and waits until it answers.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let child = self
            .command(std::env::current_exe().unwrap().to_str().unwrap())
            .args([
                "--exact",
                "process::mesh_process",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIRECTORY, self.directory.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.directory.path().join("stderr")).unwrap())
            .spawn();
        self.process = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = self.client().status().await {
            assert!(matches!(error, MeshError::NotRunning { .. }), "{error}");
            assert!(
                Instant::now() < deadline && self.running(),
                "no mesh process: {}",
                self.stderr()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// Sends the mesh process a signal and waits for its end; whether it ended in success.
    pub(crate) fn stop(&mut self, signal: Signal) -> bool {
        let mut process = self.process.take().expect("it runs");
        kill_process(Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap().success()
    }

    /// Waits until the mesh process ended by itself; whether it ended in success.
    pub(crate) async fn ended(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.running() {
            assert!(Instant::now() < deadline, "the mesh process did not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process
            .take()
            .expect("it ran")
            .wait()
            .unwrap()
            .success()
    }

    /// Starts a process that listens on the TCP ports of the test on all addresses.
    pub(crate) fn listen(&self) -> Listener {
        let child = self
            .command(std::env::current_exe().unwrap().to_str().unwrap())
            .args(["--exact", "process::listener", "--ignored", "--nocapture"])
            .env(LISTEN, "1")
            .stdout(Stdio::null())
            .spawn();
        Listener(child.unwrap())
    }

    /// A command inside the machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/var/run/netns/{}", self.namespace))
            .arg(program);
        command
    }

    /// Runs `ip` inside the machine.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.namespace))
    }

    pub(crate) fn has_interface(&self) -> bool {
        self.command("ip")
            .args(["link", "show", "uc0"])
            .output()
            .unwrap()
            .status
            .success()
    }

    /// One ping; whether an answer came within a second.
    pub(crate) fn reaches(&self, address: impl Into<IpAddr>) -> bool {
        let output = self
            .command("ping")
            .args(["-c", "1", "-W", "1", &address.into().to_string()])
            .output();
        output.unwrap().status.success()
    }

    /// Pings until an answer comes.
    pub(crate) async fn must_reach(
        &self,
        address: impl Into<IpAddr>,
        within: Duration,
    ) -> Duration {
        let (address, start) = (address.into(), Instant::now());
        while !self.reaches(address) {
            if start.elapsed() > within {
                let status = self.client().status().await;
                panic!(
                    "{} cannot reach {address}: {status:?}\n{}",
                    self.namespace,
                    self.stderr()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        start.elapsed()
    }

    /// Pings 20 times a second until told to stop.
    pub(crate) fn keep_pinging(&self, address: impl Into<IpAddr>) -> Pinging {
        let child = self
            .command("ping")
            .args(["-D", "-i", "0.05", "-W", "2", &address.into().to_string()])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let (said, replies) = mpsc::sync_channel(REPLIES);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for reply in lines
                .map_while(Result::ok)
                .filter_map(|line| Reply::read(&line))
            {
                // Nobody has to listen.
                let _ = said.send(reply);
            }
        });
        Pinging { child, replies }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("mesh process of {}:\n{}", self.namespace, self.stderr());
        }
        remove_namespace(&self.namespace);
    }
}

/// A process that listens until it is dropped.
pub(crate) struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An answer to a ping.
struct Reply {
    /// Counts the pings from 1.
    number: u32,
    /// When its ping was sent, in seconds since 1970.
    sent: f64,
}

impl Reply {
    /// Reads a line of `ping -D`, as in `[1700000000.25] 64 bytes from 10.210.2.1: icmp_seq=3
    /// ttl=64 time=0.81 ms`.
    fn read(line: &str) -> Option<Self> {
        let (at, rest) = line.strip_prefix('[')?.split_once(']')?;
        let field = |name| rest.split_once(name)?.1.split(' ').next();
        let took = field("time=")?.parse::<f64>().ok()? / 1_000.0;
        Some(Self {
            number: field("icmp_seq=")?.parse().ok()?,
            sent: at.parse::<f64>().ok()? - took,
        })
    }
}

/// A running series of pings.
pub(crate) struct Pinging {
    child: Child,
    replies: mpsc::Receiver<Reply>,
}

impl Pinging {
    /// Stops, and returns how many pings were sent until now and how many of them were answered. It
    /// first waits for the answer to a later ping: one that is still on its way now is not lost.
    pub(crate) fn stop(self) -> (u32, u32) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let mut answered = BTreeSet::new();
        loop {
            let reply = self
                .replies
                .recv_timeout(Duration::from_secs(10))
                .expect("pings are answered");
            if reply.sent > now {
                return (
                    reply.number - 1,
                    answered.range(..reply.number).count().try_into().unwrap(),
                );
            }
            answered.insert(reply.number);
        }
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `ip`; panics with its words if it fails.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output: Output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {stderr}",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.exists())
}

fn remove_namespace(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

/// Takes away what a test process that was killed left behind.
fn sweep() {
    for entry in std::fs::read_dir("/var/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner).exists()
        {
            remove_namespace(&name);
        }
    }
}
