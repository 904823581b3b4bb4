//! `!reset` and `!override`: remove what earlier files, included files or an extended service have
//! at these places.

use crate::node::{Node, Tag, Value};

/// Places in a document, each as the keys that lead to it.
pub(crate) type Places = Vec<Vec<String>>;

/// Removes the tags from a document and returns their places. Values that are marked `!reset` are
/// removed immediately, also items of lists.
pub(crate) fn take(document: &mut Node) -> Places {
    let mut places = Places::new();
    walk(document, &mut Vec::new(), &mut places);
    places
}

fn walk(node: &mut Node, path: &mut Vec<String>, places: &mut Places) {
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|key, entry| {
                path.push(key.clone());
                match std::mem::take(&mut entry.node.tag) {
                    Tag::None => walk(&mut entry.node, path, places),
                    // What it holds replaces everything there, whatever is marked inside.
                    Tag::Override => {
                        places.push(path.clone());
                        walk(&mut entry.node, path, &mut Places::new());
                    }
                    Tag::Reset => {
                        places.push(path.clone());
                        path.pop();
                        return false;
                    }
                }
                path.pop();
                true
            });
        }
        Value::List(items) => {
            items.retain(|item| item.tag != Tag::Reset);
            for item in items {
                item.tag = Tag::None;
                // Items of lists have no names: what is said inside them can be dropped, but
                // nothing earlier is meant by it.
                walk(item, path, &mut Places::new());
            }
        }
        _ => {}
    }
}

/// Removes what is at these places of `tree`; `below` are the keys that lead to `tree` itself.
pub(crate) fn apply(places: &Places, tree: &mut Node, below: &[&str]) {
    for place in places {
        let inside = below
            .iter()
            .zip(place)
            .all(|(key, step)| key == step)
            .then(|| place.get(below.len()..));
        if let Some((last, parents)) = inside.flatten().and_then(<[String]>::split_last) {
            remove(tree, parents, last);
        }
    }
}

fn remove(node: &mut Node, parents: &[String], last: &str) {
    let Value::Map(map) = &mut node.value else {
        return;
    };
    match parents.split_first() {
        None => {
            map.shift_remove(last);
        }
        Some((first, rest)) => {
            if let Some(entry) = map.get_mut(first) {
                remove(&mut entry.node, rest, last);
            }
        }
    }
}
