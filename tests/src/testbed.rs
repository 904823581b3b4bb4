//! A testbed as a whole: bringing it up, taking it down, and changing its machines.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use crate::engine::HostEngine;
use crate::host;
use crate::images::{self, TestImages};
use crate::layout::{Layout, TestbedName};
use crate::machine::{Machine, MachineState};
use crate::network::{self, Subnet};
use crate::progress::say;
use crate::recipe::{Engine, machine_image};
use crate::ssh::SshFiles;
use crate::state::{Lock, State, lock, lock_all, names};
use crate::teardown::teardown;

/// Many more than a computer with two cores can run. The addresses would suffice for 200.
const MACHINES_MAX: u8 = 50;

/// What to bring up.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Testbeds of different names can be up at the same time.
    pub name: TestbedName,
    /// 1 to 50. Their names are `m1`, `m2`, …
    pub machines: u8,
    /// The machines' Docker engine.
    pub engine: Engine,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            name: TestbedName::default(),
            machines: 3,
            engine: Engine::default(),
        }
    }
}

/// A testbed that is up. One made by [`Testbed::up`] is taken down when dropped, unless
/// [kept](Testbed::keep).
#[derive(Debug)]
pub struct Testbed {
    layout: Layout,
    engine: HostEngine,
    machines: Vec<Machine>,
    owned: bool,
}

impl Testbed {
    /// Brings a testbed up, and returns when every machine has booted, its Docker engine answers
    /// and ssh can log in. First removes what an earlier testbed of that name left after a
    /// crash. A testbed of that name that is up is an error.
    pub fn up(options: &UpOptions) -> anyhow::Result<Self> {
        ensure!(
            (1..=MACHINES_MAX).contains(&options.machines),
            "a testbed has 1 to {MACHINES_MAX} machines, not {}",
            options.machines
        );
        host::prepare()?;
        let layout = Layout::new(options.name.clone());
        let image = machine_image(options.engine)?;
        let lock = lock(&layout)?;
        let name = layout.name();
        if names().iter().any(|one| one == name.as_ref()) {
            let complete =
                State::load(&layout).is_ok_and(|state| state.is_some_and(|state| state.complete));
            ensure!(
                !(complete && HostEngine::new(layout.clone()).is_up()),
                "the testbed '{name}' is already up\nhint: run `cargo xtask testbed down --name {name}`, or choose another --name"
            );
            say(&format!("removing what an earlier testbed '{name}' left"));
            teardown(&layout)?;
        }
        match Self::build(&lock, &layout, options, &image) {
            Ok(mut testbed) => {
                testbed.owned = true;
                Ok(testbed)
            }
            Err(error) => match teardown(&layout) {
                Ok(()) => Err(error),
                Err(second) => {
                    Err(error.context(format!("cannot take the testbed down again: {second:#}")))
                }
            },
        }
    }

