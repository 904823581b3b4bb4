//! Ctrl-C ends the program immediately, except while a section runs that must clean up first. A
//! second Ctrl-C always ends it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{CliError, CliResult};

/// Sections that wait for Ctrl-C themselves and are running. A process gets Ctrl-C once, so there
/// is one count.
static GUARDS: AtomicUsize = AtomicUsize::new(0);

/// While a guard exists, the section that holds it handles the first Ctrl-C.
#[derive(Debug)]
pub(crate) struct Guard(());

impl Guard {
    /// The caller must wait for Ctrl-C from here on.
    pub(crate) fn new() -> Self {
        GUARDS.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs a command until it ends or is interrupted.
pub(crate) async fn run(work: impl Future<Output = CliResult<u8>>) -> CliResult<u8> {
    tokio::pin!(work);
    let mut seen = false;
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ = tokio::signal::ctrl_c() => {
                if seen || GUARDS.load(Ordering::SeqCst) == 0 {
                    return Err(CliError::interrupted());
                }
                seen = true;
            }
        }
    }
}

/// Runs steps that need a clean-up when they end early. On Ctrl-C the steps are dropped, and the
/// caller cleans up.
pub(crate) async fn or_interrupted<T>(
    _guard: &Guard,
    steps: impl Future<Output = CliResult<T>>,
) -> CliResult<T> {
    tokio::select! {
        result = steps => result,
        _ = tokio::signal::ctrl_c() => Err(CliError::interrupted()),
    }
}
