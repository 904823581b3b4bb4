//! The mesh over real TUN devices, in network namespaces that the tests make: each machine is a
//! namespace, each mesh process a process. Needs root and `/dev/net/tun`; without them every test
//! says so and passes.

#[cfg(test)]
mod guard;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod process;
