//! `ucd`, the daemon on every machine: wires the replicated store, the mesh, DNS and Docker together and serves the API. The binary only
//! parses its arguments and calls in here.

pub mod deploy;
pub mod docker;
pub mod network;
