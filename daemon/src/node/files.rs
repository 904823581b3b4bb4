//! Contents that came with deployments: sent to other machines, and put into containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};
use uc_api::content::CHUNK;
use uc_api::v1::content_part::Part;
use uc_api::{Code, ContentHash, Failure, v1};

use super::{NodeService, Replies};
use crate::files;

/// The contents of one container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Path of each content by hash.
    pub(super) paths: BTreeMap<String, PathBuf>,
    /// Values of secret variables by variable name.
    pub(super) secrets: BTreeMap<String, String>,
}

impl NodeService {
    /// Returns the hashes that are not on this machine. The others count as used now.
    pub(crate) async fn missing_contents(&self, hashes: &[String]) -> Result<Vec<String>, Failure> {
        let hashes = hashes
            .iter()
            .map(|hash| files::parse(hash))
            .collect::<Result<Vec<_>, _>>()?;
        let missing = self.files.missing(hashes).await?;
        Ok(missing.iter().map(ToString::to_string).collect())
    }

    /// Sends one content's archive in parts, its start first.
    pub(super) async fn read_content_of(
        &self,
        hash: &str,
    ) -> Result<Replies<v1::ContentPart>, Failure> {
        let hash = files::parse(hash)?;
        let permit = self.files.outgoing().await;
        let (secret, archive) = self.files.archive(hash.clone()).await?;
        let start = Part::Start(v1::ContentStart {
            hash: hash.to_string(),
            secret,
        });
        let mut offset = 0;
        let chunks = std::iter::from_fn(move || {
            let _held_until_the_stream_is_dropped = &permit;
            let chunk = archive
                .get(offset..archive.len().min(offset + CHUNK))?
                .to_vec();
            offset += chunk.len();
            (!chunk.is_empty()).then_some(Part::Chunk(chunk))
        });
        let parts = std::iter::once(start).chain(chunks);
        Ok(stream::iter(parts.map(|part| Ok(v1::ContentPart { part: Some(part) }))).boxed())
    }

    /// Returns the contents that a replica needs. All of them must be on this machine.
    pub(super) async fn contents(&self, spec: &v1::ServiceSpec) -> Result<Contents, Failure> {
        let absent = |what: &str, hash: &ContentHash| {
            Failure::new(
                Code::Refused,
                format!("{what} ({}) is not on this machine", hash.short()),
            )
            .hint("deploy again from the computer that has the compose file")
        };
        let mut contents = Contents::default();
        for file in &spec.files {
            let hash = files::parse(&file.hash)?;
            let path = self.files.path(hash.clone(), file.secret).await;
            let path = path.map_err(|failure| {
                if failure.code == Code::NotFound {
                    absent(&file.name, &hash)
                } else {
                    failure
                }
            })?;
            contents.paths.insert(file.hash.clone(), path);
        }
        for (name, hash) in &spec.secret_environment {
            let what = format!("the value of {name}");
            let hash = files::parse(hash)?;
            let value = self.files.value(hash.clone()).await;
            let value = value.map_err(|failure| {
                if failure.code == Code::NotFound {
                    absent(&what, &hash)
                } else {
                    failure
                }
            })?;
            contents.secrets.insert(name.clone(), value);
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests;
