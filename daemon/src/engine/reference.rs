//! Image references: `[registry/]repository[:tag][@digest]`. Pure.

use uc_api::v1;

/// The reference by which the engine creates, finds and pulls a service's image. One that is pinned
/// has no tag, because the content of a tag changes.
pub(crate) fn pinned(spec: &v1::ServiceSpec) -> String {
    if spec.image_digest.is_empty() {
        return spec.image.clone();
    }
    by_digest(&spec.image, &spec.image_digest)
}

/// The image of this digest in the repository of a reference.
pub(crate) fn by_digest(reference: &str, digest: &str) -> String {
    format!("{}@{digest}", without_tag(reference))
}

/// The digest among `repository@sha256:…` that belongs to the repository of a reference.
pub(crate) fn digest_of(reference: &str, digests: &[String]) -> Option<String> {
    let wanted = short_repository(without_tag(reference));
    digests.iter().find_map(|entry| {
        let (repository, digest) = entry.split_once('@')?;
        (short_repository(repository) == wanted).then(|| digest.to_owned())
    })
}

/// Removes tag and digest. A colon before the last slash belongs to a registry's port.
fn without_tag(reference: &str) -> &str {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The engine leaves out the name of Docker's own registry.
fn short_repository(repository: &str) -> &str {
    let registries = ["docker.io/", "index.docker.io/"];
    let short = registries
        .iter()
        .find_map(|registry| repository.strip_prefix(registry))
        .unwrap_or(repository);
    short.strip_prefix("library/").unwrap_or(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_digest_replaces_the_tag() {
        for (reference, wanted) in [
            ("app", "app@sha256:1"),
            ("app:latest", "app@sha256:1"),
            ("r:5000/a/app", "r:5000/a/app@sha256:1"),
            ("r:5000/a/app:2", "r:5000/a/app@sha256:1"),
        ] {
            assert_eq!(by_digest(reference, "sha256:1"), wanted);
        }
    }

    #[test]
    fn digest_of_finds_the_repository_of_the_reference() {
        let digests = ["other@sha256:1", "nginx@sha256:2", "r:5000/nginx@sha256:3"];
        let digests = digests.map(str::to_owned);
        for (reference, wanted) in [
            ("nginx:1", Some("sha256:2")),
            ("docker.io/library/nginx", Some("sha256:2")),
            ("r:5000/nginx:1", Some("sha256:3")),
            ("example.org/nginx", None),
        ] {
            assert_eq!(digest_of(reference, &digests).as_deref(), wanted);
        }
    }
}
