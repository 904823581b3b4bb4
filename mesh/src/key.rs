//! WireGuard keys, and the management address that is derived from them. A machine's public key is
//! its identity in the mesh.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv6Net;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x25519_dalek::StaticSecret;

/// The network of the management addresses of all clusters: `fdcc::/16`, the range that Uncloud
/// uses.
///
/// RFC 4193 wants 40 random bits after `fd`. Here the 112 bits after the prefix come from the key,
/// so two addresses are equal only if the keys start with the same 14 bytes.
pub const MANAGEMENT_NETWORK: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfdcc, 0, 0, 0, 0, 0, 0, 0), 16);

/// Why a text or some bytes are not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in base64 (44 characters, the last one `=`).
    #[error("invalid WireGuard key: a key is 32 bytes in base64 (44 characters)")]
    Malformed,
    /// All zero, as an unset field would be. It is not a valid point.
    #[error("invalid WireGuard key: it is all zero")]
    Zero,
    /// The system did not provide random bytes.
    #[error("cannot get random bytes for a new key: {0}")]
    Random(String),
}

/// A machine's secret key. `Debug` hides it, and dropping it wipes it from memory.
#[derive(Clone)]
pub struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// A new key from the system's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self::from_bytes(bytes))
    }

    /// A key from 32 random bytes. Any 32 bytes are a valid key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// A secret that only the owners of the two keys can compute. Both compute the same one. Each
    /// purpose has its own context, a text that no other purpose uses, and so its own secret.
    ///
    /// Returns `None` if the peer's key is one of the few points with which the result would not
    /// depend on this key. Such a secret would be known to everyone.
    pub fn shared_key(&self, peer: &PublicKey, context: &'static str) -> Option<[u8; 32]> {
        let shared = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(peer.0));
        if !shared.was_contributory() {
            return None;
        }
        let own = self.public();
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(shared.as_bytes());
        hasher.update(&own.0.min(peer.0));
        hasher.update(&own.0.max(peer.0));
        Some(*hasher.finalize().as_bytes())
    }

    /// The text form, for a file that only root can read.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0.to_bytes())
    }

    pub(crate) fn secret(&self) -> StaticSecret {
        self.0.clone()
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(decode(text)?))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

/// Two secret keys are equal if and only if their public halves are. Comparing the public halves
/// leaks nothing through its timing.
impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}
impl Eq for PrivateKey {}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// A machine's public key: its identity in the mesh. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key in these bytes. The all-zero key is refused.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        if bytes == [0; 32] {
            Err(KeyError::Zero)
        } else {
            Ok(Self(bytes))
        }
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight characters of the text form, for log lines.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(decode(text)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// The address of a machine's daemon inside the mesh: `fdcc:` and the first 14 bytes of its public
/// key.
///
/// It is derived from the key alone, so it does not have to be assigned. No machine can use the
/// address of another: WireGuard accepts a source address only from the key that it belongs to.
pub fn management_address(key: &PublicKey) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&MANAGEMENT_NETWORK.addr().octets()[..2]);
    octets[2..].copy_from_slice(&key.0[..14]);
    Ipv6Addr::from(octets)
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|_| KeyError::Malformed)?;
    bytes.try_into().map_err(|_| KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1: Alice's key pair.
    const ALICE_SECRET: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn public_key_matches_rfc_7748() {
        let secret: PrivateKey = ALICE_SECRET.parse().unwrap();
        assert_eq!(secret.public().to_string(), ALICE_PUBLIC);
        assert_eq!(secret.to_base64(), ALICE_SECRET);
    }

    /// RFC 7748, section 6.1: Bob's secret, and what the two share.
    const BOB_SECRET: &str = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";
    const SHARED: &str = "Sl2dW6TOLeFyjjv0gDUPJeB+IclH0Z4zdvCbPB4WF0I=";

    #[test]
    fn shared_key_is_derived_from_the_secret_of_rfc_7748() {
        let alice: PrivateKey = ALICE_SECRET.parse().unwrap();
        let bob: PrivateKey = BOB_SECRET.parse().unwrap();
        let key = alice.shared_key(&bob.public(), "test").unwrap();
        assert_eq!(bob.shared_key(&alice.public(), "test"), Some(key));
        let (a, b) = (alice.public(), bob.public());
        let (low, high) = (a.min(b), a.max(b));
        let material = [&decode(SHARED).unwrap(), low.as_bytes(), high.as_bytes()];
        assert_eq!(
            key,
            blake3::derive_key("test", &material.map(|bytes| &bytes[..]).concat())
        );
    }

    #[test]
    fn shared_key_depends_on_both_keys_and_the_context() {
        let alice: PrivateKey = ALICE_SECRET.parse().unwrap();
        let bob: PrivateKey = BOB_SECRET.parse().unwrap();
        let other = PrivateKey::from_bytes([7; 32]);
        let key = alice.shared_key(&bob.public(), "test");
        assert_ne!(alice.shared_key(&other.public(), "test"), key);
        assert_ne!(other.shared_key(&bob.public(), "test"), key);
        assert_ne!(alice.shared_key(&bob.public(), "other"), key);
    }

    /// Points of a small order: their multiples are the same few points for every key.
    #[test]
    fn shared_key_refuses_points_that_hide_nothing() {
        let alice: PrivateKey = ALICE_SECRET.parse().unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        // p - 1, p, and p + 1, where p = 2^255 - 19.
        let near_p = [0xec, 0xed, 0xee].map(|low| {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, 0x7f);
            bytes
        });
        for bytes in [one].into_iter().chain(near_p) {
            let point = PublicKey::from_bytes(bytes).unwrap();
            assert_eq!(alice.shared_key(&point, "test"), None, "{bytes:?}");
        }
    }

    #[test]
    fn keys_survive_json() {
        let secret: PrivateKey = ALICE_SECRET.parse().unwrap();
        let json = serde_json::to_string(&(&secret, secret.public())).unwrap();
        assert_eq!(json, format!(r#"["{ALICE_SECRET}","{ALICE_PUBLIC}"]"#));
        let (back, public): (PrivateKey, PublicKey) = serde_json::from_str(&json).unwrap();
        assert_eq!((back.public(), public), (secret.public(), secret.public()));
    }

    #[test]
    fn debug_hides_private_key() {
        let secret: PrivateKey = ALICE_SECRET.parse().unwrap();
        assert_eq!(format!("{secret:?}"), "PrivateKey(hidden)");
    }

    #[test]
    fn generated_keys_differ() {
        assert_ne!(
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap()
        );
    }

    #[test]
    fn invalid_keys_are_refused() {
        for bad in [
            "",
            "abc",
            "####",
            &ALICE_PUBLIC[..40],
            &format!("{ALICE_PUBLIC}AAAA"),
        ] {
            assert_eq!(
                bad.parse::<PublicKey>(),
                Err(KeyError::Malformed),
                "{bad:?}"
            );
        }
        let zero = STANDARD.encode([0; 32]);
        assert_eq!(zero.parse::<PublicKey>(), Err(KeyError::Zero));
        let error = serde_json::from_str::<PublicKey>(&format!("\"{zero}\"")).unwrap_err();
        assert!(error.to_string().contains("all zero"), "{error}");
    }

    #[test]
    fn management_address_is_the_prefix_and_14_bytes_of_the_key() {
        let key: PublicKey = ALICE_PUBLIC.parse().unwrap();
        let address = management_address(&key);
        assert_eq!(
            address.to_string(),
            "fdcc:8520:f009:8930:a754:748b:7ddc:b43e"
        );
        assert!(MANAGEMENT_NETWORK.contains(&address));
    }
}
