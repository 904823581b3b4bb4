//! Which built images to remove: those that no container of this machine uses and no kept revision
//! of a service names. Images that did not come from this cluster are never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uc_api::Failure;

use super::super::NodeService;
use super::built::BuiltImages;
use crate::engine::{Container, EngineError, NamedImage};

/// How long an image is kept after it was last used or requested. This is longer than sending the
/// images of a deployment takes, during which no record names them yet.
const KEEP: Duration = Duration::from_hours(1);

/// The built images that the records of services name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamedImages {
    /// Those of the revisions that a rollback can start.
    pub(crate) kept: BTreeSet<String>,
    /// Those of earlier revisions as well.
    pub(crate) all: BTreeSet<String>,
}

/// Which images came from this cluster, and when each was last used or requested. The times are in
/// memory only: after a start of the daemon, the hour begins again.
#[derive(Debug)]
pub(crate) struct ImageUse {
    built: BuiltImages,
    last_used: Mutex<BTreeMap<String, Instant>>,
    /// The image that is being removed. It is set while `last_used` is locked, so that no image is
    /// removed after a caller has learned that it is here.
    removing: watch::Sender<Option<String>>,
}

impl ImageUse {
    /// Reads the names of the images that came from this cluster.
    pub(crate) fn open(path: &Path) -> Self {
        Self {
            built: BuiltImages::open(path),
            last_used: Mutex::default(),
            removing: watch::Sender::default(),
        }
    }

