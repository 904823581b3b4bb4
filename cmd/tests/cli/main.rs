//! The built `uc`, run as a person or a script runs it, against a daemon with canned answers on a
//! Unix socket and stand-ins for `ssh` and `docker` in PATH. What is snapshot is what is seen: exit
//! code, stdout, stderr.

#![expect(
    clippy::unwrap_used,
    reason = "a test's own set-up that fails is a failed test"
)]

mod build;
mod config;
mod conflicts;
mod connect;
mod contexts;
mod daemon;
mod deploy;
mod deploy_follow;
mod deploy_images;
mod deploy_output;
mod deployments;
mod dialling;
mod doctor;
mod drain;
mod exec;
mod files;
mod help;
mod history;
mod interrupt;
mod listings;
mod lock;
mod logs;
mod machine;
mod misuse;
mod plan;
mod provision;
mod provision_undo;
mod tokens;
mod world;
