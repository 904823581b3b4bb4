//! Dependencies that a file does not write down: a service that links to another, or shares
//! something with it, waits for it.

use crate::canonical;
use crate::node::{Entry, Map, Node, Span, Value};

/// Adds them to `depends_on`, as Docker Compose does. Existing entries are kept.
pub(crate) fn dependencies(tree: &mut Node) {
    let Value::Map(top) = &mut tree.value else {
        return;
    };
    let Some(Value::Map(services)) = top.get_mut("services").map(|entry| &mut entry.node.value)
    else {
        return;
    };
    for entry in services.values_mut() {
        let names = implied(&entry.node);
        let Value::Map(service) = &mut entry.node.value else {
            continue;
        };
        for (name, restart, span) in names {
            let depends_on = service
                .entry("depends_on".into())
                .or_insert_with(|| Entry::new(Value::Map(Map::new()), span));
            let Value::Map(depends_on) = &mut depends_on.node.value else {
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
    for item in service.get("links").into_iter().flat_map(Node::items) {
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
    for item in service
        .get("volumes_from")
        .into_iter()
        .flat_map(Node::items)
    {
        let of_service = item
            .as_text()
            .filter(|text| !text.starts_with("container:"));
        names.extend(of_service.map(|text| (first_part(text), false, item.span)));
    }
    names
}

/// `service` of `service:alias` or `service:ro`.
fn first_part(text: &str) -> String {
    text.split(':').next().unwrap_or_default().to_owned()
}
