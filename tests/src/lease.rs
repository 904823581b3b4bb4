//! One testbed for many tests. Bringing machines up costs seconds and installing uc on them some
//! more, so the end-to-end tests of a program share a testbed: a test leases it, has it for itself
//! until the lease is dropped, and the last one takes it down. A test that fails leaves the
//! machines in no known state: the next one gets fresh ones.
//!
//! With `UC_TESTBED` set, the testbed of that name is used, which somebody else brought up and will
//! take down: `cargo xtask test` does so, since nextest runs each test in a process of its own.

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

/// Names a testbed that is up, for the end-to-end tests to use.
pub const SHARED: &str = "UC_TESTBED";

/// The testbed of the end-to-end tests where [`SHARED`] is not set.
const OWN: &str = "it";

/// Enough for every test: what is true of three machines shows neither with one nor with two.
const MACHINES: u8 = 3;

/// Tests that have the testbed or wait for it: the last to leave switches off the light.
static USERS: Mutex<usize> = Mutex::new(0);

static POOL: Mutex<Option<Pooled>> = Mutex::new(None);

/// Keeps other runs of the same tests on this host away from the testbeds of these tests.
#[derive(Debug)]
pub struct Claim {
    _lock: Lock,
}

impl Claim {
    /// Waits until nobody else has a claim on this name. It need not be a testbed's.
    pub fn stake(name: &TestbedName) -> anyhow::Result<Self> {
        Ok(Self {
            _lock: lock_named(&format!(".claim-{name}"))?,
        })
    }
}

#[derive(Debug)]
struct Pooled {
    testbed: Testbed,
    // Of whoever brought it up; `None` where that was somebody else.
    _claim: Option<Claim>,
    // Tests of one run in several processes take turns.
    _turn: Lock,
}

/// A testbed of three machines, all running and not cut, for one test alone.
#[derive(Debug)]
pub struct Lease {
    pool: MutexGuard<'static, Option<Pooled>>,
    // Dropped after the guard's content was seen to.
    _user: User,
}

impl Lease {
    /// Waits for its turn; brings the testbed up when there is none.
    pub fn take() -> anyhow::Result<Self> {
        let user = User::new();
        // A poisoned lock means that a test failed; its lease has dealt with that.
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.is_none() {
            *pool = Some(open()?);
        }
        let lease = Self { pool, _user: user };
        lease.reset()?;
        Ok(lease)
    }

    /// What a test that passed may have left behind.
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

    #[expect(
        clippy::expect_used,
        reason = "a lease is only made with a testbed in the pool, and has the lock"
    )]
    fn deref(&self) -> &Testbed {
        &self.pool.as_ref().expect("a lease has a testbed").testbed
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
            // Taken down as it is dropped.
            return;
        }
        pooled.testbed.keep();
        if thread::panicking() {
            let name = pooled.testbed.name().clone();
            if let Err(error) = renew(&name) {
                say(&format!("the next test gets no fresh machines: {error:#}"));
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

/// Counts a test in and out.
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
    // The claim is ours: one that is up was left by a run that is no more.
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

/// The last words of each machine, before they are gone.
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
