//! A volume of which two machines have one of the same name: one of them was removed from the
//! cluster and added again, or somebody made the second by hand.

use super::super::desired::Target;
use super::super::place::is_alive;
use super::super::{Cluster, and};
use super::Eligible;

/// For a service that wants one place: the machine where it runs, otherwise the one that has had
/// the volume for longest, of those that are up. Says so. Not where nothing was written down of one
/// of the volumes: it may be meant so.
pub(super) fn keep_one_home(
    target: &Target,
    volume: &str,
    found: &mut Eligible,
    cluster: &Cluster<'_>,
    warnings: &mut Vec<String>,
) {
    let since = |machine: &usize| cluster.machines[*machine].volume_homes.get(volume).copied();
    let mut all: Vec<usize> = found.all().collect();
    all.sort_unstable();
    let is_ambiguous =
        target.spec.replicas == 1 && all.len() > 1 && all.iter().all(|one| since(one).is_some());
    if !is_ambiguous {
        return;
    }
    let replicas = cluster.replicas_of(&target.key);
    let runs_on = |machine: &usize| {
        let mut replicas = replicas.iter();
        replicas.any(|(on, replica)| on == machine && is_alive(replica))
    };
    let chosen = all
        .iter()
        .copied()
        .min_by_key(|machine| (!runs_on(machine), since(machine), *machine));
    let Some(chosen) = chosen else { return };
    found.keep(&[chosen]);
    warnings.push(format!(
        "{}: volume `{volume}` is on {}; the one on {} is used",
        target.key,
        and(&cluster.names(&all)),
        cluster.name(chosen)
    ));
}
