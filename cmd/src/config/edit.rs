//! Changes the text of a config file so that it says what a [`Config`] says, and leaves everything
//! else in it as it is: comments, order, and keys that this version does not know.

use std::io;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use super::{Config, Context, Entry};

/// The text of the file after the change.
pub(super) fn apply(config: &Config, old: &str) -> io::Result<String> {
    let mut file: DocumentMut = old.parse().map_err(io::Error::other)?;
    set(&mut file, "current", config.current.as_deref());
    if config.contexts.is_empty() {
        file.remove("contexts");
        return Ok(file.to_string());
    }
    let contexts = table(file.entry("contexts").or_insert_with(|| {
        let mut contexts = Table::new();
        contexts.set_implicit(true);
        Item::Table(contexts)
    }))?;
    contexts.retain(|name, _| config.contexts.contains_key(name));
    for (name, context) in &config.contexts {
        let item = contexts
            .entry(name)
            .or_insert_with(|| Item::Table(Table::new()));
        apply_context(context, table(item)?);
    }
    Ok(file.to_string())
}

fn apply_context(context: &Context, target: &mut Table) {
    let cluster = context.cluster.map(|cluster| cluster.to_string());
    set(target, "cluster", cluster.as_deref());
    let old = target.remove("connections").map(Item::into_array_of_tables);
    let mut old: Vec<Table> = match old {
        Some(Ok(tables)) => tables.into_iter().collect(),
        Some(Err(_)) | None => Vec::new(),
    };
    let mut connections = ArrayOfTables::new();
    for entry in &context.connections {
        let known = old
            .iter()
            .position(|table| address(table) == Some(&entry.address));
        let mut table = known.map_or_else(Table::new, |index| old.remove(index));
        apply_entry(entry, &mut table);
        connections.push(table);
    }
    if connections.is_empty() {
        // Without its heading, a context without connections would vanish from the file.
        target.set_implicit(false);
    } else {
        target.insert("connections", Item::ArrayOfTables(connections));
    }
}

fn apply_entry(entry: &Entry, target: &mut Table) {
    set(target, "address", Some(&entry.address));
    let ssh_key = entry.ssh_key.as_ref().map(|path| path.to_string_lossy());
    set(target, "ssh_key", ssh_key.as_deref());
    set(target, "machine", entry.machine.as_deref());
}

fn address(table: &Table) -> Option<&str> {
    table.get("address")?.as_str()
}

/// Sets or removes a text. One that is right already keeps its quotes and its comment.
fn set(table: &mut Table, key: &str, text: Option<&str>) {
    let Some(text) = text else {
        table.remove(key);
        return;
    };
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(value) if value.as_str() == Some(text) => {}
        Some(value) => {
            let decor = value.decor().clone();
            *value = Value::from(text);
            *value.decor_mut() = decor;
        }
        None => {
            table.insert(key, toml_edit::value(text));
        }
    }
}

/// The table in an item. An inline table, `{ … }`, becomes one with a heading.
fn table(item: &mut Item) -> io::Result<&mut Table> {
    if !item.is_table() {
        let mut inline = std::mem::take(item).into_table().map_err(|item| {
            io::Error::other(format!("it has a {} in place of a table", item.type_name()))
        })?;
        inline.set_implicit(true);
        *item = Item::Table(inline);
    }
    Ok(item
        .as_table_mut()
        .expect("the item was made a table just above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(old: &str, change: impl FnOnce(&mut Config)) -> String {
        let mut config: Config = toml::from_str(old).unwrap();
        change(&mut config);
        let new = apply(&config, old).unwrap();
        assert_eq!(toml::from_str::<Config>(&new).unwrap(), config, "{new}");
        new
    }

    #[test]
    fn apply_keeps_comments_and_unknown_keys() {
        let old = "\
# My clusters.
current = 'a' # at work
color = true

[contexts.a]
note = 'mine'

[[contexts.a.connections]]
# The first machine.
address = 'ssh://root@1'
weight = 5

[contexts.b]
connections = [{ address = 'ssh://root@2', hops = 2 }]
";
        let new = changed(old, |config| {
            config.current = Some("b".into());
            let context = config.contexts.get_mut("a").unwrap();
            context.cluster = Some(uc_api::ClusterId::from_bytes([0xab; 16]));
            context.connections.push(Entry {
                address: "ssh://root@3".into(),
                ssh_key: None,
                machine: Some("m3".into()),
            });
        });
        insta::assert_snapshot!(new, @r#"
        # My clusters.
        current = "b" # at work
        color = true

        [contexts.a]
        note = 'mine'
        cluster = "abababababababababababababababab"

        [[contexts.a.connections]]
        # The first machine.
        address = 'ssh://root@1'
        weight = 5

        [[contexts.a.connections]]
        address = "ssh://root@3"
        machine = "m3"

        [contexts.b]

        [[contexts.b.connections]]
        address = 'ssh://root@2'
        hops = 2
        "#);
    }

    #[test]
    fn apply_removes_contexts_and_connections() {
        let old = "\
[contexts.a]
[[contexts.a.connections]]
address = 'ssh://root@1'
[[contexts.a.connections]]
address = 'ssh://root@2'
[contexts.b]
[[contexts.b.connections]]
address = 'ssh://root@3'
";
        let new = changed(old, |config| {
            config.contexts.remove("b");
            config.contexts.get_mut("a").unwrap().connections.remove(0);
        });
        insta::assert_snapshot!(new, @r#"
        [contexts.a]
        [[contexts.a.connections]]
        address = 'ssh://root@2'
        "#);
        assert_eq!(changed(&new, |config| config.contexts.clear()), "");
    }

    #[test]
    fn apply_changes_inline_tables() {
        let old = "contexts = { a = { connections = [{ address = 'ssh://root@1', x = 1 }] } }";
        let new = changed(old, |config| config.current = Some("a".into()));
        insta::assert_snapshot!(new, @r#"
        current = "a"

        [[contexts.a.connections]]
        address = 'ssh://root@1'
        x = 1
        "#);
    }
}
