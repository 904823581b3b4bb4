//! A cluster of three machines for end-to-end tests of what runs on one: made once on the leased
//! testbed, and found again by the next test, which gets it without any service, container or
//! volume. Nothing is pulled: all services are built from the busybox image that the testbed makes
//! from scratch.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use uc_testbed::{Binaries, Lease, Machine, Output, Uc, command, wait_for};

use crate::possible;

/// For what takes seconds on two cores that others use as well.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// The names of the machines.
pub(crate) const MACHINES: [&str; 3] = ["m1", "m2", "m3"];

/// What a service of these tests is built from. It dies at once when it is stopped: busybox as
/// process 1 ignores the usual signal, and waiting ten seconds for each container proves nothing.
const BUSYBOX: &str =
    "build: {context: ., dockerfile_inline: \"FROM uc-test/busybox:1\"}\n    stop_signal: SIGKILL";

/// Three machines, one cluster, nothing deployed.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) uc: Uc,
    testbed: Lease,
}

/// A line of `uc ps -o json`, as far as the tests look at it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Replica {
    pub(crate) service: String,
    pub(crate) container_id: String,
    pub(crate) revision: String,
    pub(crate) current: bool,
    pub(crate) state: String,
    pub(crate) health: String,
    /// Not null: it is no replica any longer.
    pub(crate) kept: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) machine: Place,
}

/// Where a replica is.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Place {
    pub(crate) name: String,
}

impl Cluster {
    /// Waits for the testbed and makes the cluster, or cleans up the one that is there. `None`
    /// where the testbed cannot run.
    pub(crate) fn take() -> Option<Self> {
        if !possible() {
            return None;
        }
        let testbed = Lease::take().expect("a testbed");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the workspace");
        let binaries = Binaries::find_or_build(root).expect("uc and ucd");
        testbed.images().expect("the test images");
        let scratch = testbed.scratch().expect("a directory");
        let uc = Uc::on(&testbed, &binaries).expect("a home");
        // Others share the home, and make and leave contexts of their own.
        let uc = uc.with("UC_CONFIG", &scratch.join("cluster.toml").to_string_lossy());
        let cluster = Self { uc, testbed };
        let made_of = scratch.join("cluster-made-of");
        let programs = sums(binaries.directory());
        if fs::read_to_string(&made_of).ok().as_ref() != Some(&programs)
            || cluster.whole(Duration::from_secs(15)).is_err()
        {
            let _ = fs::remove_file(&made_of);
            cluster.make(&scratch.join("cluster.toml"));
            fs::write(&made_of, programs).expect("written");
        }
        cluster.clear();
        Some(cluster)
    }

    fn make(&self, config: &Path) {
        let _ = fs::remove_file(config);
        let key = self.testbed.ssh_key().to_string_lossy().into_owned();
        for machine in self.testbed.machines() {
            if machine
                .sh("command -v uc || ls -A /var/lib/uc 2>/dev/null")
                .is_ok_and(|found| !found.is_empty())
            {
                let script = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../install.sh"));
                machine
                    .write_file("/root/install.sh", &script.expect("install.sh"), 0o755)
                    .expect("written");
                machine
                    .sh("/root/install.sh --uninstall --purge -y")
                    .expect("an old uc is taken off");
            }
        }
        for name in MACHINES {
            let how = if name == "m1" { "init" } else { "add" };
            self.ok(&[
                "machine",
                how,
                &format!("root@{name}"),
                "--name",
                name,
                "-i",
                &key,
                "-y",
            ]);
        }
        self.whole(SOON)
            .expect("three machines that know each other");
    }

    /// Waits until every machine sees every machine up and answers for it.
    pub(crate) fn whole(&self, limit: Duration) -> anyhow::Result<()> {
        wait_for("a whole cluster", limit, || {
            for name in MACHINES {
                let seen =
                    self.uc
                        .json(&["--connect", &format!("ssh://root@{name}"), "machine", "ls"])?;
                let up: Vec<_> = array(&seen)?
                    .iter()
                    .filter(|machine| machine["state"] == "up")
                    .filter_map(|machine| machine["name"].as_str())
                    .collect();
                ensure!(up == MACHINES, "{name} sees {seen}");
            }
            Ok(())
        })
    }

    /// Removes every service and volume.
    fn clear(&self) {
        for project in self.projects(&[]) {
            self.ok(&["rm", "-y", "-p", &project]);
        }
        for machine in self.testbed.machines() {
            let left = machine.sh(
                "docker ps --all --quiet --filter label=uc.project | xargs -r docker rm -f; \
                 docker volume ls --quiet | xargs -r docker volume rm -f",
            );
            left.expect("docker answers");
        }
    }

