//! YAML text to tree: types, anchors and aliases, merge keys, duplicate keys, all within bounds.
//!
//! Built on the parser's events rather than a ready-made tree: aliases stay visible, so that their
//! expansion can be counted before it is made, and nesting is refused before anything recurses.

mod indentation;

use std::collections::{BTreeSet, HashMap};

use indexmap::map::Entry as Slot;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Marks};

use crate::diagnostic::Rule;
use crate::node::{Entry, Map, Node, Span, Tag, Value, count};
use crate::report::Report;
use crate::scalar;

/// Largest compose file. The largest of 1,667 public ones has 200 kB.
pub(crate) const MAX_BYTES: usize = 5 * 1024 * 1024;

/// Deepest nesting. The specification needs about ten levels; `x-` fields may hold anything.
const MAX_DEPTH: usize = 100;

/// Most values of one file after expanding aliases: a bound on memory, ten times what 5 MB of plain
/// text can hold in practice.
const MAX_NODES: usize = 1_000_000;

/// Most bytes that aliases may add to a file.
const MAX_ALIAS_BYTES: usize = 16 * 1024 * 1024;

/// Most text that is read again because of such lines, once for each: 240 of them in 100 kB. Real
/// files have a handful in 5 kB.
const MAX_REREAD_BYTES: usize = 24 * 1024 * 1024;

/// The documents of a file. Problems go to `report`; nothing is returned if it is not YAML.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Vec<Node> {
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    let (mut padded, mut spaced) = (BTreeSet::new(), BTreeSet::new());
    let mut read = 0;
    loop {
        let mut builder = Builder {
            file,
            lines: &lines,
            padded: &padded,
            stack: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            nodes: 0,
            alias_bytes: 0,
        };
        let indented = indentation::indent(text, &padded, &spaced);
        let Err(error) = builder.read(&indented, report) else {
            return builder.documents;
        };
        let Some(error) = error else {
            return Vec::new();
        };
        read += text.len();
        let tabbed =
            indentation::tab_after_colon(&error, &lines).filter(|_| read <= MAX_REREAD_BYTES);
        if tabbed.is_some_and(|line| spaced.insert(line)) {
            continue;
        }
        let line = indentation::too_little_indented(&error, &lines, &padded);
        let Some(line) = line.filter(|_| read <= MAX_REREAD_BYTES) else {
            builder.syntax_error(&error, report);
            return Vec::new();
        };
        padded.insert(line);
    }
}

/// Reading this file stopped because of an error, which was reported.
struct Stop;

struct Builder<'t> {
    file: u32,
    lines: &'t [&'t str],
    /// Lines (from 1) that were indented for the parser.
    padded: &'t BTreeSet<usize>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    documents: Vec<Node>,
    nodes: usize,
    alias_bytes: usize,
}

/// A finished anchored value with what its expansion costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// A collection that is being read.
struct Open {
    span: Span,
    tag: Tag,
    anchor: usize,
    /// Where counting of its nodes began.
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        map: Map,
        key: Option<(String, Span)>,
        merges: Vec<Node>,
    },
}

