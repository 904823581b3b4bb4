//! The document as `docker compose config --format json` prints it: less than the YAML form has.

use serde_json::{Map as JsonMap, Value as Json};

/// Without `x-` keys below the top level, without models, without limits of 0. Hooks before the
/// start have what they take over.
pub(crate) fn plain(document: &Json) -> Json {
    let Json::Object(map) = document else {
        return document.clone();
    };
    let entries = map
        .iter()
        .filter(|(key, _)| *key != "models")
        .map(|(key, value)| {
            let value = if key.starts_with("x-") {
                value.clone()
            } else {
                without_extensions(value)
            };
            (key.clone(), value)
        });
    let mut out: JsonMap<String, Json> = entries.collect();
    for service in objects(out.get_mut("services")) {
        limits(service.get_mut("ulimits"));
        limits(
            service
                .get_mut("build")
                .and_then(|build| build.get_mut("ulimits")),
        );
        service.retain(|key, value| key != "network_mode" || value != "");
        hooks(service);
    }
    Json::Object(out)
}

fn without_extensions(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !key.starts_with("x-"));
            Json::Object(
                kept.map(|(key, value)| (key.clone(), without_extensions(value)))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.iter().map(without_extensions).collect()),
        other => other.clone(),
    }
}

/// Hooks before the start run in containers of their own, in the service's place.
fn hooks(service: &mut JsonMap<String, Json>) {
    let inherited: Vec<_> = ["image", "networks", "network_mode"]
        .into_iter()
        .filter_map(|key| Some((key, service.get(key)?.clone())))
        .collect();
    let hooks = service
        .get_mut("pre_start")
        .and_then(Json::as_array_mut)
        .into_iter()
        .flatten();
    for hook in hooks.filter_map(Json::as_object_mut) {
        for (key, value) in &inherited {
            hook.entry(*key).or_insert_with(|| value.clone());
        }
    }
}

/// Limits leave out what is 0, even where nothing is left then.
fn limits(limits: Option<&mut Json>) {
    for limit in limits
        .and_then(Json::as_object_mut)
        .into_iter()
        .flat_map(JsonMap::values_mut)
    {
        match limit {
            Json::Object(map) => map.retain(|_, value| *value != 0),
            number if *number == 0 => *number = Json::Object(JsonMap::new()),
            _ => {}
        }
    }
}

fn objects(value: Option<&mut Json>) -> impl Iterator<Item = &mut JsonMap<String, Json>> {
    value
        .and_then(Json::as_object_mut)
        .into_iter()
        .flat_map(JsonMap::values_mut)
        .filter_map(Json::as_object_mut)
}