    fn build(
        lock: &Lock,
        layout: &Layout,
        options: &UpOptions,
        image: &Path,
    ) -> anyhow::Result<Self> {
        let mut state = reserve(layout, options)?;
        let subnet = state.subnet;
        let ssh = SshFiles::new(layout.ssh_dir());
        let addresses: Vec<_> = state
            .machines
            .iter()
            .map(|machine| (machine.name.as_str(), machine.address.as_str()))
            .collect();
        ssh.create(lock, &addresses)?;
        network::create(lock, layout, subnet)?;
        let engine = HostEngine::new(layout.clone());
        engine.start(subnet)?;
        engine.furnish(image, subnet)?;
        let testbed = Self::assemble(layout.clone(), &state);
        for machine in &testbed.machines {
            machine.create()?;
            machine.power_on()?;
        }
        testbed.wait_ready()?;
        state.complete = true;
        state.save(layout)?;
        Ok(testbed)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        thread::scope(|scope| {
            let waiting: Vec<_> = self
                .machines
                .iter()
                .map(|machine| scope.spawn(|| machine.wait_ready()))
                .collect();
            for one in waiting {
                match one.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("waiting for a machine panicked"),
                }
            }
            Ok(())
        })
    }

    /// A testbed that is already up. Dropping the result leaves it up.
    pub fn open(name: &TestbedName) -> anyhow::Result<Self> {
        let layout = Layout::new(name.clone());
        let hint = format!("hint: run `cargo xtask testbed up --name {name}`");
        let Some(state) = State::load(&layout)? else {
            bail!("testbed '{name}' not found\n{hint}")
        };
        let testbed = Self::assemble(layout, &state);
        ensure!(
            state.complete && testbed.engine.is_up(),
            "the testbed '{name}' is broken\n{hint}"
        );
        Ok(testbed)
    }

    fn assemble(layout: Layout, state: &State) -> Self {
        let engine = HostEngine::new(layout.clone());
        let ssh = SshFiles::new(layout.ssh_dir());
        let machines = state
            .machines
            .iter()
            .map(|record| Machine::new(record, engine.clone(), ssh.clone()))
            .collect();
        Self {
            layout,
            engine,
            machines,
            owned: false,
        }
    }

    /// Removes the testbed of this name, or what a crash left of it. Succeeds if nothing exists.
    pub fn down(name: &TestbedName) -> anyhow::Result<()> {
        if let Some(reason) = host::unsupported() {
            bail!("{reason}");
        }
        let layout = Layout::new(name.clone());
        let _lock = lock(&layout)?;
        teardown(&layout).with_context(|| format!("cannot take the testbed '{name}' down"))
    }

    /// Keeps it up when this handle is dropped.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// The name under which `up` made it.
    pub fn name(&self) -> &TestbedName {
        self.layout.name()
    }

    /// Its machines, `m1` first.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// A machine by name.
    pub fn machine(&self, name: &str) -> anyhow::Result<&Machine> {
        self.machines
            .iter()
            .find(|machine| machine.name == name)
            .with_context(|| {
                let names: Vec<_> = self
                    .machines
                    .iter()
                    .map(|machine| machine.name.as_str())
                    .collect();
                format!(
                    "machine '{name}' not found; available: {}",
                    names.join(", ")
                )
            })
    }

    /// `DOCKER_HOST` of the engine on the host, the Docker of the "laptop" that builds images.
    pub fn docker_host(&self) -> String {
        self.layout.docker_host()
    }

    /// A `docker` command for the engine on the host.
    pub fn docker(&self) -> std::process::Command {
        self.engine.client()
    }

    /// A file for `ssh -F` that contains the machines by name and by address.
    pub fn ssh_config(&self) -> PathBuf {
        SshFiles::new(self.layout.ssh_dir()).config()
    }

    /// The private key for root on every machine.
    pub fn ssh_key(&self) -> PathBuf {
        SshFiles::new(self.layout.ssh_dir()).key()
    }

    /// The machines' host keys.
    pub fn known_hosts(&self) -> PathBuf {
        SshFiles::new(self.layout.ssh_dir()).known_hosts()
    }

    /// A directory for contexts, logs and other files of a test, removed with the testbed.
    pub fn scratch(&self) -> anyhow::Result<PathBuf> {
        let directory = self.layout.state_dir().join("scratch");
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// A directory for sockets of the laptop's programs, removed with the testbed after the
    /// connections that ssh keeps open there are closed.
    pub fn laptop_run_dir(&self) -> anyhow::Result<PathBuf> {
        let directory = self.layout.laptop_run_dir();
        std::fs::create_dir_all(&directory)?;
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        Ok(directory)
    }

    /// Images for tests, in the engine on the host.
    pub fn images(&self) -> anyhow::Result<TestImages> {
        images::build(&self.engine, &self.scratch()?)
    }

    /// From now on no frame of any kind passes between these two machines, in either direction.
    pub fn cut(&self, a: &str, b: &str) -> anyhow::Result<()> {
        let (a, b) = (&self.machine(a)?.name, &self.machine(b)?.name);
        ensure!(a != b, "a machine cannot be cut from itself ('{a}')");
        self.change_cuts(|cuts| {
            let pair = if a < b {
                (a.clone(), b.clone())
            } else {
                (b.clone(), a.clone())
            };
            if !cuts.contains(&pair) {
                cuts.push(pair);
            }
        })
    }

    /// Undoes all cuts.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.change_cuts(Vec::clear)
    }

    fn change_cuts(&self, change: impl FnOnce(&mut Vec<(String, String)>)) -> anyhow::Result<()> {
        let lock = lock(&self.layout)?;
        let mut state = self.state()?;
        change(&mut state.cuts);
        // Saved first, since a machine that starts at the same time applies what is saved.
        state.save(&self.layout)?;
        self.apply_cuts(&lock, &state)
    }

    fn apply_cuts(&self, lock: &Lock, state: &State) -> anyhow::Result<()> {
        let port = |name: &str| self.machine(name).ok()?.port();
        network::apply_cuts(lock, &self.layout, &state.machines, &state.cuts, port)
    }

    /// Cuts the power: every process of the machine dies immediately, and its disk is kept.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.machine(name)?.power_off()
    }

    /// Switches a killed machine on again and waits until it is ready. Its cuts still apply.
    pub fn start(&self, name: &str) -> anyhow::Result<()> {
        let machine = self.machine(name)?;
        let lock = lock(&self.layout)?;
        machine.power_on()?;
        self.apply_cuts(&lock, &self.state()?)?;
        machine.wait_ready()
    }

    fn state(&self) -> anyhow::Result<State> {
        State::load(&self.layout)?
            .with_context(|| format!("the testbed '{}' was taken down", self.name()))
    }

    /// Its machines and addresses, for people and programs.
    pub fn report(&self) -> anyhow::Result<Report> {
        report(&self.layout)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = Self::down(self.name())
        {
            say(&format!("{error:#}"));
        }
    }
}

