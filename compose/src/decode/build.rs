//! Decodes `build`: how the image of a service is built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uc_api::nearest;

use crate::canonical::is_remote;
use crate::diagnostic::Rule;
use crate::node::{Node, Value};
use crate::project::{Build, BuildContext, BuildSecret, LocalSource};
use crate::report::{Place, Report};

/// Prefix of a context that is the image of another service.
const SERVICE: &str = "service:";

/// The build of the service `name`, whose image is tagged `image`.
pub(super) fn build(
    name: &str,
    service: &Node,
    image: &str,
    tree: &Node,
    report: &mut Report,
) -> Option<Build> {
    let node = service.get("build")?;
    let context = context(node.get("context")?.as_text()?);
    let report = &mut report.at("build");
    let optional = |key: &str| {
        node.get_text(key)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let (dockerfile, dockerfile_inline) = (optional("dockerfile"), optional("dockerfile_inline"));
    if dockerfile.is_some() && dockerfile_inline.is_some() {
        let span = node
            .get("dockerfile_inline")
            .map_or(node.span, |node| node.span);
        report.invalid(
            span,
            "`dockerfile` and `dockerfile_inline` exclude each other",
            "remove one of them",
        );
    }
    let args = node.entries_of("args");
    let build = Build {
        dockerfile: dockerfile.map(PathBuf::from),
        dockerfile_inline,
        args: args
            .map(|(name, entry)| (name.clone(), entry.node.as_text().map(str::to_owned)))
            .collect(),
        target: optional("target"),
        image: Some(image.to_owned()).filter(|image| !image.is_empty()),
        additional_contexts: additional_contexts(name, node, tree, report),
        cache_from: super::list(node, "cache_from"),
        cache_to: super::list(node, "cache_to"),
        no_cache: super::flag(node, "no_cache"),
        no_cache_filter: super::list(node, "no_cache_filter"),
        pull: super::flag(node, "pull"),
        labels: super::strings(node.get("labels")),
        tags: super::list(node, "tags"),
        platforms: platforms(service, node),
        network: optional("network"),
        extra_hosts: super::list(node, "extra_hosts"),
        shm_size: node
            .get_text("shm_size")
            .and_then(|bytes| bytes.parse().ok()),
        ulimits: ulimits(node),
        secrets: secrets(node, tree, report),
        ssh: ssh(node),
        entitlements: entitlements(node),
        provenance: optional("provenance"),
        sbom: optional("sbom"),
        context,
    };
    Some(build)
}

fn context(text: &str) -> BuildContext {
    match text.strip_prefix(SERVICE) {
        Some(service) => BuildContext::Service(service.to_owned()),
        None if is_remote(text) => BuildContext::Remote(text.to_owned()),
        None => BuildContext::Directory(text.into()),
    }
}

fn additional_contexts(
    name: &str,
    node: &Node,
    tree: &Node,
    report: &mut Report,
) -> BTreeMap<String, BuildContext> {
    let services = tree.get("services");
    let mut contexts = BTreeMap::new();
    for (key, entry) in node.entries_of("additional_contexts") {
        let Some(text) = entry.node.as_text() else {
            continue;
        };
        let context = context(text);
        if let BuildContext::Service(other) = &context {
            let problem = match services.and_then(|services| services.get(other)) {
                None => {
                    let names = services
                        .into_iter()
                        .flat_map(Node::entries)
                        .map(|(name, _)| name.as_str());
                    let hint = nearest::did_you_mean(other, names).unwrap_or_else(|| {
                        "name a service of this project that has `build:`".to_owned()
                    });
                    Some((format!("service `{other}` is not in this project"), hint))
                }
                Some(service) if service.get("build").is_none() => Some((
                    format!("service `{other}` has no `build`, so it cannot be a build context"),
                    format!(
                        "to use its image, write `docker-image://{}`",
                        super::text(service, "image")
                    ),
                )),
                Some(_) if waits_for(other, name, tree) => Some((
                    format!("the builds of `{name}` and `{other}` need each other"),
                    "remove one of these contexts".to_owned(),
                )),
                Some(_) => None,
            };
            if let Some((message, hint)) = problem {
                report.error(Rule::Reference, entry.node.span, message, hint);
            }
        }
        contexts.insert(key.clone(), context);
    }
    contexts
}

/// Whether the build of `from` needs that of `to`, directly or through others.
fn waits_for(from: &str, to: &str, tree: &Node) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if !seen.insert(name) {
            continue;
        }
        let build = tree
            .get("services")
            .and_then(|services| services.get(name)?.get("build"));
        let contexts = build.and_then(|build| build.get("additional_contexts"));
        let entries = contexts.into_iter().flat_map(Node::entries);
        next.extend(entries.filter_map(|(_, entry)| entry.node.as_text()?.strip_prefix(SERVICE)));
    }
    false
}

/// Platforms to build for: only the service's own, if it has one.
fn platforms(service: &Node, node: &Node) -> Vec<String> {
    match service.get_text("platform") {
        // `check` has made sure that `build.platforms` has it.
        Some(platform) if !platform.is_empty() => vec![platform.to_owned()],
        _ => super::list(node, "platforms"),
    }
}

/// Soft and hard limit by name.
fn ulimits(node: &Node) -> BTreeMap<String, (i64, i64)> {
    let number = |node: &Node| match &node.value {
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    let entries = node.entries_of("ulimits");
    entries
        .filter_map(|(name, entry)| {
            let single = number(&entry.node);
            let limit = |key: &str| single.or_else(|| entry.node.get(key).and_then(number));
            let (soft, hard) = (limit("soft"), limit("hard"));
            Some((name.clone(), (soft.or(hard)?, hard.or(soft)?)))
        })
        .collect()
}

fn secrets(node: &Node, tree: &Node, report: &mut Report) -> Vec<BuildSecret> {
    let mut secrets = Vec::new();
    for grant in node.items_of("secrets") {
        let Some(source) = grant.get_text("source") else {
            continue;
        };
        // The check of references has reported undeclared names.
        let Some(secret) = tree.find(&["secrets", source]) else {
            continue;
        };
        let content = secret
            .get_text("environment")
            .map(|name| LocalSource::Variable(name.to_owned()));
        let content = content.or_else(|| {
            secret
                .get_text("file")
                .map(|path| LocalSource::Path(path.into()))
        });
        let Some(content) = content else {
            report.refuse(
                grant.span,
                format!(
                    "secret `{source}` cannot be used in a build: it has neither `file` nor `environment`"
                ),
                "declare it with `file` or `environment`",
            );
            continue;
        };
        let id = grant
            .get_text("target")
            .filter(|target| !target.is_empty())
            .unwrap_or(source);
        secrets.push(BuildSecret {
            id: id.to_owned(),
            source: content,
        });
    }
    secrets
}

/// SSH keys in the builder's syntax: `default`, or `id=path`.
fn ssh(node: &Node) -> Vec<String> {
    let entries = node.entries_of("ssh");
    entries
        .map(
            |(id, entry)| match entry.node.as_text().filter(|path| !path.is_empty()) {
                Some(path) => format!("{id}={path}"),
                None => id.clone(),
            },
        )
        .collect()
}

fn entitlements(node: &Node) -> Vec<String> {
    let mut entitlements = super::list(node, "entitlements");
    let insecure = "security.insecure";
    if super::flag(node, "privileged") && !entitlements.iter().any(|known| known == insecure) {
        entitlements.push(insecure.to_owned());
    }
    entitlements
}
