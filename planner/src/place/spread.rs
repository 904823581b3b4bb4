//! Spreading a service over the values that machines have of something: as even as possible over
//! the first, then within it over the next.

use std::collections::BTreeMap;

use super::super::Cluster;
use super::super::rules::Rules;

/// How many replicas of one service each group of machines has, for each level of spreading.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread {
    /// By level and machine: the group it belongs to. Machines of one group have the same values
    /// on this level and all above it; those without a value are a group as well.
    groups: Vec<Vec<usize>>,
    /// By level and group.
    counts: Vec<Vec<usize>>,
}

impl Spread {
    pub(super) fn new(rules: &Rules, cluster: &Cluster<'_>) -> Self {
        let mut spread = Self::default();
        let mut above = vec![0; cluster.machines.len()];
        for fact in &rules.spread {
            let mut known = BTreeMap::new();
            let groups: Vec<usize> = cluster
                .machines
                .iter()
                .zip(&above)
                .map(|(machine, above)| {
                    let next = known.len();
                    *known.entry((*above, fact.value(machine))).or_insert(next)
                })
                .collect();
            spread.counts.push(vec![0; known.len()]);
            above.clone_from(&groups);
            spread.groups.push(groups);
        }
        spread
    }

    pub(super) fn add(&mut self, machine: usize) {
        for (groups, counts) in self.groups.iter().zip(&mut self.counts) {
            counts[groups[machine]] += 1;
        }
    }

    pub(super) fn remove(&mut self, machine: usize) {
        for (groups, counts) in self.groups.iter().zip(&mut self.counts) {
            counts[groups[machine]] -= 1;
        }
    }

    /// The fewer, the better, level by level.
    pub(super) fn load(&self, machine: usize) -> Vec<usize> {
        self.groups
            .iter()
            .zip(&self.counts)
            .map(|(groups, counts)| counts[groups[machine]])
            .collect()
    }
}
