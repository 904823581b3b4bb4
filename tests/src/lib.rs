//! The testbed: real machines on one Linux box. A machine is a container that boots systemd and has
//! a Docker engine and an sshd of its own; the machines of a testbed share an internal network
//! which no packet leaves. They run in a Docker engine which the testbed starts for itself, with
//! its own data, sockets, mount namespace and cgroup, so that [`Testbed::down`] finds everything
//! again and leaves nothing but the cache, also after a crash.
//!
//! Several testbeds with different names live side by side. The crate needs Linux, root and
//! Debian's packages; [`host::unsupported`] says why a host cannot run it. It is a library for
//! end-to-end tests, `cargo xtask testbed` and the demo. Of uc it knows how to run the program
//! ([`Uc`]), nothing more.

mod apt;
mod cgroup;
mod debian;
mod engine;
pub mod fresh;
pub mod host;
pub mod http;
mod images;
mod layout;
mod lease;
mod machine;
mod network;
mod newer;
mod progress;
mod recipe;
mod run;
mod ssh;
mod state;
mod teardown;
mod testbed;
mod uc;

pub use images::TestImages;
pub use layout::{Layout, TestbedName, cache};
pub use lease::{Claim, Lease, SHARED, Turn};
pub use machine::{Machine, MachineState};
pub use recipe::Engine;
pub use run::{Output, command, wait_for};
pub use testbed::{MachineReport, Report, Testbed, UpOptions, list};
pub use uc::{Binaries, Uc};
