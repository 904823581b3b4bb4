//! Keys of the config file that this version does not know: written by a newer `uc`, or misspelt.

use toml::{Table, Value};
use uc_api::nearest::did_you_mean;

const TOP: [&str; 2] = ["current", "contexts"];
const CONTEXT: [&str; 2] = ["cluster", "connections"];
const CONNECTION: [&str; 3] = ["address", "ssh_key", "machine"];

/// Each unknown key with the tables it is in, and the nearest known key where one is near.
pub(super) fn keys(file: &Table) -> Vec<String> {
    let mut found = Vec::new();
    check(file, &TOP, "", &mut found);
    let contexts = file.get("contexts").and_then(Value::as_table);
    for (name, context) in contexts.into_iter().flatten() {
        let Some(context) = context.as_table() else {
            continue;
        };
        let path = format!("contexts.{name}.");
        check(context, &CONTEXT, &path, &mut found);
        let connections = context.get("connections").and_then(Value::as_array);
        for connection in connections
            .into_iter()
            .flatten()
            .filter_map(Value::as_table)
        {
            let path = format!("{path}connections.");
            check(connection, &CONNECTION, &path, &mut found);
        }
    }
    found.dedup();
    found
}

fn check(table: &Table, known: &[&str], path: &str, found: &mut Vec<String>) {
    for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
        found.push(match did_you_mean(key, known.iter().copied()) {
            Some(hint) => format!("`{path}{key}`: {hint}"),
            None => format!("`{path}{key}`"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lists_unknown_ones_of_each_level() {
        let file = "
            color = true
            [contexts.prod]
            clutser = 'x'
            connections = [{ address = 'a', ssh_kye = 'k' }, { address = 'b', machine = 'm' }]
        ";
        assert_eq!(
            keys(&toml::from_str(file).unwrap()),
            [
                "`color`",
                "`contexts.prod.clutser`: did you mean `cluster`?",
                "`contexts.prod.connections.ssh_kye`: did you mean `ssh_key`?",
            ]
        );
    }
}
