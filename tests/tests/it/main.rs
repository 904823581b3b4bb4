//! End-to-end tests: real machines, real Docker engines and the built programs. They need Linux and
//! root, and elsewhere they print the reason and pass. They share a testbed (`uc_testbed::Lease`),
//! so one test runs at a time.

#![expect(clippy::panic, clippy::print_stderr, reason = "a test program")]

mod absent;
mod callers;
mod cluster;
mod conflicts;
mod crash;
mod demo;
mod deploy_commands;
mod deploy_compose;
mod deploy_contents;
mod deploy_durable;
mod deploy_failures;
mod deploy_faults;
mod deploy_images;
mod deploy_life;
mod deploy_network;
mod deploy_unnoticed;
mod engines;
mod machine_claims;
mod machine_doctor;
mod machine_members;
mod machine_partition;
mod machine_refusals;
mod machine_service;
mod machine_site;
mod machines;
mod remains;
mod side_by_side;
mod turn;

/// Whether the testbed can and should run here. Prints the reason if not.
pub(crate) fn possible() -> bool {
    match uc_testbed::host::skipped() {
        None => true,
        Some(reason) => {
            eprintln!("SKIPPED: {reason}");
            false
        }
    }
}
