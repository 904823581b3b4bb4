//! The testbed's own Docker engine on the host. It runs the machines, and builds images as the
//! Docker of the "laptop". It is independent of the host's engine; see `scripts/engine.sh`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use crate::apt::which;
use crate::cgroup;
use crate::layout::Layout;
use crate::network::Subnet;
use crate::run::{Output, capture, command, wait_for};

const SCRIPT: &str = include_str!("../scripts/engine.sh");

/// An idle host needs half a second.
const START: Duration = Duration::from_mins(1);

/// The image of the machines in this engine.
pub(crate) const MACHINE_IMAGE: &str = "uc-testbed/machine";

/// The network of the machines in this engine.
const NETWORK: &str = "machines";

/// A handle on the engine, whether it runs or not.
#[derive(Debug, Clone)]
pub(crate) struct HostEngine {
    layout: Layout,
}

impl HostEngine {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&self, subnet: Subnet) -> anyhow::Result<()> {
        let (state_dir, run_dir) = (self.layout.state_dir(), self.layout.run_dir());
        fs::create_dir_all(&run_dir)
            .with_context(|| format!("cannot create {}", run_dir.display()))?;
        cgroup::create(&self.layout.cgroup())?;
        let log = File::create(self.layout.engine_log())?;
        let dockerd = which("dockerd").context("dockerd is not installed")?;
        // A session of its own, which Ctrl-C in this terminal does not reach.
        let mut child = command(&["setsid"])
            .args([
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                SCRIPT,
                "engine.sh",
            ])
            .args([&state_dir, &run_dir])
            .args([&self.layout.cgroup(), &subnet.laptop_bridge(), &dockerd])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run setsid")?;
        let answer = wait_for("the testbed's Docker engine to answer", START, || {
            self.answers(&mut child)
        });
        // Reaps the engine, so that it does not remain as a zombie.
        thread::spawn(move || child.wait());
        answer?.map_err(|error| error.context(format!("its log ends with\n{}", self.log_end())))
    }

    /// Returns `Ok(Err)` if further waiting is useless.
    fn answers(&self, child: &mut Child) -> anyhow::Result<anyhow::Result<()>> {
        if let Some(status) = child.try_wait()? {
            return Ok(Err(anyhow!(
                "the testbed's Docker engine ended immediately ({status})"
            )));
        }
        self.docker(&["version", "--format", "{{.Server.Version}}"])?;
        Ok(Ok(()))
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.layout.engine_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Whether the engine answers.
    pub(crate) fn is_up(&self) -> bool {
        self.layout.socket().exists() && self.docker(&["version"]).is_ok()
    }

    /// The `docker` command for this engine, without the user's settings.
    pub(crate) fn client(&self) -> Command {
        // The client of the same package supports the engine's API; a newer one elsewhere might
        // not.
        let program = if Path::new("/usr/bin/docker").exists() {
            "/usr/bin/docker"
        } else {
            "docker"
        };
        let mut client = command(&[program]);
        client
            .env("DOCKER_HOST", self.layout.docker_host())
            .env(
                "DOCKER_CONFIG",
                self.layout.state_dir().join("docker-config"),
            )
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY")
            .env_remove("DOCKER_CERT_PATH")
            .env_remove("DOCKER_API_VERSION");
        client
    }

    /// Runs `docker …` and returns its standard output without the last line end.
    pub(crate) fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(self
            .try_docker(arguments)?
            .checked()?
            .stdout
            .trim_end()
            .to_owned())
    }

    /// Runs `docker …` and returns its output for any exit code.
    pub(crate) fn try_docker(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        capture(self.client().args(arguments))
    }

    /// Imports the machine image and creates the network in a new engine.
    pub(crate) fn furnish(&self, image: &Path, subnet: Subnet) -> anyhow::Result<()> {
        let Some(image) = image.to_str() else {
            bail!("the path {} is not UTF-8", image.display())
        };
        self.docker(&["import", image, MACHINE_IMAGE])?;
        let bridge = format!("com.docker.network.bridge.name={}", subnet.bridge());
        let (cidr, gateway) = (subnet.cidr(), subnet.gateway());
        self.docker(&[
            "network",
            "create",
            "--internal",
            "--subnet",
            &cidr,
            "--gateway",
            &gateway,
            "--opt",
            &bridge,
            NETWORK,
        ])?;
        Ok(())
    }

    /// Creates a machine's container without starting it.
    pub(crate) fn create_machine(
        &self,
        name: &str,
        address: &str,
        mac: &str,
    ) -> anyhow::Result<()> {
        #[rustfmt::skip]
        self.docker(&[
            "create", "--name", name, "--hostname", name,
            "--network", NETWORK, "--ip", address, "--mac-address", mac,
            // Everything that --privileged grants except SYS_RESOURCE. A host inside a VM can lack
            // it, and then --privileged fails.
            "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE",
            "--security-opt", "seccomp=unconfined",
            "--security-opt", "apparmor=unconfined",
            "--security-opt", "systempaths=unconfined",
            "--device", "/dev/net/tun", "--device-cgroup-rule", "a *:* rwm",
            "--tmpfs", "/run", "--tmpfs", "/tmp",
            // Overlay on overlay does not work, so the machine's engine keeps its data directly on
            // the host's disk.
            "--volume", "/var/lib/docker",
            // The machine sees only its own part of the cgroup tree.
            "--cgroupns", "private",
            // A server has IPv6, but Docker disables it on networks without IPv6.
            "--sysctl", "net.ipv6.conf.all.disable_ipv6=0",
            "--sysctl", "net.ipv6.conf.default.disable_ipv6=0",
            "--stop-signal", "SIGRTMIN+3",
            MACHINE_IMAGE, "/usr/local/sbin/machine-init",
        ])?;
        Ok(())
    }
}