    fn last_used(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        let last_used = self.last_used.lock();
        last_used.unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an image for the next hour. False if it is being removed.
    fn keep(&self, image: &str) -> bool {
        let mut last_used = self.last_used();
        if self.removing.borrow().as_deref() == Some(image) {
            return false;
        }
        last_used.insert(image.to_owned(), Instant::now());
        true
    }

    /// Whether the image has been unused for [`KEEP`]. Its removal has then begun.
    fn begin_removal(&self, image: &str) -> bool {
        let mut last_used = self.last_used();
        let now = Instant::now();
        let since = *last_used.entry(image.to_owned()).or_insert(now);
        let is_due = now.duration_since(since) >= KEEP;
        if is_due {
            self.removing.send_replace(Some(image.to_owned()));
        }
        is_due
    }

    fn end_removal(&self) {
        self.removing.send_replace(None);
    }
}

impl NodeService {
    /// Removes the built images that have been unused for [`KEEP`], and returns their names. Does
    /// nothing during a deployment.
    pub(crate) async fn sweep_images(&self, named: &NamedImages) -> Result<Vec<String>, Failure> {
        let uses = &self.image_use;
        if !self.leases.is_idle(Instant::now()) {
            return Ok(Vec::new());
        }
        let mut known = uses.built.names().await;
        known.extend(named.all.iter().cloned());
        let images = self.engine.images().await?;
        let mut used = used_by(&self.engine.containers().await?);
        used.extend(named.kept.iter().cloned());
        let candidates = built_images(&images, &known);
        // What was received since the images were listed is not in `known`.
        let change = |names: &mut BTreeSet<String>| {
            names.retain(|name| !known.contains(name));
            names.extend(candidates.iter().cloned());
        };
        uses.built.change(change).await;
        uses.last_used().retain(|name, _| candidates.contains(name));
        let mut removed = Vec::new();
        for name in candidates {
            if used.contains(&name) {
                uses.keep(&name);
                continue;
            }
            if !self.leases.is_idle(Instant::now()) {
                break;
            }
            if !uses.begin_removal(&name) {
                continue;
            }
            let result = self.engine.remove_image(&name).await;
            uses.end_removal();
            match result {
                Ok(()) => {
                    uses.last_used().remove(&name);
                    removed.push(name);
                }
                // The next attempt is in an hour, and the other images do not wait for it.
                Err(error) => {
                    uses.keep(&name);
                    // A container that uc did not create uses it.
                    if !matches!(error, EngineError::Refused { .. }) {
                        tracing::warn!(image = name, %error, "cannot remove a built image");
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Returns the images that are not on this machine, or are being removed. The others are kept
    /// for the next hour.
    pub(crate) async fn missing_images(&self, images: Vec<String>) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        for image in images {
            if !self.image_use.keep(&image) || self.engine.image(&image).await?.is_none() {
                missing.push(image);
            }
        }
        Ok(missing)
    }

    /// Waits until an image is no longer being removed. It is then kept for the next hour.
    pub(super) async fn expect_image(&self, image: &str) {
        let mut removing = self.image_use.removing.subscribe();
        while !self.image_use.keep(image) {
            let ended = removing.wait_for(|removing| removing.as_deref() != Some(image));
            let _ended = ended.await.expect("the node has the sender");
        }
    }

    /// Notes that an image came from this cluster, and keeps it for the next hour.
    pub(super) async fn note_received_image(&self, image: &str) {
        let built = &self.image_use.built;
        built.change(|names| names.extend([image.to_owned()])).await;
        self.image_use.keep(image);
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

/// The names of these images that are among those of built ones.
fn built_images(images: &[NamedImage], built: &BTreeSet<String>) -> BTreeSet<String> {
    let names = images.iter().flat_map(|image| &image.names);
    names
        .filter(|name| built.contains(*name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine as _;
    use crate::engine::suite::{IMAGE, service};
    use crate::node::tests::{Bench, bench, bench_on};

    /// Any image of the machine that did not come from this cluster. The last one has the name of
    /// an image that was built for another cluster.
    const OF_USER: [&str; 5] = [
        "nginx:1",
        "shop-web:latest",
        "example.org/shop-web:000000000001",
        "shop-web:fedcba987654",
        "shop-web:abcabcabcabc",
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

    async fn receive(bench: &Bench, number: u32) {
        bench.engine.add_image_with_id(&built(number), &id(number));
        bench.node.note_received_image(&built(number)).await;
    }

    async fn deploy(bench: &Bench, number: u32, previous: &mut Option<String>) {
        receive(bench, number).await;
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
        receive(&bench, 2).await;
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
        receive(&bench, 1).await;
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
    async fn sweep_removes_image_that_a_record_called_built() {
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

    #[tokio::test(start_paused = true)]
    async fn sweep_after_a_restart_knows_what_was_received() {
        let bench = bench();
        receive(&bench, 1).await;
        let bench = bench_on(bench.engine, bench.state);
        let nothing = NamedImages::default();
        assert!(bench.node.sweep_images(&nothing).await.unwrap().is_empty());
        tokio::time::sleep(KEEP).await;
        assert_eq!(bench.node.sweep_images(&nothing).await.unwrap(), [built(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn sweep_continues_after_an_image_that_cannot_be_removed() {
        let bench = bench();
        receive(&bench, 1).await;
        receive(&bench, 2).await;
        bench.engine.refuse_removal(&built(1));
        tokio::time::sleep(KEEP).await;
        let nothing = NamedImages::default();
        assert_eq!(bench.node.sweep_images(&nothing).await.unwrap(), [built(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_removal_delays_only_those_who_send_the_image() {
        let bench = bench();
        receive(&bench, 1).await;
        receive(&bench, 2).await;
        tokio::time::sleep(KEEP).await;
        let minute = Duration::from_mins(1);
        bench.engine.set_removal_delay(minute);
        let node = bench.node.clone();
        let sweep = async move { node.sweep_images(&NamedImages::default()).await };
        let sweep = tokio::spawn(sweep);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        let missing = bench.node.missing_images(vec![built(1), built(2)]).await;
        assert_eq!(missing.unwrap(), [built(1)], "it is being removed");
        assert_eq!(asked.elapsed(), Duration::ZERO);
        bench.node.expect_image(&built(1)).await;
        assert_eq!(asked.elapsed(), Duration::from_secs(59));
        assert_eq!(sweep.await.unwrap().unwrap(), [built(1)]);
    }
}
