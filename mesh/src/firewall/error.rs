//! What can go wrong with the firewall.

use std::io;

/// Errors of the programs that apply the rules.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// A program is missing.
    #[error("{program} is not installed; install the package {package}")]
    MissingProgram {
        program: &'static str,
        /// The Debian and Fedora package it comes from.
        package: &'static str,
    },
    /// A program could not be run, or did not end.
    #[error("cannot run {command}: {source}")]
    Run {
        /// The command line.
        command: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed: {stderr}{hint}")]
    Failed {
        /// The command line.
        command: String,
        /// Its words.
        stderr: String,
        /// What to do, after a semicolon, or nothing.
        hint: &'static str,
    },
}
