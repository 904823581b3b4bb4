//! Which contents to remove: those that no service or container names any more. What counts is when
//! a content was last named, not when it was received: a running deployment may have to roll back
//! to what it has just replaced.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use uc_api::ContentHash;
use uc_api::v1::ServiceSpec;

use super::Stored;

/// How long a content is kept after it was last requested or named. This is longer than a
/// deployment takes.
pub(super) const KEEP: Duration = Duration::from_hours(1);
/// What a sweep does with the contents of a machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SweepPlan {
    /// Contents that are named: mark them as used now.
    pub(crate) refresh: Vec<ContentHash>,
    /// Contents that were not named for too long.
    pub(crate) remove: Vec<Stored>,
}

/// Decides about each content. `named` has the hashes that a container of this machine or a service
/// of the cluster names.
pub(crate) fn plan_sweep(
    stored: &[Stored],
    named: &BTreeSet<ContentHash>,
    now: SystemTime,
) -> SweepPlan {
    let mut plan = SweepPlan::default();
    for content in stored {
        match now.duration_since(content.used) {
            _ if named.contains(&content.hash) => plan.refresh.push(content.hash.clone()),
            // The clock went back. Start the age again from the present time.
            Err(_) => plan.refresh.push(content.hash.clone()),
            Ok(age) if age >= KEEP => plan.remove.push(content.clone()),
            Ok(_) => {}
        }
    }
    plan
}

/// Returns the contents that a spec names, ordered by hash. Ignores texts that are not hashes.
pub(crate) fn named_by(spec: &ServiceSpec) -> BTreeSet<ContentHash> {
    let files = spec.files.iter().map(|file| file.hash.as_str());
    let hashes = files.chain(spec.secret_environment.values().map(String::as_str));
    hashes.filter_map(|hash| hash.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> ContentHash {
        ContentHash::of(text.as_bytes())
    }

    #[test]
    fn sweep_removes_content_unnamed_for_an_hour() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let at = |text: &str, age: Duration| Stored {
            hash: hash(text),
            used: now - age,
        };
        let minute = Duration::from_mins(1);
        let stored = [
            at("old and named", 72 * KEEP),
            at("old", KEEP),
            at("older", 2 * KEEP),
            at("young", Duration::from_mins(59)),
            Stored {
                hash: hash("of a clock that went back"),
                used: now + minute,
            },
        ];
        let named = BTreeSet::from([hash("old and named"), hash("not here")]);
        let plan = plan_sweep(&stored, &named, now);
        assert_eq!(plan.remove, [at("old", KEEP), at("older", 2 * KEEP)]);
        assert_eq!(
            plan.refresh,
            [hash("old and named"), hash("of a clock that went back")]
        );
    }

    /// The content of a replica that was replaced and removed is kept while the deployment may have
    /// to roll back to it.
    #[test]
    fn sweep_keeps_content_for_an_hour_after_it_was_named() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let content = hash("of the old revision");
        let mut stored = vec![Stored {
            hash: content.clone(),
            used: start - 100 * KEEP,
        }];
        let named = plan_sweep(&stored, &BTreeSet::from([content.clone()]), start);
        assert_eq!(named.refresh, std::slice::from_ref(&content));
        stored[0].used = start;
        for minutes in 1..60 {
            let now = start + Duration::from_mins(minutes);
            assert_eq!(
                plan_sweep(&stored, &BTreeSet::new(), now),
                SweepPlan::default(),
                "after {minutes} minutes"
            );
        }
        assert_eq!(
            plan_sweep(&stored, &BTreeSet::new(), start + KEEP).remove,
            stored
        );
    }

    #[test]
    fn named_by_returns_files_and_secret_variables() {
        let file = |hash: &ContentHash| uc_api::v1::FileSpec {
            hash: hash.to_string(),
            ..Default::default()
        };
        let spec = ServiceSpec {
            files: vec![file(&hash("a")), uc_api::v1::FileSpec::default()],
            secret_environment: [("PASSWORD".to_owned(), hash("b").to_string())].into(),
            ..Default::default()
        };
        assert_eq!(named_by(&spec), BTreeSet::from([hash("a"), hash("b")]));
    }
}
