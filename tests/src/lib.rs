//! The testbed: real machines on one Linux computer. A machine is a container that boots systemd
//! and has its own Docker engine and sshd. The machines of a testbed share an internal network that
//! no packet leaves. They run in a Docker engine of the testbed, with its own data, sockets, mount
//! namespace and cgroup. So [`Testbed::down`] finds and removes everything except the cache, also
//! after a crash.
//!
//! Several testbeds with different names can be up at the same time. The crate needs Linux, root
//! and Debian's packages; [`host::unsupported`] returns why a host cannot run it. It is a library
//! for end-to-end tests, `cargo xtask testbed`, `cargo xtask fresh` and the demo. All that it knows
//! of uc is how to run the program ([`Uc`]).

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
