//! Contents that nobody names any more go. What counts is when something last named them, not when
//! they came: while a deployment is under way, it may still have to go back to what it has just
//! replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uc_api::v1::ServiceSpec;
use uc_api::{ContentHash, Failure};

use super::Stored;
use crate::member::Member;

/// How long a content is kept after it was last asked for or named: longer than a deployment takes.
pub(super) const KEEP: Duration = Duration::from_hours(1);
/// How often is looked. Also how much less than [`KEEP`] a content may be kept after its last
/// container was removed.
const LOOK: Duration = Duration::from_mins(10);

/// What is to be done with the contents of a machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Named: used as of now.
    pub(super) refresh: Vec<ContentHash>,
    /// Not named for too long.
    pub(super) remove: Vec<Stored>,
}

/// `named`: by a container of this machine or a service of the cluster.
pub(super) fn decide(
    stored: &[Stored],
    named: &BTreeSet<ContentHash>,
    now: SystemTime,
) -> Decision {
    let mut decision = Decision::default();
    for content in stored {
        match now.duration_since(content.used) {
            _ if named.contains(&content.hash) => decision.refresh.push(content.hash.clone()),
            // The clock went back; the time that it has now is as good as any.
            Err(_) => decision.refresh.push(content.hash.clone()),
            Ok(age) if age >= KEEP => decision.remove.push(content.clone()),
            Ok(_) => {}
        }
    }
    decision
}

/// The contents that a spec names, in the order of their hashes. What is no hash names nothing.
pub fn named_by(spec: &ServiceSpec) -> BTreeSet<ContentHash> {
    let files = spec.files.iter().map(|file| file.hash.as_str());
    let hashes = files.chain(spec.secret_environment.values().map(String::as_str));
    hashes.filter_map(|hash| hash.parse().ok()).collect()
}

/// Until the daemon stops: at once, then every [`LOOK`].
pub(crate) async fn run(member: Arc<Member>) {
    loop {
        // Without the engine's word nothing is removed.
        if let Err(failure) = look(&member).await {
            tracing::debug!(%failure, "contents are not swept now");
        }
        tokio::select! {
            () = member.cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(member: &Member) -> Result<(), Failure> {
    let files = member.node.files();
    // First: what comes later is young.
    let stored = files.stored().await?;
    if stored.is_empty() {
        return Ok(());
    }
    let mut named: BTreeSet<ContentHash> = BTreeSet::new();
    for record in member.view().services().into_values() {
        named.extend(record.spec.iter().flat_map(named_by));
    }
    let replicas = member.node.observe_now().await?.replicas;
    let of_replicas = replicas.iter().flat_map(|replica| &replica.files);
    named.extend(of_replicas.filter_map(|hash| hash.parse().ok()));
    let Decision { refresh, remove } = decide(&stored, &named, SystemTime::now());
    for content in &remove {
        tracing::info!(
            content = content.hash.short(),
            "nothing has named it for an hour: removed"
        );
    }
    files.settle(refresh, remove).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> ContentHash {
        ContentHash::of(text.as_bytes())
    }

    #[test]
    fn what_nobody_has_named_for_an_hour_goes() {
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
        let decision = decide(&stored, &named, now);
        assert_eq!(decision.remove, [at("old", KEEP), at("older", 2 * KEEP)]);
        assert_eq!(
            decision.refresh,
            [hash("old and named"), hash("of a clock that went back")]
        );
    }

    /// A replica that was replaced and removed: its content stays for as long as the deployment may
    /// have to go back to it.
    #[test]
    fn what_was_named_until_now_is_kept_for_an_hour() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let content = hash("of the old revision");
        let mut stored = vec![Stored {
            hash: content.clone(),
            used: start - 100 * KEEP,
        }];
        let named = decide(&stored, &BTreeSet::from([content.clone()]), start);
        assert_eq!(named.refresh, std::slice::from_ref(&content));
        stored[0].used = start;
        for minutes in 1..60 {
            let now = start + Duration::from_mins(minutes);
            assert_eq!(
                decide(&stored, &BTreeSet::new(), now),
                Decision::default(),
                "after {minutes} minutes"
            );
        }
        assert_eq!(
            decide(&stored, &BTreeSet::new(), start + KEEP).remove,
            stored
        );
    }

    #[test]
    fn a_spec_names_its_files_and_its_secret_variables() {
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
