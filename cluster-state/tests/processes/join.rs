//! A node that joins late gets everything.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::protocol::Judgement;

/// Records there are before it joins, in transactions of the largest size.
const RECORDS: usize = 10_000;

#[test]
fn a_late_joiner_gets_ten_thousand_records() {
    let mut cluster = Cluster::start(3);
    let expected: BTreeMap<String, String> = (0..RECORDS)
        .map(|number| (format!("record {number}"), format!("value {number}")))
        .collect();
    let records: Vec<_> = expected
        .iter()
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .collect();
    for (writer, part) in (0..3)
        .cycle()
        .zip(records.chunks(uc_cluster_state::MAX_TRANSACTION))
    {
        cluster.write(writer, part.to_vec());
    }
    // It joins while the last of them are still under way, and writes as soon as it is there.
    let late = cluster.join();
    cluster.put(late, "the joiner's", "x");
    let all = cluster.awake();
    cluster.converge(&all);
    cluster.expect_values(&all, &expected);
    cluster.expect_values(
        &all,
        &BTreeMap::from([("the joiner's".to_owned(), "x".to_owned())]),
    );
    cluster.judged(&all, &all, Judgement::Up);
}
