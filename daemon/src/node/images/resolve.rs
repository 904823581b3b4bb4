//! Which content an image reference means.

use uc_api::{Failure, v1};

use super::super::NodeService;
use crate::engine::reference;

impl NodeService {
    /// Answers from the engine's images, or from the registry through the engine.
    pub(crate) async fn resolve_image(
        &self,
        request: &v1::ResolveImageRequest,
    ) -> Result<v1::ResolveImageResponse, Failure> {
        let image = &request.image;
        if request.ask_registry {
            let digest = self.engine.registry_digest(image).await?;
            let present = false;
            return Ok(v1::ResolveImageResponse { present, digest });
        }
        let Some(found) = self.engine.image(image).await? else {
            return Ok(v1::ResolveImageResponse::default());
        };
        // A container is created by the digest, so the engine must find the image by it.
        let digest = match reference::digest_of(image, &found.digests) {
            Some(digest) => {
                let by_digest = reference::by_digest(image, &digest);
                let found = self.engine.image(&by_digest).await?;
                found.map_or_else(String::new, |_| digest)
            }
            None => String::new(),
        };
        Ok(v1::ResolveImageResponse {
            present: true,
            digest,
        })
    }
}
