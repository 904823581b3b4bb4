//! Which client fits which daemon.
//!
//! Each call carries [`CLIENT_VERSION_KEY`] and [`PROTOCOL_KEY`]; each reply carries
//! [`SERVER_VERSION_KEY`]. The daemon refuses a protocol number that it does not speak and says
//! which side to upgrade; it never guesses.

use crate::failure::{Code, Failure};

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Raised when an old client or daemon could misread the other; additions do not raise it.
pub const PROTOCOL: u32 = 1;
/// The oldest protocol still understood.
pub const OLDEST_PROTOCOL: u32 = 1;
/// Metadata key: the client's version, for messages.
pub const CLIENT_VERSION_KEY: &str = "uc-client-version";
/// Metadata key: the client's protocol number.
pub const PROTOCOL_KEY: &str = "uc-protocol";
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

#[cfg(test)]
mod tests {
    use super::*;

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
