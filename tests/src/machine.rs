//! One machine: a container that boots systemd.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::engine::HostEngine;
use crate::network::interface;
use crate::run::{Output, capture, command, shown, wait_for};
use crate::ssh::SshFiles;
use crate::state::MachineRecord;

/// Two seconds are usual. A busy host with two cores needs much longer.
const BOOT_SECONDS: u64 = 90;

/// Whether a machine has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Its first process is running.
    Running,
    /// Killed or never started. Its disk exists.
    Off,
}

/// A handle on a machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `m1`, `m2`, …: its host name and its name in ssh's configuration.
    pub name: String,
    /// Its IPv4 address, which never changes.
    pub address: String,
    mac: String,
    engine: HostEngine,
    ssh: SshFiles,
}

impl Machine {
    pub(crate) fn new(record: &MachineRecord, engine: HostEngine, ssh: SshFiles) -> Self {
        Self {
            name: record.name.clone(),
            address: record.address.clone(),
            mac: record.mac.clone(),
            engine,
            ssh,
        }
    }

    /// `root@NAME`, as ssh with the testbed's configuration understands it.
    pub fn ssh_target(&self) -> String {
        format!("root@{}", self.name)
    }

    /// A command that runs `words` on the machine as root, without its network, so also after a
    /// cut.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.engine.client();
        command.arg("exec").arg(&self.name).args(words);
        command
    }

    /// The same with standard input, and with a terminal when `terminal` is set.
    pub fn interactive(&self, words: &[&str], terminal: bool) -> Command {
        let mut command = self.engine.client();
        command
            .arg("exec")
            .arg(if terminal { "-it" } else { "-i" })
            .arg(&self.name)
            .args(words);
        command
    }

    /// Runs `words` on the machine as root, without its network. Fails only if it cannot run them.
    pub fn exec(&self, words: &[&str]) -> anyhow::Result<Output> {
        let output = capture(&mut self.command(words))?;
        if !output.success() && self.state()? == MachineState::Off {
            bail!("machine {} is off: {output}", self.name);
        }
        Ok(output)
    }

    /// Runs a shell script on the machine and returns its standard output; a failure is an error.
    pub fn sh(&self, script: &str) -> anyhow::Result<String> {
        Ok(self.exec(&["sh", "-c", script])?.checked()?.stdout)
    }

    /// Runs `words` on the machine over ssh, through its network.
    pub fn ssh(&self, words: &[&str]) -> anyhow::Result<Output> {
        let mut ssh = command(&["ssh", "-F"]);
        ssh.arg(self.ssh.config())
            .arg(self.ssh_target())
            .args(words);
        capture(&mut ssh)
    }

    /// Writes a file on the machine, with these permission bits.
    pub fn write_file(&self, path: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
        let script = format!("umask 077; cat > \"$1\" && chmod {mode:o} \"$1\"");
        let mut command = self.interactive(&["sh", "-c", &script, "sh", path], false);
        let line = shown(&command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("docker exec has a standard input")?
            .write_all(content)?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "`{line}` failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// The network namespace of its process `pid`, as a file of the host. Process 1 has the
    /// machine's own.
    pub fn network_namespace(&self, pid: u32) -> anyhow::Result<PathBuf> {
        let init = self
            .engine
            .docker(&["inspect", "--format", "{{.State.Pid}}", &self.name])?;
        Ok(PathBuf::from(format!(
            "/proc/{init}/root/proc/{pid}/ns/net"
        )))
    }

    /// Whether it has power.
    pub fn state(&self) -> anyhow::Result<MachineState> {
        match self
            .engine
            .docker(&["inspect", "--format", "{{.State.Running}}", &self.name])?
            .as_str()
        {
            "true" => Ok(MachineState::Running),
            _ => Ok(MachineState::Off),
        }
    }

    /// The host's interface to this machine; `None` while it is off.
    pub(crate) fn port(&self) -> Option<String> {
        let output = self.exec(&["cat", "/sys/class/net/eth0/iflink"]).ok()?;
        if output.success() {
            interface(&output.stdout)
        } else {
            None
        }
    }

    /// Creates its container and copies its keys into it.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        self.engine
            .create_machine(&self.name, &self.address, &self.mac)?;
        for (file, place) in [
            (
                self.ssh.host_key(&self.name),
                "/etc/ssh/ssh_host_ed25519_key",
            ),
            (self.ssh.public_key(), "/root/.ssh/authorized_keys"),
        ] {
            let place = format!("{}:{place}", self.name);
            self.engine
                .docker(&["cp", &file.to_string_lossy(), &place])?;
        }
        Ok(())
    }

    /// Switches it on, without waiting.
    pub(crate) fn power_on(&self) -> anyhow::Result<()> {
        self.engine
            .docker(&["start", &self.name])
            .with_context(|| format!("cannot start {}", self.name))?;
        Ok(())
    }

    /// Cuts its power: all processes are killed, and the disk is kept.
    pub(crate) fn power_off(&self) -> anyhow::Result<()> {
        self.engine
            .docker(&["kill", "--signal", "KILL", &self.name])?;
        wait_for(
            "the machine to be off",
            Duration::from_secs(20),
            || match self.state()? {
                MachineState::Off => Ok(()),
                MachineState::Running => bail!("{} is still running", self.name),
            },
        )
    }

    /// Waits until it has booted, its Docker engine answers, and ssh can log in.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        let booted = self.exec(&["/usr/local/sbin/machine-ready", &BOOT_SECONDS.to_string()])?;
        booted
            .checked()
            .with_context(|| format!("machine {} did not boot", self.name))?;
        let limit = Duration::from_secs(30);
        wait_for("ssh to log in", limit, || self.ssh(&["true"])?.checked()).with_context(|| {
            format!("machine {} has booted, but ssh cannot reach it", self.name)
        })?;
        Ok(())
    }
}
