//! The host side of the network against real Docker engines: each machine is a network namespace
//! with an engine and a mesh process of its own. Needs root, `/dev/net/tun`, dockerd and a static
//! busybox; without them every test says so and passes.

#[cfg(test)]
mod engine;
#[cfg(test)]
mod inside;
#[cfg(test)]
mod network;
