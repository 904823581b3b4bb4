//! Machines that get no new replicas, because a user cordoned them.
//!
//! The mark is a separate group of fields in the machine's record, as the labels are. If one user
//! cordons a machine and another labels it on two sides of a partition, both changes survive. The
//! group's value is a [`MachineRecord`] that has only the time.

use prost::Message as _;
use uc_api::v1::MachineRecord;
use uc_cluster_state::Write;

use crate::cluster::records;

/// The group of fields of a machine's record for the mark. Group 0 is the record itself, group 1
/// has the labels.
pub(crate) const GROUP: u16 = 2;

/// Writes when the machine was cordoned (0: it is not), and leaves the rest of the record as it is.
pub(crate) fn write(machine_id: &str, cordoned_at_ms: i64) -> Write {
    let value = MachineRecord {
        cordoned_at_ms,
        ..MachineRecord::default()
    };
    Write::Edit {
        kind: records::MACHINE,
        key: machine_id.to_owned(),
        groups: vec![(GROUP, Some(value.encode_to_vec()))],
    }
}
