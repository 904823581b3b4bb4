//! When two readings of a compose file say the same: the rules of the corpus of real files.
//!
//! The order of keys does not matter; a key of the format that is missing, null or empty is the
//! same, while a name that the author chose counts with or without a value; lists that are sets
//! have no order; `x-` keys do not count.

use serde_json::{Map, Number, Value as Json};

/// Mappings whose keys the author chooses.
const AUTHORED: [&str; 14] = [
    "services",
    "networks",
    "volumes",
    "secrets",
    "configs",
    "environment",
    "labels",
    "args",
    "options",
    "driver_opts",
    "sysctls",
    "depends_on",
    "ulimits",
    "annotations",
];

/// Lists whose order counts.
const ORDERED: [&str; 5] = ["command", "entrypoint", "test", "dns", "dns_search"];

/// Whether two readings say the same.
pub fn same_reading(a: &Json, b: &Json) -> bool {
    comparable(a, &[]) == comparable(b, &[])
}

/// A reading without what does not count. `path`: the keys above it.
pub(crate) fn comparable(value: &Json, path: &[&str]) -> Option<Json> {
    let is_below = |names: &[&str]| path.last().is_some_and(|last| names.contains(last));
    match value {
        Json::Object(map) => {
            let mut entries = Vec::new();
            for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
                let inner: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
                match comparable(value, &inner) {
                    Some(value) => entries.push((key.clone(), value)),
                    None if is_below(&AUTHORED) => entries.push((key.clone(), Json::Null)),
                    None => {}
                }
            }
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            (!entries.is_empty()).then(|| Json::Object(entries.into_iter().collect::<Map<_, _>>()))
        }
        Json::Array(items) => {
            let mut items: Vec<_> = items
                .iter()
                .filter_map(|item| comparable(item, path))
                .collect();
            if !is_below(&ORDERED) {
                items.sort_by_key(ToString::to_string);
            }
            (!items.is_empty()).then_some(Json::Array(items))
        }
        Json::Null => None,
        // 1 and 1.0 are equal.
        Json::Number(number) => number.as_f64().and_then(Number::from_f64).map(Json::Number),
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_counts_and_what_does_not() {
        for (a, b, same) in [
            (json!({"a": 1, "b": 2}), json!({"b": 2.0, "a": 1}), true),
            (json!({"command": null, "ipam": {}}), json!({}), true),
            (
                json!({"networks": {"front": null}}),
                json!({"networks": {}}),
                false,
            ),
            (json!({"ports": [1, 2]}), json!({"ports": [2, 1]}), true),
            (
                json!({"command": ["a", "b"]}),
                json!({"command": ["b", "a"]}),
                false,
            ),
            (json!({"published": "80"}), json!({"published": 80}), false),
            (json!({"x-a": 1}), json!({}), true),
        ] {
            assert_eq!(same_reading(&a, &b), same, "{a} {b}");
        }
    }
}
