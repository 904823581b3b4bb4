//! Cluster DNS: what `web.shop.internal` and its kin mean right now, and everything else by way of
//! the machine's own resolvers.
//!
//! The meaning of names is pure: [`Zone::build`] makes an immutable zone from what a machine knows
//! of the cluster, [`Zone::lookup`] answers from it. The shell around it, [`Server`], listens on
//! UDP and TCP, swaps zones as they come, and forwards what is not ours.
//!
//! | name | answer |
//! |---|---|
//! | `<service>.<project>.internal` | the replicas of that service |
//! | `<service>.internal` | the same, if exactly one project has a service of that name. If several have one there is no answer rather than replicas of one project among those of another; the name with the project always works |
//! | `<machine>.m.<service>[.<project>].internal` | only those on that machine (name or id) |
//! | `rr.<any of the above>` | shuffled, which is what happens without a prefix too |
//! | `nearest.<any of the above>` | those of the machine that answers first, then the others |
//! | `<machine>.machine.internal` | the machine itself |
//! | `<d>.<c>.<b>.<a>.in-addr.arpa` | PTR: the service or machine that has the address |
//!
//! Containers have `search <project>.internal internal`, so a short name means one's own project
//! first.
//!
//! Answered are replicas that run, are not unhealthy and not draining, and not on a machine that is
//! down, unless nothing else is left. A name that exists without such a replica gets an empty
//! answer, not NXDOMAIN. There is no AAAA or SRV yet: both get an empty answer.
//!
//! Only the header and the question of a message are ever taken apart, so the codec is our own
//! ([`message`]): what is forwarded stays as it came, byte for byte, and an answer from the zone
//! costs no allocation worth mentioning. The tests read our messages with hickory-dns and with
//! `dig`.

mod cache;
mod error;
mod forward;
pub mod message;
pub mod resolv_conf;
mod server;
mod zone;

pub use error::DnsError;
pub use server::{Limits, Server, ServerConfig, serve};
pub use zone::{
    ANSWER_TTL_S, Kind, Lookup, MAX_ANSWERS, Zone, ZoneAlias, ZoneInput, ZoneMachine, ZoneReplica,
};
