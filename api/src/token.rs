//! Join tokens: everything a new machine needs to join through the mesh, in one line to paste.
//!
//! A token carries the private half of a WireGuard key. The cluster's machines accept that key as a
//! peer until the token expires or is used. The token gives access to the join call only; the
//! daemon checks the caller's address. Anyone who can read a token can join the cluster: treat it
//! as a password.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Marks a join token and gives its version.
pub const PREFIX: &str = "uc1:";
/// Bytes of a token without its prefix. No legitimate token is longer; this rejects text pasted by
/// mistake.
pub const MAX_LENGTH: usize = 16 * 1024;

/// The text does not start with [`PREFIX`].
#[derive(Debug, Error)]
pub enum TokenError {
    #[error("this is not a join token: it must start with `{PREFIX}`")]
    Prefix,
    /// The text was cut off or changed.
    #[error("the join token is damaged: copy the whole token as one line")]
    Damaged,
}

/// A member that a joining machine can contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMember {
    /// WireGuard public key in base64.
    pub public_key: String,
    /// Endpoints as `host:port`, best first.
    pub endpoints: Vec<String>,
}

/// A decoded join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The token's key in the store.
    pub id: String,
    /// WireGuard private key in base64. The members accept its public half as a peer.
    pub private_key: String,
    /// Members to contact, the issuer first.
    pub members: Vec<TokenMember>,
    /// Expiry in Unix milliseconds.
    pub expires_at_ms: i64,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Encodes the token as the line to paste.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_vec(self).expect("texts and numbers are valid JSON");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl std::str::FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if body.len() > MAX_LENGTH {
            return Err(TokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| TokenError::Damaged)?;
        serde_json::from_slice(&json).map_err(|_| TokenError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_never_shows_its_key() {
        let token = JoinToken {
            id: "t1".into(),
            private_key: "secret".into(),
            members: vec![TokenMember {
                public_key: "k".into(),
                endpoints: vec!["1.2.3.4:51820".into()],
            }],
            expires_at_ms: 5,
        };
        assert_eq!(
            format!(" {}\n", token.to_line())
                .parse::<JoinToken>()
                .unwrap(),
            token
        );
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_token_is_said() {
        assert!(matches!(
            "hello".parse::<JoinToken>(),
            Err(TokenError::Prefix)
        ));
        assert!(matches!(
            "uc1:%%%".parse::<JoinToken>(),
            Err(TokenError::Damaged)
        ));
    }
}
