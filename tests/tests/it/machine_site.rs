//! What the tests of machines start from: the leased machines with nothing of uc on them, with uc
//! but in no cluster, or in a cluster. A cluster is made without copying the programs again where
//! they are there already: the tests of `init` and `add` do that.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use uc_testbed::{Binaries, Lease, Machine, Output, Uc, command, wait_for};

use crate::possible;

/// A dead machine is noticed in eight seconds; the rest is a slow box.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Everything of uc on a machine, one line each; nothing when there is nothing.
const TRACES: &str = "ls -d /usr/local/bin/uc /usr/local/bin/ucd /usr/local/bin/.uc* /usr/local/lib/uc /var/lib/uc /run/uc \
     /etc/systemd/system/ucd.service /etc/systemd/system/uc-mesh.service /tmp/uc-install.* 2>/dev/null; \
     getent group uc; ip -o link show uc0 2>/dev/null; pgrep -a ucd; \
     docker ps -aq --filter label=uc.cluster 2>/dev/null; docker network ls -q --filter label=uc.cluster 2>/dev/null; \
     iptables-save 2>/dev/null | grep UC-; ip6tables-save 2>/dev/null | grep UC-; true";

/// What shows that a machine is in a cluster, or was.
const MEMBERSHIP: &str = "ls -d /var/lib/uc/state.db* 2>/dev/null; ip -o link show uc0 2>/dev/null; \
     grep -l cluster_id /var/lib/uc/machine.json 2>/dev/null; docker ps -aq --filter label=uc.cluster; \
     docker network ls -q --filter label=uc.cluster; iptables-save | grep UC-; \
     ip6tables-save | grep UC-; ip -4 route | grep 10.210; true";

/// The leased machines, and `uc` on the laptop, which knows no cluster yet.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) uc: Uc,
    pub(crate) binaries: Binaries,
    testbed: Lease,
}

impl Deref for Site {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.testbed
    }
}

impl Site {
    /// Waits for the testbed; `None` where it cannot run.
    pub(crate) fn take() -> Option<Self> {
        if !possible() {
            return None;
        }
        let testbed = Lease::take().expect("a testbed");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the workspace");
        let binaries = Binaries::find_or_build(root).expect("uc and ucd");
        let config = testbed
            .scratch()
            .expect("a directory")
            .join("machines.toml");
        let _ = fs::remove_file(&config);
        let uc = Uc::on(&testbed, &binaries)
            .expect("a home")
            .with("UC_CONFIG", &config.to_string_lossy());
        Some(Self {
            uc,
            binaries,
            testbed,
        })
    }

    /// Takes uc off these machines, whatever is there.
    pub(crate) fn bare(&self, names: &[&str]) {
        self.on_each(names, |machine| {
            if traces(machine)?.is_empty() {
                return Ok(());
            }
            machine.write_file("/root/install.sh", &fs::read(self.installer())?, 0o755)?;
            // Copies of records, which an earlier test made, would stay.
            machine.sh("rm -rf /var/lib/uc/backups")?;
            machine.sh(
                "systemctl reset-failed ucd uc-mesh 2>/dev/null; sh /root/install.sh --uninstall -y 2>&1",
            )?;
            let left = traces(machine)?;
            ensure!(left.is_empty(), "left by --uninstall on {}: {left}", machine.name);
            Ok(())
        });
    }

    /// Puts uc on these machines, and out of any cluster.
    pub(crate) fn prepare(&self, names: &[&str]) {
        self.on_each(names, |machine| {
            let sums = "sha256sum uc ucd 2>/dev/null";
            let ours = command(&["sh", "-c", sums])
                .current_dir(self.binaries.directory())
                .output()?;
            let theirs = machine.sh(&format!("cd /usr/local/bin; {sums}; true"))?;
            if theirs.as_bytes() != ours.stdout {
                machine.sh("mkdir -p /var/tmp/uc")?;
                for name in ["uc", "ucd", "install.sh"] {
                    let content = fs::read(self.binaries.directory().join(name))?;
                    machine.write_file(&format!("/var/tmp/uc/{name}"), &content, 0o755)?;
                }
                machine.sh("sh /var/tmp/uc/install.sh && rm -r /var/tmp/uc")?;
            }
            machine.sh("systemctl start uc-mesh ucd && ucd reset --yes")?;
            let left = membership(machine)?;
            ensure!(
                left.is_empty(),
                "left by a reset of {}: {left}",
                machine.name
            );
            Ok(())
        });
    }

    /// A cluster of these machines, all up. The laptop's context leads to the first.
    pub(crate) fn cluster(&self, names: &[&str]) {
        self.prepare(names);
        let first = names[0];
        self.at(first).ok(&["machine", "init", "--name", first]);
        for name in &names[1..] {
            let token = self.ok(&["machine", "token"]).stdout;
            self.machine(name)
                .and_then(|machine| {
                    machine.exec(&["uc", "machine", "join", token.trim(), "--name", name])
                })
                .and_then(Output::checked)
                .expect("it joins");
        }
        for name in names {
            self.await_machines(
                name,
                &names.iter().map(|name| (*name, "up")).collect::<Vec<_>>(),
            );
        }
    }

