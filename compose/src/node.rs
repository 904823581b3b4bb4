//! The tree of a compose file: values with the place they came from.

use indexmap::IndexMap;

/// A place in one of the request's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// Index of the file in the report.
    pub(crate) file: u32,
    /// From 1; 0 for what stands in no line.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
    /// Characters, within the line.
    pub(crate) length: u32,
}

impl Span {
    /// In no file.
    pub(crate) const NOWHERE: Self = Self {
        file: u32::MAX,
        line: 0,
        column: 0,
        length: 0,
    };

    /// A file as a whole.
    pub(crate) fn of_file(file: u32) -> Self {
        Self {
            file,
            ..Self::NOWHERE
        }
    }
}

/// A number of lines or characters of a file, or an index of a file.
pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).expect("the sizes of files, and their number, are bounded")
}

/// What a tag asks of the merge of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tag {
    #[default]
    None,
    /// `!reset`: what earlier files say goes, and so does this.
    Reset,
    /// `!override`: this replaces what earlier files say.
    Override,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Scalars and flow collections: the value itself. Block collections and empty values: their
    /// key.
    pub(crate) span: Span,
    pub(crate) tag: Tag,
    /// A bind mount's source as it was written, if that is not an absolute path.
    pub(crate) written: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Something that cannot be read, and about which that has been said. It fits everywhere, so
    /// that one error makes no others.
    Broken,
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// Keys in the order of the file.
pub(crate) type Map = IndexMap<String, Entry>;

/// A value of a map, with the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) node: Node,
}

impl Entry {
    /// A value whose key is at the same place.
    pub(crate) fn new(value: Value, span: Span) -> Self {
        Self {
            key: span,
            node: Node::new(value, span),
        }
    }
}

impl Node {
    pub(crate) fn new(value: Value, span: Span) -> Self {
        Self {
            value,
            span,
            tag: Tag::None,
            written: None,
        }
    }

    pub(crate) fn text(text: impl Into<String>, span: Span) -> Self {
        Self::new(Value::Text(text.into()), span)
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_int(&self) -> Option<i128> {
        match self.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// How many values there are, this one included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(map) => map.values().map(|entry| entry.node.count()).sum(),
            _ => 0,
        }
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.as_map().into_iter().flatten()
    }

    /// The items of the list at a key; none if it has none.
    pub(crate) fn items_of(&self, key: &str) -> impl Iterator<Item = &Self> {
        self.get(key).into_iter().flat_map(Self::items)
    }

    /// The entries of the map at a key; none if it has none.
    pub(crate) fn entries_of(&self, key: &str) -> impl Iterator<Item = (&String, &Entry)> {
        self.get(key).into_iter().flat_map(Self::entries)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key).map(|entry| &mut entry.node)
    }

    /// The map at a key.
    pub(crate) fn map_of_mut(&mut self, key: &str) -> Option<&mut Map> {
        self.get_mut(key)?.as_map_mut()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    /// The value below several keys.
    pub(crate) fn find(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    pub(crate) fn get_text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// The text at a key, and the value that it is, for its place.
    pub(crate) fn get_text_node(&self, key: &str) -> Option<(&Self, &str)> {
        let node = self.get(key)?;
        Some((node, node.as_text()?))
    }

    /// What people call a value of this kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Broken | Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Adds `key` if the map does not have it.
pub(crate) fn insert_default(map: &mut Map, key: &str, value: Value, span: Span) {
    map.entry(key.to_owned())
        .or_insert_with(|| Entry::new(value, span));
}

/// A map made by us, its keys at one place.
pub(crate) fn map<'a>(span: Span, entries: impl IntoIterator<Item = (&'a str, Value)>) -> Node {
    let entries = entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Entry::new(value, span)));
    Node::new(Value::Map(entries.collect()), span)
}
