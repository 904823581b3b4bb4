//! What machines that are away have to remove when they are back. `reconcile::retire` carries it
//! out there.

use uc_api::v1::{Plan, RetireRecord, Retirement};
use uc_cluster_state::Write;

use crate::cluster::records::{self, delete, put};

/// The records of a plan's retirements. They are written when the plan has been carried out: the
/// replicas of before are needed if it fails.
pub(super) fn retire_writes(plan: &Plan, deployment: &str, now_ms: i64) -> Vec<Write> {
    let write = |retirement: &Retirement| {
        let Retirement {
            machine_id,
            machine_name: _,
            container_id,
            container_name,
            project,
            service,
            reason,
        } = retirement.clone();
        let record = RetireRecord {
            project,
            service,
            container_name,
            reason,
            deployment_id: deployment.to_owned(),
            created_at_ms: now_ms,
        };
        put(
            records::RETIRE,
            format!("{machine_id}/{container_id}"),
            &record,
        )
    };
    plan.retirements.iter().map(write).collect()
}

/// Takes the records of a plan's retirements back.
pub(super) fn retire_deletes(plan: &Plan) -> impl Iterator<Item = Write> + '_ {
    plan.retirements.iter().map(|of| {
        let key = format!("{}/{}", of.machine_id, of.container_id);
        delete(records::RETIRE, key)
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn each_retirement_is_a_record_of_its_machine_and_container() {
        let retirement = Retirement {
            machine_id: "m3".into(),
            machine_name: "three".into(),
            container_id: "abcd".into(),
            container_name: "shop-web-x".into(),
            project: "shop".into(),
            service: "web".into(),
            reason: "surplus".into(),
        };
        let plan = Plan {
            retirements: vec![retirement],
            ..Plan::default()
        };
        let writes = retire_writes(&plan, "d1", 7);
        let [Write::Put { kind, key, value }] = writes.as_slice() else {
            panic!("{writes:?}");
        };
        assert_eq!((*kind, key.as_str()), (records::RETIRE, "m3/abcd"));
        let record = RetireRecord {
            project: "shop".into(),
            service: "web".into(),
            container_name: "shop-web-x".into(),
            reason: "surplus".into(),
            deployment_id: "d1".into(),
            created_at_ms: 7,
        };
        assert_eq!(RetireRecord::decode(value.as_slice()).unwrap(), record);
        assert!(retire_writes(&Plan::default(), "d1", 7).is_empty());
    }
}
