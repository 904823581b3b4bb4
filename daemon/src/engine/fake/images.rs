//! The images of the fake engine, and those that it can pull.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::*;
use crate::engine::error::PullProblem;
use crate::engine::spec::is_reference;

/// Prefix of a fake image archive. The image's reference follows.
pub(crate) const ARCHIVE: &str = "fake archive of ";

impl FakeEngine {
    /// Adds an image to the machine.
    pub(crate) fn add_image(&self, image: &str) {
        self.add_image_for(image, "");
    }

    /// Adds an image to the machine for a platform, or for the machine's own if `platform` is
    /// empty.
    pub(crate) fn add_image_for(&self, image: &str, platform: &str) {
        let platform = if platform.is_empty() {
            "linux/amd64"
        } else {
            platform
        };
        let made = Image {
            id: format!("sha256:{image}"),
            platform: platform.to_owned(),
            ..Default::default()
        };
        self.state().images.insert(image.to_owned(), made);
    }

    /// Adds an image that can be pulled.
    pub(crate) fn add_to_registry(&self, image: &str) {
        self.push_to_registry(image, "sha256:1");
    }

    /// Gives an image that can be pulled this digest, by which it can be pulled as well.
    pub(crate) fn push_to_registry(&self, image: &str, digest: &str) {
        let by_digest = reference::by_digest(image, digest);
        let registry = &mut self.state().registry;
        registry.insert(image.to_owned(), digest.to_owned());
        registry.insert(by_digest, digest.to_owned());
    }

    /// Makes the registry unreachable.
    pub(crate) fn lose_registry(&self) {
        self.state().registry.clear();
    }

    /// Adds an image that was built here to the machine. As with the containerd image store, it has
    /// a digest that no registry knows.
    pub(crate) fn build_image(&self, image: &str, digest: &str) {
        let by_digest = reference::by_digest(image, digest);
        let made = Image {
            id: digest.to_owned(),
            platform: "linux/amd64".to_owned(),
            digests: vec![by_digest.clone()],
            ..Default::default()
        };
        let images = &mut self.state().images;
        images.insert(by_digest, made.clone());
        images.insert(image.to_owned(), made);
    }

    /// An empty registry does not answer.
    pub(super) fn look_up(&self, image: &str) -> Result<String, EngineError> {
        let registry = &self.reach()?.registry;
        let reason = if registry.is_empty() {
            "dial tcp: connection refused"
        } else {
            "manifest unknown"
        };
        let known = registry.get(image).cloned();
        known.ok_or_else(|| EngineError::Registry {
            image: image.to_owned(),
            reason: reason.to_owned(),
        })
    }

    fn find_in_registry(&self, image: &str) -> Result<String, EngineError> {
        let known = self.reach()?.registry.get(image).cloned();
        known.ok_or_else(|| EngineError::Pull {
            image: image.to_owned(),
            problem: PullProblem::Unreachable,
            reason: "dial tcp: connection refused".to_owned(),
        })
    }

    /// Adds an image with this id to the machine.
    pub(crate) fn add_image_with_id(&self, image: &str, id: &str) {
        let made = Image {
            id: id.to_owned(),
            platform: "linux/amd64".to_owned(),
            ..Default::default()
        };
        self.state().images.insert(image.to_owned(), made);
    }

    /// Makes the engine fail to remove this image.
    pub(crate) fn refuse_removal(&self, image: &str) {
        self.state().unremovable.insert(image.to_owned());
    }

    /// Sets how long the engine works on the removal of an image.
    pub(crate) fn set_removal_delay(&self, delay: Duration) {
        self.state().removal_delay = delay;
    }

    pub(super) fn find_image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        if !is_reference(reference) {
            return Err(EngineError::Invalid {
                message: format!("invalid image reference `{reference}`"),
            });
        }
        Ok(self.reach()?.images.get(reference).cloned())
    }

    pub(super) fn list_images(&self) -> Result<Vec<NamedImage>, EngineError> {
        let state = self.reach()?;
        let mut by_id: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, image) in &state.images {
            by_id.entry(&image.id).or_default().push(name.clone());
        }
        let images = by_id.into_iter().map(|(id, names)| NamedImage {
            id: id.to_owned(),
            names,
        });
        Ok(images.collect())
    }

    pub(super) fn remove_name(&self, reference: &str) -> Result<(), EngineError> {
        let mut state = self.reach()?;
        let Some(image) = state.images.get(reference) else {
            return Ok(());
        };
        if state.unremovable.contains(reference) {
            let message = "input/output error".to_owned();
            return Err(EngineError::Engine { message });
        }
        let is_last = state
            .images
            .values()
            .filter(|other| other.id == image.id)
            .count()
            == 1;
        let mut containers = state.containers.values();
        if is_last && containers.any(|fake| fake.body.image.as_deref() == Some(reference)) {
            let message =
                format!("conflict: unable to remove repository reference \"{reference}\"");
            return Err(EngineError::Refused { message });
        }
        state.images.remove(reference);
        Ok(())
    }

    pub(super) fn pull_image(
        &self,
        image: &str,
        platform: &str,
    ) -> BoxStream<'static, Result<String, EngineError>> {
        let items = match self.find_in_registry(image) {
            Ok(digest) => {
                let by_digest = reference::by_digest(image, &digest);
                for name in [image, &by_digest] {
                    self.add_image_for(name, platform);
                    let mut state = self.state();
                    let image = state.images.get_mut(name).expect("it was added");
                    image.id.clone_from(&digest);
                    image.digests = vec![by_digest.clone()];
                }
                vec![Ok(format!("Pulling {image}"))]
            }
            Err(error) => vec![Err(error)],
        };
        futures_util::stream::iter(items).boxed()
    }

    pub(super) async fn load_image(
        &self,
        mut archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError> {
        let mut text = Vec::new();
        while let Some(chunk) = archive.next().await {
            text.extend(chunk.map_err(|error| EngineError::Broken {
                message: error.to_string(),
            })?);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let Some(image) = text.strip_prefix(ARCHIVE) else {
            return Err(EngineError::Engine {
                message: "invalid tar header".to_owned(),
            });
        };
        self.add_image(image);
        Ok(())
    }
}