    /// The same laptop, connected to this machine whatever its contexts say.
    pub(crate) fn at(&self, name: &str) -> Laptop {
        Laptop(
            self.uc
                .clone()
                .with("UC_CONNECT", &format!("ssh://root@{name}")),
        )
    }

    /// Runs `uc`, which must work.
    pub(crate) fn ok(&self, words: &[&str]) -> Output {
        Laptop(self.uc.clone()).ok(words)
    }

    /// Runs `uc`.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.uc.run(words).expect("uc starts")
    }

    /// Waits until `uc machine ls` at this machine shows exactly these machines, as name and state.
    pub(crate) fn await_machines(&self, at: &str, wanted: &[(&str, &str)]) {
        let mut wanted: Vec<(String, String)> = wanted
            .iter()
            .map(|(name, state)| ((*name).to_owned(), (*state).to_owned()))
            .collect();
        wanted.sort();
        let laptop = self.at(at);
        wait_for(&format!("{at} to list the machines right"), SOON, || {
            let seen = laptop.list()?;
            ensure!(seen == wanted, "it lists {seen:?}, not {wanted:?}");
            Ok(())
        })
        .expect("it does");
    }

    /// Runs a script on a machine past its network; it must work.
    pub(crate) fn sh(&self, name: &str, script: &str) -> String {
        self.machine(name)
            .and_then(|machine| machine.sh(script))
            .expect("the script works")
    }

    /// What shows that a machine is in a cluster, or was; `""` when it never was.
    pub(crate) fn membership(&self, name: &str) -> String {
        self.machine(name)
            .and_then(membership)
            .expect("the machine answers")
    }

    /// Everything of uc on a machine; `""` when there is nothing.
    pub(crate) fn traces(&self, name: &str) -> String {
        self.machine(name)
            .and_then(traces)
            .expect("the machine answers")
    }

    pub(crate) fn installer(&self) -> PathBuf {
        self.binaries.directory().join("install.sh")
    }

    fn on_each(&self, names: &[&str], work: impl Fn(&Machine) -> anyhow::Result<()> + Sync) {
        thread::scope(|scope| {
            let work = &work;
            let each: Vec<_> = names
                .iter()
                .map(|name| self.machine(name).expect("such a machine"))
                .map(|machine| (machine, scope.spawn(move || work(machine))))
                .collect();
            for (machine, one) in each {
                let result = one.join().expect("no panic");
                result
                    .with_context(|| machine.name.clone())
                    .expect("the machine can be set up");
            }
        });
    }
}

impl Drop for Site {
    /// Other tests have clusters of their own. The programs stay: the next test need not copy them
    /// again.
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let names: Vec<String> = self
            .machines()
            .iter()
            .map(|machine| machine.name.clone())
            .collect();
        self.on_each(&names.iter().map(String::as_str).collect::<Vec<_>>(), |machine| {
            machine
                .sh("test ! -e /usr/local/bin/ucd || { systemctl start uc-mesh ucd && ucd reset --yes; }")?;
            Ok(())
        });
        let _ = fs::remove_file(self.uc.home().join("config.toml"));
    }
}

/// `uc` with a connection of its own.
#[derive(Debug)]
pub(crate) struct Laptop(pub(crate) Uc);

impl Laptop {
    /// Runs it, which must work.
    pub(crate) fn ok(&self, words: &[&str]) -> Output {
        self.0
            .run(words)
            .and_then(Output::checked)
            .expect("uc works")
    }

    /// Runs it.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.0.run(words).expect("uc starts")
    }

    /// `uc machine ls -o json`, one object each.
    pub(crate) fn machines(&self) -> anyhow::Result<Vec<Value>> {
        Ok(self
            .0
            .json(&["machine", "ls"])?
            .as_array()
            .context("no list")?
            .clone())
    }

    /// Name and state of each machine, sorted by name.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut list: Vec<_> = self
            .machines()?
            .iter()
            .map(|one| (text(&one["name"]), text(&one["state"])))
            .collect();
        list.sort();
        Ok(list)
    }
}

/// The exit code, and everything that must be in what was said.
pub(crate) fn expect(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code, Some(code), "{output}");
    for part in parts {
        assert!(output.stderr.contains(part), "no '{part}' in: {output}");
    }
}

fn membership(machine: &Machine) -> anyhow::Result<String> {
    machine.sh(MEMBERSHIP)
}

fn traces(machine: &Machine) -> anyhow::Result<String> {
    machine.sh(TRACES)
}
