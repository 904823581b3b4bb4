//! Test machines: namespaces on one bridge, each with an engine and a mesh process. They are
//! removed when the test ends, however it ends.

use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::Docker;
use ipnet::Ipv4Net;
use rustix::process::{Pid, Signal, kill_process};
use uc_mesh::{DEFAULT_MTU, MeshClient, MeshConfig, PeerConfig, PrivateKey, management_address};

use crate::inside;

const PREFIX: &str = "ucnet-";
const BUSYBOX: &str = "/bin/busybox";
pub(crate) const IMAGE: &str = "uc-test-busybox:1";

/// The network that joins the machines, 192.168.78.0/24. Its own address .254 stands for the rest
/// of the world.
pub(crate) struct Lan {
    pub(crate) name: String,
    /// Root folder of the test image: a shell, and a web page that returns the client's address.
    pub(crate) root: tempfile::TempDir,
}

impl Lan {
    /// Makes the network. Returns `None` and prints a notice if machines cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let id = Command::new("id")
            .arg("-u")
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let programs = [
            "ip",
            "nsenter",
            "dockerd",
            "docker",
            "iptables",
            "ip6tables",
            "tar",
        ];
        let missing = if id.trim_ascii() != b"0" {
            Some("not root".to_owned())
        } else if !Path::new("/dev/net/tun").exists() {
            Some("no /dev/net/tun".to_owned())
        } else if !Path::new(BUSYBOX).exists() {
            Some(format!("no {BUSYBOX}"))
        } else {
            programs
                .iter()
                .find(|program| which(program).is_none())
                .map(|program| format!("no {program}"))
        };
        if let Some(reason) = missing {
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        sweep();
        let lan = Self {
            name: format!("{PREFIX}{}-{test}", std::process::id()),
            root: image_root(),
        };
        run("ip", &format!("netns add {}", lan.name));
        run("ip", &format!("-n {} link add br0 type bridge", lan.name));
        run(
            "ip",
            &format!("-n {} addr add 192.168.78.254/24 dev br0", lan.name),
        );
        run("ip", &format!("-n {} link set br0 up", lan.name));
        Some(lan)
    }

    /// Makes machine `n`, 1 to 9: only the namespace.
    pub(crate) fn machine(&self, n: u8) -> Machine {
        let namespace = format!("{}-{n}", self.name);
        run("ip", &format!("netns add {namespace}"));
        let machine = Machine {
            namespace: namespace.clone(),
            n,
            key: PrivateKey::generate().unwrap(),
            image: self.root.path().to_owned(),
            directory: tempfile::tempdir().unwrap(),
            mesh: None,
            engine: None,
        };
        run(
            "ip",
            &format!(
                "-n {} link add v{n} type veth peer name eth0 netns {namespace}",
                self.name
            ),
        );
        run(
            "ip",
            &format!("-n {} link set v{n} master br0 up", self.name),
        );
        run(
            "ip",
            &format!("-n {namespace} addr add 192.168.78.{n}/24 dev eth0"),
        );
        run("ip", &format!("-n {namespace} link set eth0 up"));
        run("ip", &format!("-n {namespace} link set lo up"));
        run(
            "ip",
            &format!("-n {namespace} route add default via 192.168.78.254"),
        );
        // A closed host: nothing is accepted or forwarded unless a rule allows it. (Docker sets
        // FORWARD to DROP itself, but only if it is the one that enables forwarding.)
        for program in ["iptables", "ip6tables"] {
            for rule in [
                "-P INPUT DROP",
                "-P FORWARD DROP",
                "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            ] {
                assert!(
                    machine
                        .command(program)
                        .args(rule.split(' '))
                        .status()
                        .unwrap()
                        .success()
                );
            }
        }
        machine
    }
}

impl Lan {
    /// Makes a command that runs in the rest of the world.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/var/run/netns/{}", self.name))
            .arg(program);
        command
    }
}

/// A process that ends with the test.
pub(crate) struct Stop(pub(crate) Child);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}

pub(crate) struct Machine {
    pub(crate) namespace: String,
    pub(crate) n: u8,
    key: PrivateKey,
    image: PathBuf,
    directory: tempfile::TempDir,
    mesh: Option<Child>,
    engine: Option<Child>,
}

impl Machine {
    pub(crate) fn subnet(&self) -> Ipv4Net {
        format!("10.210.{}.0/24", self.n).parse().unwrap()
    }

    pub(crate) fn management(&self) -> Ipv6Addr {
        management_address(&self.key.public())
    }

    pub(crate) fn as_peer(&self) -> PeerConfig {
        let key = self.key.public();
        PeerConfig {
            public_key: key,
            endpoints: vec![format!("192.168.78.{}:51820", self.n).parse().unwrap()],
            allowed_ips: vec![
                self.subnet().into(),
                format!("{}/128", management_address(&key)).parse().unwrap(),
            ],
            keepalive_s: 25,
            guest: false,
        }
    }

