//! Join tokens: what a new machine needs to come in through the mesh, in one line to paste.
//!
//! A token carries the private half of a WireGuard key that the cluster's machines accept as a peer
//! until it expires or is used. It opens the mesh to the join call only (the daemon checks the
//! caller's address). Whoever reads it can join: treat it as a password.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Marks our tokens and their version.
pub const PREFIX: &str = "uc1:";
/// No honest token is longer; the limit is for what is pasted by mistake.
pub const MAX_LENGTH: usize = 16 * 1024;

/// A text is not a join token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It does not begin with [`PREFIX`].
    #[error("this is not a join token: it should begin with `{PREFIX}`")]
    Prefix,
    /// It was cut off or changed.
    #[error("the join token is damaged; copy it whole, in one line")]
    Damaged,
}

/// A member that a joining machine can talk to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMember {
    /// WireGuard public key, base64.
    pub public_key: String,
    /// host:port, best first.
    pub endpoints: Vec<String>,
}

/// A join token, opened.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Names the token in the store.
    pub id: String,
    /// WireGuard private key, base64, that the members accept.
    pub private_key: String,
    /// Members, the issuer first.
    pub members: Vec<TokenMember>,
    /// Unix milliseconds.
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
    /// The line to paste.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
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
