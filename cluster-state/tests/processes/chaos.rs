//! Fifty processes, one scenario after the other: the same as with three and ten processes, on a
//! cluster as large as this test can afford.

use crate::cluster::Cluster;
use crate::crash::{Killing, kill_amid_writes};
use crate::cut::halve;
use crate::pause::stop_amid_writes;

#[test]
fn fifty_processes_are_killed() {
    let mut cluster = Cluster::start(50);
    kill_amid_writes(
        &mut cluster,
        "killed",
        Killing {
            writes: 10,
            victims: 10,
            noticed: true,
        },
    );
}

#[test]
fn fifty_processes_are_stopped() {
    let mut cluster = Cluster::start(50);
    stop_amid_writes(&mut cluster, "stopped", 10, 5);
}

#[test]
fn fifty_processes_are_halved() {
    let mut cluster = Cluster::start(50);
    halve(&mut cluster, "halved");
}
