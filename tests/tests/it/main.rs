//! End-to-end tests: real machines, real Docker engines, the built programs. They need root and
//! Linux; elsewhere they say so and pass. What one person can do at a time, one test does at a
//! time: they share a testbed (see `uc_testbed::Lease`).

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test program"
)]

mod cluster;
mod conflicts;
mod crash;
mod demo;
mod deploy_commands;
mod deploy_compose;
mod deploy_contents;
mod deploy_failures;
mod deploy_faults;
mod deploy_images;
mod deploy_life;
mod deploy_network;
mod engines;
mod machine_doctor;
mod machine_members;
mod machine_partition;
mod machine_refusals;
mod machine_service;
mod machine_site;
mod machines;
mod remains;
mod side_by_side;

/// Whether the testbed can and should run here; each test that does nothing says so.
pub(crate) fn possible() -> bool {
    match uc_testbed::host::skipped() {
        None => true,
        Some(reason) => {
            eprintln!("SKIPPED: {reason}");
            false
        }
    }
}
