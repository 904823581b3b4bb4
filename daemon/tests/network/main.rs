//! The host side of the network against real Docker engines. Each machine is a network namespace
//! with its own engine and mesh process. Requires root, `/dev/net/tun`, dockerd and a static
//! busybox. Without them every test prints a notice and passes.

#[cfg(test)]
mod engine;
#[cfg(test)]
mod inside;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod network;
