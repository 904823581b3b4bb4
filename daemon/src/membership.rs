//! How a machine enters a cluster, how members register it, and how it leaves.

pub(crate) mod endpoints;
pub(crate) mod join;
pub(crate) mod leave;
pub(crate) mod register;
pub(crate) mod remember;
pub(crate) mod renumber;
pub(crate) mod tokens;
