//! Ctrl-C: ends the program at once, except where something half-done must be put right first. A
//! second one always ends it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{CliError, CliResult};

/// Sections under way that wait for Ctrl-C themselves. The process has one Ctrl-C, so it has one
/// count.
static GUARDS: AtomicUsize = AtomicUsize::new(0);

/// As long as this lives, the first Ctrl-C is left to whoever holds it.
#[derive(Debug)]
pub(crate) struct Guard(());

impl Guard {
    /// From here on, the caller waits for Ctrl-C itself.
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

/// Runs the work of a command.
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

/// Runs steps that need putting right when they are left half-done: on Ctrl-C they are dropped, and
/// the caller goes on to put it right.
pub(crate) async fn or_interrupted<T>(
    _guard: &Guard,
    steps: impl Future<Output = CliResult<T>>,
) -> CliResult<T> {
    tokio::select! {
        result = steps => result,
        _ = tokio::signal::ctrl_c() => Err(CliError::interrupted()),
    }
}
