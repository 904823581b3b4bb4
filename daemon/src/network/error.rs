//! What can go wrong on the host side of the network.

use std::io;

use ipnet::Ipv4Net;

/// Errors of this module.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Docker did not do what it was asked.
    #[error("docker could not {action}: {source}")]
    Docker {
        /// What was tried.
        action: &'static str,
        /// What it said.
        #[source]
        source: bollard::errors::Error,
    },
    /// Docker did not answer in time.
    #[error("docker did not {action} within {seconds} s")]
    DockerTimeout {
        /// What was tried.
        action: &'static str,
        /// How long it was given.
        seconds: u64,
    },
    /// A subnet that cannot hold a machine's containers.
    #[error("{0} is no subnet for a machine: it needs a prefix length from 8 to 29")]
    Subnet(Ipv4Net),
    /// Somebody else's network has the name.
    #[error(
        "a docker network named {name} exists that uc did not make; remove it (docker network rm {name}) or rename it"
    )]
    Foreign {
        /// The name of the network.
        name: String,
    },
    /// It has to be made anew, and containers are on it.
    #[error(
        "docker network {name} has to be made anew ({differences}), but containers use it: {}; remove them first",
        containers.join(", ")
    )]
    InUse {
        /// The name of the network.
        name: String,
        /// What differs.
        differences: String,
        /// The containers on it, by name.
        containers: Vec<String>,
    },
    /// A program is missing.
    #[error("{program} is not installed; install the package {package}")]
    MissingProgram {
        /// Its name.
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
    /// A kernel setting cannot be changed.
    #[error("cannot set {setting}: {source}; containers could not reach other machines")]
    Sysctl {
        /// The setting.
        setting: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
