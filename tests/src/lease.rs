//! One testbed for many tests. Starting machines and installing uc on them takes seconds, so the
//! end-to-end tests of a program share a testbed. A test leases it and uses it alone until the
//! lease is dropped. The last test takes it down. After a test that failed, the state of the
//! machines is unknown, so the next test gets new ones.
//!
//! If `UC_TESTBED` is set, tests use the testbed of that name, which the caller brings up and takes
//! down. `cargo xtask test` sets it, since nextest runs each test in its own process.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, thread};

use anyhow::Context as _;

use crate::layout::TestbedName;
use crate::machine::MachineState;
use crate::progress::say;
use crate::recipe::Engine;
use crate::state::{Lock, lock_named};
use crate::testbed::{Testbed, UpOptions};

/// Variable with the name of a running testbed for the end-to-end tests.
pub const SHARED: &str = "UC_TESTBED";

/// The testbed of the end-to-end tests if [`SHARED`] is not set.
const OWN: &str = "it";

/// Enough for every test. Some behaviour needs three machines to show.
const MACHINES: u8 = 3;

/// Number of tests that have the testbed or wait for it. The last one takes it down.
static USERS: Mutex<usize> = Mutex::new(0);

static POOL: Mutex<Option<Pooled>> = Mutex::new(None);

/// Keeps other runs of the same tests on this host away from the testbeds of these tests.
#[derive(Debug)]
pub struct Claim {
    _lock: Lock,
}

impl Claim {
    /// Waits until no other process has a claim on this name, which can be any name.
    pub fn stake(name: &TestbedName) -> anyhow::Result<Self> {
        Ok(Self {
            _lock: lock_named(&format!(".claim-{name}"))?,
        })
    }
}

#[derive(Debug)]
struct Pooled {
    testbed: Testbed,
    // `None` if the caller brought the testbed up.
    _claim: Option<Claim>,
    // Tests of one run in several processes take turns.
    _turn: Lock,
}

/// A testbed of three machines, all running and not cut, for one test alone.
#[derive(Debug)]
pub struct Lease {
    pool: MutexGuard<'static, Option<Pooled>>,
    // Dropped after the content of the guard.
    _user: User,
}

impl Lease {
    /// Waits for its turn, and brings the testbed up if it is not.
    pub fn take() -> anyhow::Result<Self> {
        let user = User::new();
        // A poisoned lock means that a test failed, and its lease has replaced the machines.
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.is_none() {
            *pool = Some(open()?);
        }
        let lease = Self { pool, _user: user };
        lease.reset()?;
        Ok(lease)
    }

    /// Heals cuts and starts machines that an earlier test left off.
    fn reset(&self) -> anyhow::Result<()> {
        self.heal()?;
        for machine in self.machines() {
            if machine.state()? == MachineState::Off {
                self.start(&machine.name)?;
            }
        }
        Ok(())
    }
}

impl Deref for Lease {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self
            .pool
            .as_ref()
            .expect("a lease is made with a testbed in the pool, and holds its lock")
            .testbed
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if thread::panicking() {
            diagnose(self);
        }
        let last = *USERS.lock().unwrap_or_else(PoisonError::into_inner) == 1;
        if !thread::panicking() && !last {
            return;
        }
        let Some(mut pooled) = self.pool.take() else {
            return;
        };
        if shared().is_none() {
            // Dropping the testbed takes it down.
            return;
        }
        pooled.testbed.keep();
        if thread::panicking() {
            let name = pooled.testbed.name().clone();
            if let Err(error) = renew(&name) {
                say(&format!(
                    "cannot replace the machines for the next test: {error:#}"
                ));
            }
        }
    }
}

/// Keeps the tests that share the testbed waiting, for a test with a testbed of its own. Plain
/// `cargo test` runs several tests of a program at a time, and two cores are enough for one only.
#[derive(Debug)]
pub struct Turn {
    _pool: MutexGuard<'static, Option<Pooled>>,
}

impl Turn {
    /// Waits until no other test of this program has machines for itself.
    pub fn take() -> Self {
        Self {
            _pool: POOL.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Counts the tests that use the testbed.
#[derive(Debug)]
struct User;

impl User {
    fn new() -> Self {
        *USERS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for User {
    fn drop(&mut self) {
        *USERS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

fn shared() -> Option<String> {
    env::var(SHARED).ok().filter(|name| !name.is_empty())
}

fn open() -> anyhow::Result<Pooled> {
    let name: TestbedName = shared().as_deref().unwrap_or(OWN).parse()?;
    if shared().is_some() {
        let turn = lock_named(&format!(".turn-{name}"))?;
        let testbed = Testbed::open(&name).with_context(|| format!("{SHARED}={name}"))?;
        return Ok(Pooled {
            testbed,
            _claim: None,
            _turn: turn,
        });
    }
    let claim = Claim::stake(&name)?;
    let turn = lock_named(&format!(".turn-{name}"))?;
    // This process has the claim, so a testbed that is up was left by an earlier run.
    Testbed::down(&name)?;
    let testbed = Testbed::up(&UpOptions {
        name,
        machines: MACHINES,
        engine: Engine::default(),
    })?;
    Ok(Pooled {
        testbed,
        _claim: Some(claim),
        _turn: turn,
    })
}

fn renew(name: &TestbedName) -> anyhow::Result<()> {
    Testbed::down(name)?;
    Testbed::up(&UpOptions {
        name: name.clone(),
        machines: MACHINES,
        engine: Engine::default(),
    })?
    .keep();
    Ok(())
}

/// Prints the containers and logs of each machine before the machines are replaced.
fn diagnose(testbed: &Testbed) {
    const LOG: &str =
        "docker ps --all; journalctl --no-pager --boot --lines 40 --unit ucd --unit uc-mesh";
    for machine in testbed.machines() {
        let words = machine.exec(&["sh", "-c", LOG]);
        match words {
            Ok(output) => {
                say(&format!(
                    "{} at the failure:\n{}{}",
                    machine.name, output.stdout, output.stderr
                ));
            }
            Err(error) => say(&format!("{} at the failure: {error:#}", machine.name)),
        }
    }
}