/// Reserves a free subnet and saves the state before anything is made.
fn reserve(layout: &Layout, options: &UpOptions) -> anyhow::Result<State> {
    let _lock = lock_all()?;
    let mut taken = Vec::new();
    for name in names() {
        if let Some(other) = State::load(&Layout::new(name.parse()?))? {
            taken.push(other.subnet);
        }
    }
    let subnet = Subnet::choose(&taken)?;
    let state = State {
        engine: options.engine,
        subnet,
        machines: (1..=options.machines)
            .map(|number| subnet.machine(number))
            .collect(),
        cuts: Vec::new(),
        complete: false,
    };
    state.save(layout)?;
    Ok(state)
}

/// A testbed as `testbed ls` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub name: String,
    /// `up`, or `broken` after an incomplete start or a crash; `down` removes it.
    pub state: &'static str,
    /// The machines' Docker engine, such as `20.10`.
    pub engine: Option<Engine>,
    /// The laptop's Docker.
    pub docker_host: String,
    /// A file for `ssh -F`.
    pub ssh_config: PathBuf,
    /// The private key for root on every machine.
    pub ssh_key: PathBuf,
    /// The machines' host keys.
    pub known_hosts: PathBuf,
    /// The host's address on the machines' network.
    pub gateway: Option<String>,
    pub machines: Vec<MachineReport>,
    /// Pairs that are cut from each other.
    pub cuts: Vec<(String, String)>,
}

/// A machine as `testbed ls` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct MachineReport {
    pub name: String,
    pub address: String,
    pub state: MachineState,
}

/// All testbeds on this host, including broken ones.
pub fn list() -> anyhow::Result<Vec<Report>> {
    names()
        .into_iter()
        .map(|name| report(&Layout::new(name.parse()?)))
        .collect()
}

fn report(layout: &Layout) -> anyhow::Result<Report> {
    let state = State::load(layout)?;
    let engine = HostEngine::new(layout.clone());
    let ssh = SshFiles::new(layout.ssh_dir());
    let alive = state.as_ref().is_some_and(|state| state.complete) && engine.is_up();
    let machines = state
        .iter()
        .flat_map(|state| &state.machines)
        .map(|record| {
            let machine = Machine::new(record, engine.clone(), ssh.clone());
            Ok(MachineReport {
                name: record.name.clone(),
                address: record.address.clone(),
                state: if alive {
                    machine.state()?
                } else {
                    MachineState::Off
                },
            })
        });
    Ok(Report {
        name: layout.name().to_string(),
        state: if alive { "up" } else { "broken" },
        docker_host: layout.docker_host(),
        ssh_config: ssh.config(),
        ssh_key: ssh.key(),
        known_hosts: ssh.known_hosts(),
        machines: machines.collect::<anyhow::Result<_>>()?,
        engine: state.as_ref().map(|state| state.engine),
        gateway: state.as_ref().map(|state| state.subnet.gateway()),
        cuts: state.map(|state| state.cuts).unwrap_or_default(),
    })
}