impl Builder<'_> {
    /// Reads it all. `Err(None)`: why has been reported.
    fn read(&mut self, text: &str, report: &mut Report) -> Result<(), Option<ScanError>> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, marks) = event.map_err(Some)?;
            self.event(event, marks, report).map_err(|Stop| None)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, marks: Marks, report: &mut Report) -> Result<(), Stop> {
        let span = self.span(marks);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(span, report)?;
                if let Some(key) = self.missing_key() {
                    *key = Some(Self::key(&text, style, span, report));
                    return Ok(());
                }
                let tag = tag.map(|tag| (tag.handle.clone(), tag.suffix.clone()));
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let is_missing = text.is_empty() && style == ScalarStyle::Plain;
                let span = if is_block || is_missing {
                    self.key_or(span)
                } else {
                    span
                };
                let node = Self::scalar(text.into_owned(), style, tag.as_ref(), span, report);
                self.anchor(anchor, &node, 1);
                self.add(node, report);
            }
            Event::Alias(id) => {
                if self.missing_key().is_some() {
                    report.error(
                        Rule::Syntax,
                        span,
                        "an alias cannot be a key",
                        "write the key out",
                    );
                    return Err(Stop);
                }
                let node = self.expand(id, span, report)?;
                self.add(node, report);
            }
            Event::SequenceStart(..) | Event::MappingStart(..)
                if self.missing_key().is_some() || self.stack.len() >= MAX_DEPTH =>
            {
                if self.missing_key().is_some() {
                    report.error(
                        Rule::Syntax,
                        span,
                        "a list or mapping cannot be a key",
                        "put `{…}`, `[…]` or `${…}` in quotes to make it a string",
                    );
                } else {
                    too_deep(span, report);
                }
                return Err(Stop);
            }
            Event::SequenceStart(anchor, tag) => {
                self.count(span, report)?;
                let tag = Self::tag(tag.as_deref(), span, report);
                self.open(span, tag, anchor, Content::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.count(span, report)?;
                let tag = Self::tag(tag.as_deref(), span, report);
                let content = Content::Map {
                    map: Map::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(span, tag, anchor, content);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(report),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// Where the next key goes, if one is expected.
    fn missing_key(&mut self) -> Option<&mut Option<(String, Span)>> {
        match &mut self.stack.last_mut()?.content {
            Content::Map { key, .. } if key.is_none() => Some(key),
            _ => None,
        }
    }

    fn count(&mut self, span: Span, report: &mut Report) -> Result<(), Stop> {
        self.nodes += 1;
        self.within_bounds(span, report)
    }

    fn within_bounds(&self, span: Span, report: &mut Report) -> Result<(), Stop> {
        if self.nodes <= MAX_NODES && self.alias_bytes <= MAX_ALIAS_BYTES {
            return Ok(());
        }
        report.labelled(
            Rule::Syntax,
            span,
            "the file is too large when its aliases are expanded",
            format!(
                "more than {MAX_NODES} values or {} MB here",
                MAX_ALIAS_BYTES >> 20
            ),
            "use fewer aliases of aliases",
        );
        Err(Stop)
    }

    fn open(&mut self, span: Span, tag: Tag, anchor: usize, content: Content) {
        // A block collection begins at its first item; people look for its key.
        let first = self.character_at(span);
        let span = if matches!(first, Some('[' | '{')) {
            span
        } else {
            self.key_or(span)
        };
        let nodes_before = self.nodes.saturating_sub(1);
        self.stack.push(Open {
            span,
            tag,
            anchor,
            nodes_before,
            content,
        });
    }

    fn close(&mut self, report: &mut Report) {
        let open = self.stack.pop().expect("a collection that ends has begun");
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map {
                mut map, merges, ..
            } => {
                for merge in merges {
                    merge_into(&mut map, merge, report);
                }
                Value::Map(map)
            }
        };
        let node = Node {
            tag: open.tag,
            ..Node::new(value, open.span)
        };
        self.anchor(open.anchor, &node, self.nodes - open.nodes_before);
        self.add(node, report);
    }

    fn anchor(&mut self, id: usize, node: &Node, nodes: usize) {
        if id > 0 {
            let bytes = bytes(node);
            self.anchors.insert(
                id,
                Anchored {
                    node: node.clone(),
                    nodes,
                    bytes,
                    depth: depth(node),
                },
            );
        }
    }

    fn expand(&mut self, id: usize, span: Span, report: &mut Report) -> Result<Node, Stop> {
        let Some(anchored) = self.anchors.get(&id) else {
            report.error(
                Rule::Syntax,
                span,
                "an alias is used inside the value that its anchor marks",
                "a value cannot contain itself",
            );
            return Err(Stop);
        };
        self.nodes = self.nodes.saturating_add(anchored.nodes);
        self.alias_bytes = self.alias_bytes.saturating_add(anchored.bytes);
        if self.stack.len() + anchored.depth > MAX_DEPTH {
            self.nodes = usize::MAX;
        }
        self.within_bounds(span, report)?;
        Ok(anchored.node.clone())
    }

    /// Adds a finished value to the collection that is open.
    fn add(&mut self, node: Node, report: &mut Report) {
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { map, key, merges } => {
                let (name, span) = key.take().expect("a value of a mapping follows its key");
                if name == MERGE_KEY {
                    if let Some(first) = merges.first() {
                        let first = first.span.line;
                        report.labelled(
                            Rule::Syntax,
                            span,
                            "duplicate key `<<`",
                            format!("first on line {first}"),
                            "give one `<<` a list: `<<: [*a, *b]`",
                        );
                    }
                    merges.push(node);
                    return;
                }
                match map.entry(name) {
                    Slot::Vacant(slot) => {
                        slot.insert(Entry { key: span, node });
                    }
                    Slot::Occupied(slot) => {
                        let first = slot.get().key.line;
                        report.labelled(
                            Rule::Syntax,
                            span,
                            format!("duplicate key `{}`", slot.key()),
                            format!("first on line {first}"),
                            "remove one of them",
                        );
                    }
                }
            }
        }
    }

    fn key(text: &str, style: ScalarStyle, span: Span, report: &mut Report) -> (String, Span) {
        let plain = style == ScalarStyle::Plain;
        if plain && text == "<<" {
            return (MERGE_KEY.to_owned(), span);
        }
        if plain && scalar::resolve(text).is_some() {
            report.invalid(
                span,
                format!("key `{text}` is not a string"),
                format!("put it in quotes: \"{text}\""),
            );
        }
        (text.to_owned(), span)
    }

    fn scalar(
        text: String,
        style: ScalarStyle,
        tag: Option<&(String, String)>,
        span: Span,
        report: &mut Report,
    ) -> Node {
        let core = tag
            .as_ref()
            .filter(|(handle, _)| handle == "tag:yaml.org,2002:")
            .map(|(_, suffix)| suffix.as_str());
        let merge_tag = match (tag, core) {
            (Some((handle, suffix)), None) => Self::tag_of(handle, suffix, span, report),
            _ => Tag::None,
        };
        let plain = style == ScalarStyle::Plain;
        let value = match core {
            Some("str" | "binary") => Value::Text(text),
            Some(kind @ ("int" | "float" | "bool" | "null")) => {
                let value = scalar::resolve(&text).unwrap_or(Value::Null);
                let fits = matches!(
                    (kind, &value),
                    ("int", Value::Int(_))
                        | ("float", Value::Float(_) | Value::Int(_))
                        | ("bool", Value::Bool(_))
                        | ("null", Value::Null)
                );
                if !fits {
                    report.error(
                        Rule::Syntax,
                        span,
                        format!("`{text}` does not match its tag `!!{kind}`"),
                        "remove the tag",
                    );
                }
                value
            }
            _ if plain => scalar::resolve(&text).unwrap_or(Value::Text(text)),
            _ => Value::Text(text),
        };
        Node {
            tag: merge_tag,
            ..Node::new(value, span)
        }
    }

    fn tag(tag: Option<&saphyr_parser::Tag>, span: Span, report: &mut Report) -> Tag {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() => {
                Self::tag_of(&tag.handle, &tag.suffix, span, report)
            }
            _ => Tag::None,
        }
    }

    fn tag_of(handle: &str, suffix: &str, span: Span, report: &mut Report) -> Tag {
        match (handle, suffix) {
            ("!", "reset") => Tag::Reset,
            ("!", "override") => Tag::Override,
            // `!` alone: "not a plain scalar", nothing more.
            ("", "!") | ("!", "") => Tag::None,
            _ => {
                report.warning(
                    Rule::Syntax,
                    span,
                    format!("unknown tag `{handle}{suffix}` is ignored"),
                    "use `!reset` or `!override`, or put the value in quotes if the `!` is part of it",
                );
                Tag::None
            }
        }
    }

    fn syntax_error(&self, error: &ScanError, report: &mut Report) {
        let mark = *error.marker();
        let mut span = self.span(Marks::new(mark, mark));
        // At the end of the file there is nothing to show: point to its last line.
        while span.line > 1
            && self
                .line(span.line)
                .is_none_or(|line| line.trim().is_empty())
        {
            span.line -= 1;
            span.column = self
                .line(span.line)
                .map_or(1, |line| line.trim_end().chars().count() as u32)
                .max(1);
        }
        let line = self.line(span.line).expect("a span has a line of the text");
        let indentation: String = line.chars().take_while(|c| c.is_whitespace()).collect();
        if let Some(tab) = indentation.find('\t') {
            span.column = indentation[..tab].chars().count() as u32 + 1;
            report.labelled(
                Rule::Syntax,
                span,
                "a tab is used for indentation",
                "YAML allows only spaces here",
                "replace the tab with spaces",
            );
            return;
        }
        // The parser has a limit of its own for flow collections, and looks ahead.
        if error.info() == "recursion limit exceeded" {
            too_deep(span, report);
            return;
        }
        let hint = syntax_hint(error.info(), line);
        report.error(
            Rule::Syntax,
            span,
            format!("not valid YAML: {}", error.info()),
            hint,
        );
    }

    fn line(&self, line: u32) -> Option<&str> {
        self.lines.get((line as usize).checked_sub(1)?).copied()
    }

    fn character_at(&self, span: Span) -> Option<char> {
        self.line(span.line)?
            .chars()
            .nth((span.column as usize).saturating_sub(1))
    }

    /// The place of the key whose value is being read, if there is one.
    fn key_or(&self, span: Span) -> Span {
        match self.stack.last() {
            Some(Open {
                content:
                    Content::Map {
                        key: Some((_, key)),
                        ..
                    },
                ..
            }) => *key,
            _ => span,
        }
    }

    fn span(&self, marks: Marks) -> Span {
        // What is missing at the end stands in the last line.
        let line = marks.start.line().clamp(1, self.lines.len());
        let padding = |line: usize| {
            if self.padded.contains(&line) {
                indentation::PADDING
            } else {
                0
            }
        };
        let column = marks.start.col().saturating_sub(padding(line));
        let rest = self.lines[line - 1].chars().count().saturating_sub(column);
        let length = if marks.end.line() == line {
            marks
                .end
                .col()
                .saturating_sub(padding(line) + column)
                .min(rest)
        } else {
            rest
        };
        Span {
            file: self.file,
            line: count(line),
            column: count(column + 1),
            length: count(length.max(1)),
        }
    }
}

