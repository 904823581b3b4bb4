//! Tests the crate with real processes: stores in their own files, replication over TCP and
//! membership over UDP on loopback. The processes go through kill -9, SIGSTOP, cut and healed
//! links, and files that go back in time. Only the public API is used.
//!
//! The test program starts itself again for each node (`process::Process`), with the variable
//! `process::NODE`. The node accepts commands as JSON lines on a socket (`protocol`). Tests wait
//! for conditions, never for time. The seed of a test's choices is printed when it fails;
//! `UC_TEST_SEED` sets it.

#![cfg(target_os = "linux")]
#![expect(clippy::panic, clippy::print_stderr, reason = "a test program")]

mod chaos;
mod cluster;
mod converging;
mod crash;
mod cut;
mod datagrams;
mod join;
mod links;
mod node;
mod pause;
mod process;
mod protocol;
mod restore;
mod wait;

/// Not a test, but what a node process runs. Without the variable it does nothing.
#[test]
fn node_process() {
    if let Some(start) = std::env::var_os(process::NODE) {
        node::run(&start.to_string_lossy());
    }
}
