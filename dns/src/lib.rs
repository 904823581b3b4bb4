//! Cluster DNS: answers `web.shop.internal` and the like from the present state of the cluster, and
//! forwards all other names to the machine's own resolvers.
//!
//! The meaning of names is pure: [`Zone::build`] makes an immutable zone from what a machine knows
//! about the cluster, and [`Zone::lookup`] answers from it. The shell around it, [`Server`],
//! listens on UDP and TCP, replaces the zone when a new one arrives, and forwards names outside the
//! zone.
//!
//! | name | answer |
//! |---|---|
//! | `<service>.<project>.internal` | the replicas of that service |
//! | `<service>.internal` | the same, if exactly one project has a service of that name. If several projects have one, the answer is empty, so that replicas of different projects are never mixed. The name with the project always works |
//! | `<machine>.m.<service>[.<project>].internal` | only those on that machine, given by name or id |
//! | `rr.<any of the above>` | shuffled, as without a prefix |
//! | `nearest.<any of the above>` | the replicas on the answering machine first, then the others |
//! | `<machine>.machine.internal` | the machine itself |
//! | `<d>.<c>.<b>.<a>.in-addr.arpa` | PTR: the service or machine with that address |
//!
//! Containers have `search <project>.internal internal`, so a short name means a service of the
//! same project first.
//!
//! An answer contains replicas that run, are not unhealthy, not draining, and not on a machine that
//! is down. Only if no other replica is left, those on machines that are down are returned. A name
//! that exists without such a replica gets an empty answer, not NXDOMAIN. AAAA and SRV are not
//! supported yet: both get an empty answer.
//!
//! Only the header and the question of a message are parsed, so the codec is our own ([`message`]).
//! A forwarded message stays the same byte for byte, and an answer from the zone hardly allocates.
//! The tests read our messages with hickory-dns and with `dig`.

mod cache;
mod error;
mod forward;
pub mod message;
pub mod resolv_conf;
mod server;
mod zone;

pub use error::DnsError;
pub use server::{Limits, Server, ServerConfig};
pub use zone::{
    ANSWER_TTL_S, Kind, Lookup, MAX_ANSWERS, MachineState, ReplicaHealth, Zone, ZoneAlias,
    ZoneInput, ZoneMachine, ZoneReplica,
};