fn too_deep(span: Span, report: &mut Report) {
    report.error(
        Rule::Syntax,
        span,
        format!("nested more than {MAX_DEPTH} levels deep"),
        "use fewer levels; no compose file needs this many",
    );
}

/// Stands for a plain `<<` in the tree; cannot be written in a file (YAML forbids the character).
const MERGE_KEY: &str = "\u{0}<<";

/// Merges `<<`: existing keys are kept, and of several sources the first wins.
fn merge_into(map: &mut Map, merge: Node, report: &mut Report) {
    match merge.value {
        Value::Map(source) => {
            for (key, entry) in source {
                map.entry(key).or_insert(entry);
            }
        }
        Value::List(items) if items.iter().all(|item| item.as_map().is_some()) => {
            for item in items {
                merge_into(map, item, report);
            }
        }
        _ => {
            report.error(
                Rule::Syntax,
                merge.span,
                "`<<` takes a mapping or a list of mappings",
                "give it an alias of a mapping: `<<: *name`",
            );
        }
    }
}

fn bytes(node: &Node) -> usize {
    match &node.value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(bytes).sum(),
        Value::Map(map) => map
            .iter()
            .map(|(key, entry)| key.len() + bytes(&entry.node))
            .sum(),
        _ => 0,
    }
}

fn depth(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => map
            .values()
            .map(|entry| depth(&entry.node))
            .max()
            .unwrap_or(0),
        _ => 0,
    }
}

fn syntax_hint(info: &str, line: &str) -> &'static str {
    if info.contains("anchor") {
        return "define the anchor (`&name`) before its alias (`*name`)";
    }
    if line.matches('"').count() % 2 == 1 || line.matches('\'').count() % 2 == 1 {
        return "close the quote";
    }
    if line.matches(": ").count() > 1 || info.contains("mapping values are not allowed") {
        return "put the value in quotes if it contains `: `, and check the indentation";
    }
    "check the indentation and the line above; put values with special characters in quotes"
}

#[cfg(test)]
mod tests;
