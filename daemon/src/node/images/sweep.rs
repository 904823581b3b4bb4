//! Which built images to remove: those that no container of this machine uses and no kept revision
//! of a service names. Images that a user pulled, built or tagged are never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use uc_api::Failure;

use super::super::NodeService;
use crate::engine::{Container, EngineError, NamedImage};

/// How long an image is kept after it was last used or requested. This is longer than sending the
/// images of a deployment takes, during which no record names them yet.
const KEEP: Duration = Duration::from_hours(1);
/// Digits of its id that the name of a built image ends in.
const DIGITS: usize = 12;

/// The built images that the records of services name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamedImages {
    /// Those of the revisions that a rollback can start.
    pub(crate) kept: BTreeSet<String>,
    /// Those of earlier revisions as well.
    pub(crate) all: BTreeSet<String>,
}

/// When each built image was last used or requested, and which images are known to be built. In
/// memory only: after a start of the daemon, the hour begins again.
#[derive(Debug, Default)]
pub(crate) struct ImageUse {
    /// Locked while an image is removed, and while a caller asks which images are missing, so that
    /// none is removed after a caller has learned that it is here.
    last_used: Mutex<BTreeMap<String, Instant>>,
    built: Mutex<BTreeSet<String>>,
}

impl NodeService {
    /// Removes the built images that have been unused for [`KEEP`], and returns their names. Does
    /// nothing during a deployment.
    pub(crate) async fn sweep_images(&self, named: &NamedImages) -> Result<Vec<String>, Failure> {
        if !self.leases.is_idle(Instant::now()) {
            return Ok(Vec::new());
        }
        let images = self.engine.images().await?;
        let mut used = used_by(&self.engine.containers().await?);
        used.extend(named.kept.iter().cloned());
        let mut built = self.image_use.built.lock().await;
        built.extend(named.all.iter().cloned());
        let candidates = built_images(&images, &built);
        built.retain(|name| candidates.contains(name));
        drop(built);
        let mut last_used = self.image_use.last_used.lock().await;
        last_used.retain(|name, _| candidates.contains(name));
        drop(last_used);
        let mut removed = Vec::new();
        for name in candidates {
            let mut last_used = self.image_use.last_used.lock().await;
            let now = Instant::now();
            if used.contains(&name) {
                last_used.insert(name, now);
                continue;
            }
            let since = *last_used.entry(name.clone()).or_insert(now);
            if now.duration_since(since) < KEEP {
                continue;
            }
            match self.engine.remove_image(&name).await {
                Ok(()) => {
                    last_used.remove(&name);
                    removed.push(name);
                }
                // A container that uc did not create uses it.
                Err(EngineError::Refused { .. }) => {
                    last_used.insert(name, now);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }

    /// Returns the images that are not on this machine. The others are kept for the next hour.
    pub(crate) async fn missing_images(&self, images: Vec<String>) -> Result<Vec<String>, Failure> {
        let mut last_used = self.image_use.last_used.lock().await;
        let mut missing = Vec::new();
        for image in images {
            if self.engine.image(&image).await?.is_none() {
                missing.push(image);
            } else {
                last_used.insert(image, Instant::now());
            }
        }
        Ok(missing)
    }

    /// Keeps an image that was received for the next hour.
    pub(super) async fn note_received_image(&self, image: &str) {
        let mut last_used = self.image_use.last_used.lock().await;
        last_used.insert(image.to_owned(), Instant::now());
    }
}

/// The images that these containers name.
fn used_by(containers: &[Container]) -> BTreeSet<String> {
    let records = containers.iter().map(|container| &container.record);
    let names = records.flat_map(|record| {
        let mounted = record.mounts.iter().map(|mount| &mount.source);
        std::iter::once(&record.image).chain(mounted)
    });
    names.cloned().collect()
}

/// The names among these that `uc` made: those that end in the beginning of the image's id, and
/// those that a record called built. An engine with another image store than the computer that
/// built the image gives it another id.
fn built_images(images: &[NamedImage], built: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for image in images {
        let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        let names = image.names.iter();
        found.extend(
            names
                .filter(|name| built.contains(*name) || is_named_by_id(name, id))
                .cloned(),
        );
    }
    found
}

/// Whether the name is `<project>-<service>:<12 digits of the id>`.
fn is_named_by_id(name: &str, id: &str) -> bool {
    let Some((repository, tag)) = name.split_once(':') else {
        return false;
    };
    let is_ours = repository.contains('-') && !repository.contains('/');
    is_ours && id.get(..DIGITS) == Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine as _;
    use crate::engine::suite::{IMAGE, service};
    use crate::node::tests::{Bench, bench};

    /// Any image of the machine that is not built.
    const OF_USER: [&str; 4] = [
        "nginx:1",
        "shop-web:latest",
        "example.org/shop-web:000000000001",
        "shop-web:fedcba987654",
    ];

    fn built(number: u32) -> String {
        format!("shop-web:{number:012x}")
    }

    fn id(number: u32) -> String {
        format!("sha256:{number:012x}{}", "0".repeat(52))
    }

    async fn names(bench: &Bench) -> BTreeSet<String> {
        let images = bench.engine.images().await.unwrap();
        let names = images.into_iter().flat_map(|image| image.names);
        names.filter(|name| name != IMAGE).collect()
    }

    async fn deploy(bench: &Bench, number: u32, previous: &mut Option<String>) {
        bench.engine.add_image_with_id(&built(number), &id(number));
        bench.node.note_received_image(&built(number)).await;
        let mut spec = service("web", "sleep 1000");
        (spec.image, spec.built) = (built(number), true);
        let container = bench.create(spec).await.unwrap();
        if let Some(previous) = previous.replace(container) {
            bench.engine.remove(&previous).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_deployments_leave_the_images_of_the_kept_revisions() {
        let bench = bench();
        for name in OF_USER {
            bench.engine.add_image_with_id(name, "sha256:abcabcabcabc");
        }
        let mut container = None;
        for number in 1..=5 {
            deploy(&bench, number, &mut container).await;
            tokio::time::sleep(2 * KEEP).await;
            let named = NamedImages {
                kept: (1..=number).rev().take(3).map(built).collect(),
                all: (1..=number).map(built).collect(),
            };
            bench.node.sweep_images(&named).await.unwrap();
        }
        tokio::time::sleep(KEEP).await;
        let named = NamedImages {
            kept: (3..=5).map(built).collect(),
            all: BTreeSet::new(),
        };
        bench.node.sweep_images(&named).await.unwrap();
        let mut wanted: BTreeSet<String> = (3..=5).map(built).collect();
        wanted.extend(OF_USER.map(str::to_owned));
        assert_eq!(names(&bench).await, wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn sweep_keeps_what_a_container_uses_or_a_client_asked_for() {
        let bench = bench();
        let mut container = None;
        deploy(&bench, 1, &mut container).await;
        bench.engine.add_image_with_id(&built(2), &id(2));
        let nothing = NamedImages::default();
        let sweep = || bench.node.sweep_images(&nothing);
        assert!(sweep().await.unwrap().is_empty());
        tokio::time::sleep(KEEP).await;
        let asked = vec![built(2), built(3)];
        let missing = bench.node.missing_images(asked).await.unwrap();
        assert_eq!(missing, [built(3)]);
        assert!(sweep().await.unwrap().is_empty());
        tokio::time::sleep(KEEP).await;
        assert_eq!(sweep().await.unwrap(), [built(2)]);
        bench.engine.remove(&container.unwrap()).await.unwrap();
        tokio::time::sleep(KEEP).await;
        assert_eq!(sweep().await.unwrap(), [built(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn sweep_waits_for_the_end_of_deployments() {
        let bench = bench();
        bench.engine.add_image_with_id(&built(1), &id(1));
        let nothing = NamedImages::default();
        assert!(bench.node.sweep_images(&nothing).await.unwrap().is_empty());
        tokio::time::sleep(KEEP).await;
        let executing = bench.node.leases().execute().unwrap();
        assert!(bench.node.sweep_images(&nothing).await.unwrap().is_empty());
        drop(executing);
        assert_eq!(bench.node.sweep_images(&nothing).await.unwrap(), [built(1)]);
    }

    /// The id on a machine with another image store is another one. The name is then known from
    /// the records, also after the service was removed.
    #[tokio::test(start_paused = true)]
    async fn sweep_removes_image_of_another_id_that_a_record_called_built() {
        let bench = bench();
        bench.engine.add_image_with_id(&built(1), &id(2));
        let named = NamedImages {
            kept: BTreeSet::from([built(1)]),
            all: BTreeSet::from([built(1)]),
        };
        assert!(bench.node.sweep_images(&named).await.unwrap().is_empty());
        tokio::time::sleep(KEEP).await;
        let removed = bench.node.sweep_images(&NamedImages::default()).await;
        assert_eq!(removed.unwrap(), [built(1)]);
    }
}