    /// Starts the mesh process and connects it with others.
    pub(crate) async fn join(&mut self, peers: &[PeerConfig]) {
        self.mesh = Some(self.inside("mesh").spawn().unwrap());
        let management = management_address(&self.key.public());
        let config = MeshConfig {
            private_key: self.key.clone(),
            listen_port: 51820,
            interface: "uc0".to_owned(),
            addresses: vec![
                format!("10.210.{}.1/32", self.n).parse().unwrap(),
                format!("{management}/128").parse().unwrap(),
            ],
            mtu: DEFAULT_MTU,
            peers: peers.to_vec(),
        };
        let client = MeshClient::new(self.directory.path().join("mesh.sock"));
        eventually("the mesh process answers", async || {
            client.status().await.is_ok()
        })
        .await;
        client.apply(&config).await.unwrap();
    }

    /// Starts the engine and loads the test image.
    pub(crate) async fn start_engine(&mut self) {
        let directory = self.directory.path().to_str().unwrap();
        let log = std::fs::File::create(self.directory.path().join("dockerd.log")).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/var/run/netns/{}", self.namespace))
            .args(["dockerd", "--data-root", &format!("{directory}/data")])
            .args([
                "--exec-root",
                &format!("{directory}/exec"),
                "-p",
                &format!("{directory}/pid"),
            ])
            .args(["-H", &format!("unix://{directory}/docker.sock")])
            .args(["--cgroup-parent", &format!("/{}", self.namespace)])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.engine = Some(child.unwrap());
        let socket = self.directory.path().join("docker.sock");
        eventually("the engine listens", async || socket.exists()).await;
        let docker = self.docker();
        eventually("the engine answers", async || docker.ping().await.is_ok()).await;
        if docker.inspect_image(IMAGE).await.is_err() {
            let archive = format!("{directory}/root.tar");
            run(
                "tar",
                &format!("-C {} -cf {archive} .", self.image.display()),
            );
            self.docker_cli(&["import", &archive, IMAGE]);
        }
    }

    /// Ends the engine and its containers.
    pub(crate) fn stop_engine(&mut self) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        let _ = kill_process(Pid::from_child(&engine), Signal::TERM);
        let _ = engine.wait();
    }

    /// Where the containers that are being moved are written down.
    pub(crate) fn journal(&self) -> std::path::PathBuf {
        self.directory.path().join("moved-containers")
    }

    pub(crate) fn docker(&self) -> Docker {
        let socket = format!("unix://{}/docker.sock", self.directory.path().display());
        Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION).unwrap()
    }

    /// Runs a docker command and returns its output.
    pub(crate) fn docker_cli(&self, arguments: &[&str]) -> String {
        let socket = format!("unix://{}/docker.sock", self.directory.path().display());
        let output = Command::new("docker")
            .args(["-H", &socket])
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "docker {}: {stderr}",
            arguments.join(" ")
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs `Firewall::ensure` or `remove` inside the machine.
    pub(crate) fn firewall(&self, role: &str) {
        let version = if self.engine.is_some() {
            self.docker_cli(&["version", "-f", "{{.Server.Version}}"])
        } else {
            "20.10.24".to_owned()
        };
        let output = self
            .inside(role)
            .env(inside::SPEC, format!("{} {version}", self.subnet()))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{role}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Returns the rules of one address family, as commands.
    pub(crate) fn rules(&self, program: &str) -> Vec<String> {
        let output = self.command(&format!("{program}-save")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| line.starts_with('-') || line.starts_with(':'))
            .map(str::to_owned)
            .collect()
    }

    /// Makes a command that runs inside the machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/var/run/netns/{}", self.namespace))
            .arg(program);
        command
    }

    fn inside(&self, role: &str) -> Command {
        let mut command = self.command(std::env::current_exe().unwrap().to_str().unwrap());
        command
            .args([
                "--exact",
                "inside::run",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(inside::ROLE, role)
            .env(inside::DIRECTORY, self.directory.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.directory.path().join(role)).unwrap());
        command
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.engine.is_some() {
            let socket = format!("unix://{}/docker.sock", self.directory.path().display());
            let kill = "ids=$(docker -H $0 ps -aq); [ -z \"$ids\" ] || docker -H $0 rm -f $ids";
            let _ = Command::new("sh")
                .args(["-c", kill, &socket])
                .stdout(Stdio::null())
                .status();
        }
        self.stop_engine();
        if let Some(mut mesh) = self.mesh.take() {
            let _ = mesh.kill();
            let _ = mesh.wait();
        }
        if std::thread::panicking() {
            let dockerd = self.log("dockerd.log");
            let tail: Vec<_> = dockerd.lines().rev().take(15).collect();
            eprintln!(
                "{}: mesh: {}\nengine, last first: {}",
                self.namespace,
                self.log("mesh"),
                tail.join("\n")
            );
        }
        remove_namespace(&self.namespace);
    }
}

fn image_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    std::fs::create_dir_all(root.path().join("cgi-bin")).unwrap();
    std::fs::copy(BUSYBOX, root.path().join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.path().join("bin/sh")).unwrap();
    let page = root.path().join("cgi-bin/who");
    std::fs::write(&page, "#!/bin/sh\necho\necho $REMOTE_ADDR\n").unwrap();
    std::fs::set_permissions(&page, std::fs::Permissions::from_mode(0o755)).unwrap();
    root
}

/// Waits up to half a minute.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a command. Panics with its output if it fails.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {stderr}");
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

/// Removes the namespaces that a killed test process left behind.
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
