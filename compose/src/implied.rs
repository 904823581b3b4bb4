//! Dependencies that a file does not write down: a service that links to another, or shares
//! something with it, waits for it.

use crate::canonical;
use crate::node::{Entry, Map, Node, Span, Value, insert_default};

/// Adds them to `depends_on`, as Docker Compose does. Existing entries are kept.
pub(crate) fn dependencies(tree: &mut Node) {
    for (_, Entry { node: service, .. }) in tree.map_of_mut("services").into_iter().flatten() {
        for (name, restart, span) in implied(service) {
            let Some(service) = service.as_map_mut() else {
                continue;
            };
            insert_default(service, "depends_on", Value::Map(Map::new()), span);
            let depends_on = service.get_mut("depends_on");
            let Some(depends_on) = depends_on.and_then(|entry| entry.node.as_map_mut()) else {
                continue;
            };
            depends_on.entry(name).or_insert_with(|| {
                let mut entries = Map::new();
                canonical::dependency_defaults(&mut entries, span);
                if restart {
                    entries.insert("restart".into(), Entry::new(Value::Bool(true), span));
                }
                Entry::new(Value::Map(entries), span)
            });
        }
    }
}

/// Names of the services that `service` cannot do without, and whether it is restarted with them.
fn implied(service: &Node) -> Vec<(String, bool, Span)> {
    let mut names = Vec::new();
    for item in service.items_of("links") {
        names.extend(
            item.as_text()
                .map(|link| (first_part(link), true, item.span)),
        );
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let node = service.get(key);
        let shared = node.and_then(|node| {
            Some((
                node.as_text()?.strip_prefix("service:")?.to_owned(),
                true,
                node.span,
            ))
        });
        names.extend(shared);
    }
    for item in service.items_of("volumes_from") {
        let of_service = item
            .as_text()
            .filter(|text| !text.starts_with("container:"));
        names.extend(of_service.map(|text| (first_part(text), false, item.span)));
    }
    names
}

/// `service` of `service:alias` or `service:ro`.
fn first_part(text: &str) -> String {
    text.split_once(':')
        .map_or(text, |(first, _)| first)
        .to_owned()
}
