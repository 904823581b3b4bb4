//! A node that joins late receives everything.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::protocol::Judgement;

/// Records that exist before it joins, in transactions of the maximum size.
const RECORDS: usize = 10_000;

#[test]
fn late_joiner_receives_ten_thousand_records() {
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
    // It joins while the last of them are still being written, and it writes as soon as it runs.
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
