//! Which calls a daemon accepts: the protocol and the cluster must be its own.
//!
//! Each call carries [`CLIENT_VERSION_KEY`] and [`PROTOCOL_KEY`], and [`CLUSTER_KEY`] if the client
//! knows which cluster it means. Each reply carries [`SERVER_VERSION_KEY`]. The daemon refuses a
//! protocol number that it does not speak and reports which side to upgrade. It also refuses a call
//! that is meant for another cluster.

use crate::failure::{Code, Failure};
use crate::id;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Raised when an old client or daemon could misread the other; additions do not raise it.
pub const PROTOCOL: u32 = 2;
/// The oldest protocol still understood.
pub const OLDEST_PROTOCOL: u32 = 2;
/// Metadata key: the client's version, for messages.
pub const CLIENT_VERSION_KEY: &str = "uc-client-version";
/// Metadata key: the client's protocol number.
pub const PROTOCOL_KEY: &str = "uc-protocol";
/// Metadata key: the id of the cluster that the call is meant for. Absent where the client names no
/// cluster (`--connect`, and machines that are being set up).
pub const CLUSTER_KEY: &str = "uc-cluster";
/// Metadata key of replies: the daemon's version.
pub const SERVER_VERSION_KEY: &str = "uc-server-version";

/// Checks a caller's protocol number (`None`: it did not say) against what this daemon speaks.
pub fn check_client(client_version: &str, protocol: Option<u32>) -> Result<(), Failure> {
    let wrong = |what: &str, hint: String| {
        Err(Failure::new(
            Code::Version,
            format!("uc {client_version} is {what} than this machine's ucd {VERSION}"),
        )
        .hint(hint))
    };
    match protocol {
        Some(number) if number < OLDEST_PROTOCOL => wrong(
            "older",
            format!("upgrade uc to {VERSION}: run install.sh of that version on this computer"),
        ),
        Some(number) if number > PROTOCOL => wrong(
            "newer",
            format!("upgrade the machine: run install.sh of version {client_version} on it"),
        ),
        Some(_) => Ok(()),
        None => Err(Failure::new(
            Code::Version,
            "the caller does not say which protocol it speaks",
        )
        .hint(format!("upgrade uc to {VERSION}"))),
    }
}

/// Checks the cluster that a call is meant for (`None`: any) against the one this machine is in
/// (`None`: not in a cluster).
pub fn check_cluster(meant: Option<&str>, own: Option<&str>) -> Result<(), Failure> {
    let Some(meant) = meant else { return Ok(()) };
    let message = match own {
        Some(own) if own == meant => return Ok(()),
        Some(own) => format!(
            "this machine is in cluster {}, not in cluster {}",
            id::short(own),
            id::short(meant)
        ),
        None => format!(
            "this machine is not in a cluster, so not in cluster {}",
            id::short(meant)
        ),
    };
    Err(Failure::new(Code::WrongCluster, message)
        .hint("`uc ctx ls` lists the connections of each context"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_cluster_refuses_another_cluster_and_none() {
        assert!(check_cluster(None, None).is_ok());
        assert!(check_cluster(None, Some("a")).is_ok());
        assert!(check_cluster(Some("a"), Some("a")).is_ok());
        for own in [None, Some("b")] {
            let refused = check_cluster(Some("a"), own).unwrap_err();
            assert_eq!(refused.code, Code::WrongCluster);
        }
    }

    #[test]
    fn only_what_fits_is_let_in() {
        assert!(check_client("0.1.0", Some(PROTOCOL)).is_ok());
        let older = check_client("0.0.1", Some(0)).unwrap_err();
        assert!(older.message.contains("older") && older.hint.unwrap().contains("upgrade uc"));
        let newer = check_client("9.0.0", Some(PROTOCOL + 1)).unwrap_err();
        assert!(
            newer.message.contains("newer") && newer.hint.unwrap().contains("upgrade the machine")
        );
        assert!(check_client("?", None).is_err());
    }
}