    /// The projects that `uc ls` shows, with further words for `uc`.
    pub(crate) fn projects(&self, words: &[&str]) -> BTreeSet<String> {
        let services = self.json(&[words, &["ls"]].concat());
        let services = services.as_array().expect("an array").iter();
        services
            .map(|service| service["project"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// A machine by name.
    pub(crate) fn machine(&self, name: &str) -> &Machine {
        self.testbed.machine(name).expect("one of the three")
    }

    /// All three.
    pub(crate) fn machines(&self) -> &[Machine] {
        self.testbed.machines()
    }

    /// Power loss of a machine.
    pub(crate) fn kill(&self, name: &str) {
        self.testbed.kill(name).expect("power is cut");
    }

    /// The end of it.
    pub(crate) fn start(&self, name: &str) {
        self.testbed.start(name).expect("power is back");
    }

    /// No packet passes between the two.
    pub(crate) fn cut(&self, a: &str, b: &str) {
        self.testbed.cut(a, b).expect("cut");
    }

    /// All packets pass.
    pub(crate) fn heal(&self) {
        self.testbed.heal().expect("healed");
    }

    /// A file of the person's, in a directory of that name.
    pub(crate) fn write(&self, directory: &str, name: &str, content: &str) -> PathBuf {
        let directory = self.uc.home().join(directory);
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join(name);
        fs::write(&file, content).expect("written");
        file
    }

    /// A compose file; `@busybox` in a service stands for its image.
    pub(crate) fn compose(&self, project: &str, services: &str) -> String {
        let text = format!("name: {project}\n{}", services.replace("@busybox", BUSYBOX));
        self.write(project, "compose.yaml", &text)
            .to_string_lossy()
            .into_owned()
    }

    /// Writes a compose file and deploys it.
    pub(crate) fn deploy(&self, project: &str, services: &str) -> Output {
        let file = self.compose(project, services);
        self.ok(&["deploy", "-y", "-f", &file])
    }

    /// Runs `uc`, which must end with 0.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> Output {
        self.ends(0, words)
    }

    /// Runs `uc`, which must end with this exit code.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, words: &[&str]) -> Output {
        let start = Instant::now();
        let output = self.uc.run(words).expect("uc runs");
        // Shown when the test fails: the story so far.
        eprintln!(
            "{:5.1} s  uc {}",
            start.elapsed().as_secs_f64(),
            words.join(" ")
        );
        assert_eq!(output.code, Some(code), "{output}");
        output
    }

    /// Runs `uc … -o json`, which must end with 0.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let output = self.ok(&[words, &["-o", "json"]].concat());
        match serde_json::from_str(&output.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {output}"),
        }
    }

    /// The replicas of a service, or of all (`""`).
    #[track_caller]
    pub(crate) fn replicas(&self, service: &str) -> Vec<Replica> {
        let mut replicas = self.replicas_and_kept(service);
        replicas.retain(|replica| replica.kept.is_none());
        replicas
    }

    /// As [`replicas`](Self::replicas), and those that failed and are kept for their logs.
    #[track_caller]
    pub(crate) fn replicas_and_kept(&self, service: &str) -> Vec<Replica> {
        let words = if service.is_empty() {
            vec!["ps"]
        } else {
            vec!["ps", service]
        };
        serde_json::from_value(self.json(&words)).expect("documented keys")
    }

    /// What a shell in a container of the service prints, run through `uc exec`.
    #[track_caller]
    pub(crate) fn inside(&self, service: &str, replica: &Replica, script: &str) -> Output {
        let words = [
            "exec",
            "-T",
            "--container",
            &replica.container_id,
            service,
            "sh",
            "-c",
            script,
        ];
        self.uc.run(&words).expect("uc runs")
    }

    /// Containers with uc's labels of a project on a machine, running or not, as Docker there lists
    /// them, without those that failed and are kept for their logs.
    #[track_caller]
    pub(crate) fn containers(&self, machine: &str, project: &str) -> Vec<String> {
        let list =
            format!("docker ps --all --no-trunc --quiet --filter label=uc.project={project}");
        let text = self.machine(machine).sh(&list).expect("docker answers");
        let listed = self.replicas_and_kept("");
        let is_kept = |id: &str| {
            let mut kept = listed.iter().filter(|replica| replica.kept.is_some());
            kept.any(|replica| replica.container_id == id)
        };
        text.lines()
            .filter(|id| !is_kept(id))
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Starts `uc` and leaves it running, to be watched.
    pub(crate) fn watch(&self, words: &[&str]) -> Watched {
        Watched::start(
            self.uc
                .command(words)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        )
    }
}

/// A program that runs beside the test; ended with it.
#[derive(Debug)]
pub(crate) struct Watched {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Watched {
    /// With its standard output in a pipe.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, output }
    }

    /// Reads on to the first line with this in it; `None` when the output ends before.
    pub(crate) fn line_with(&mut self, wanted: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).expect("readable") == 0 {
                return None;
            }
            if line.contains(wanted) {
                return Some(line);
            }
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end; the exit code, or none after a signal.
    pub(crate) fn end(&mut self) -> anyhow::Result<Option<i32>> {
        wait_for("the end of the program", SOON, || {
            match self.child.try_wait()? {
                Some(status) => Ok(status.code()),
                None => bail!("it runs"),
            }
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the replicas are, sorted.
pub(crate) fn places(replicas: &[Replica]) -> Vec<&str> {
    let mut places: Vec<_> = replicas
        .iter()
        .map(|replica| replica.machine.name.as_str())
        .collect();
    places.sort_unstable();
    places
}

/// Their containers, sorted.
pub(crate) fn ids(replicas: &[Replica]) -> Vec<&str> {
    let mut ids: Vec<_> = replicas
        .iter()
        .map(|replica| replica.container_id.as_str())
        .collect();
    ids.sort_unstable();
    ids
}

/// The replica on a machine.
#[track_caller]
pub(crate) fn on<'a>(replicas: &'a [Replica], machine: &str) -> &'a Replica {
    let found = replicas
        .iter()
        .find(|replica| replica.machine.name == machine);
    found.unwrap_or_else(|| panic!("no replica on {machine}: {replicas:?}"))
}

/// The elements of an array.
pub(crate) fn array(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value
        .as_array()
        .with_context(|| format!("no array: {value}"))
}

/// Tells one build of the programs from another.
fn sums(directory: &Path) -> String {
    let output = command(&["sha256sum", "uc", "ucd", "install.sh"])
        .current_dir(directory)
        .output();
    String::from_utf8_lossy(&output.expect("sha256sum runs").stdout).into_owned()
}
