//! Ctrl-C, SIGTERM and SIGHUP end the program immediately, except while a section runs that must
//! clean up first. A second Ctrl-C or SIGTERM always ends it, unless the section asks the user what
//! to do about each.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{Signal as Deliveries, SignalKind, signal};

use crate::error::{CliError, CliResult, Signal};
use crate::term;

/// Sections that wait for signals themselves and are running. A process gets a signal once, so
/// there is one count.
static GUARDS: AtomicUsize = AtomicUsize::new(0);
/// Those of them that handle every signal, not only the first.
static GUARDS_OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// While a guard exists, the section that holds it handles the first signal, or all of them.
#[derive(Debug)]
pub(crate) struct Guard {
    of_all: bool,
}

impl Guard {
    /// The caller must wait for [`Signals`] from here on.
    pub(crate) fn new() -> Self {
        GUARDS.fetch_add(1, Ordering::SeqCst);
        Self { of_all: false }
    }

    /// The caller must wait for [`Signals`] in everything that it waits for, because no signal ends
    /// the program any longer.
    pub(crate) fn of_all_signals() -> Self {
        GUARDS.fetch_add(1, Ordering::SeqCst);
        GUARDS_OF_ALL.fetch_add(1, Ordering::SeqCst);
        Self { of_all: true }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDS.fetch_sub(1, Ordering::SeqCst);
        if self.of_all {
            GUARDS_OF_ALL.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The signals that arrive from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Deliveries,
    terminate: Deliveries,
    /// `None`: SIGHUP is ignored, because `nohup` started the program.
    hang_up: Option<Deliveries>,
}

impl Signals {
    /// Needs a tokio runtime.
    pub(crate) fn new() -> Self {
        let deliveries = |kind| signal(kind).expect("a handler can be installed for these signals");
        // Asked before the first handler for SIGHUP is installed, which would end `nohup`.
        let hang_up = !term::ignores_hang_up();
        Self {
            interrupt: deliveries(SignalKind::interrupt()),
            terminate: deliveries(SignalKind::terminate()),
            hang_up: hang_up.then(|| deliveries(SignalKind::hangup())),
        }
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        let Self {
            interrupt,
            terminate,
            hang_up,
        } = self;
        let hang_up = async {
            match hang_up {
                Some(deliveries) => deliveries.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
            _ = hang_up => Signal::HangUp,
        }
    }
}

/// Runs a command until it ends or is interrupted.
pub(crate) async fn run(work: impl Future<Output = CliResult<u8>>) -> CliResult<u8> {
    tokio::pin!(work);
    let mut signals = Signals::new();
    let mut seen = false;
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            signal = signals.next() => {
                // A closing terminal often sends SIGHUP twice: from the shell and from the kernel.
                // The second one must not stop the clean-up.
                let urgent = seen && signal != Signal::HangUp;
                let urgent = urgent && GUARDS_OF_ALL.load(Ordering::SeqCst) == 0;
                if urgent || GUARDS.load(Ordering::SeqCst) == 0 {
                    return Err(CliError::interrupted(signal));
                }
                seen = true;
            }
        }
    }
}

/// Runs steps that need a clean-up when they end early. On a signal the steps are dropped, and the
/// caller cleans up.
pub(crate) async fn or_interrupted<T>(
    _guard: &Guard,
    steps: impl Future<Output = CliResult<T>>,
) -> CliResult<T> {
    let mut signals = Signals::new();
    tokio::select! {
        result = steps => result,
        signal = signals.next() => Err(CliError::interrupted(signal)),
    }
}
