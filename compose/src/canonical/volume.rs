//! Mounts: `[source:]target[:options]`, and the long form's checks.

use std::path::Path;

use super::Context;
use crate::diagnostic::Rule;
use crate::node::{Entry, Map, Node, Span, Value, map};

const HINT: &str =
    "write `name:/path`, `/path/on/the/machine:/path` or `/path`, with `:ro` for read-only";

/// The long form of a short mount. `None` means that it is invalid, which was reported.
pub(super) fn short(text: &str, span: Span, cx: &mut Context<'_>) -> Option<Node> {
    let parts = split(text);
    if text.is_empty() || parts.iter().any(|part| part.is_empty()) {
        cx.report.invalid(
            span,
            format!("`{text}` is not a mount: one of its parts is empty"),
            HINT,
        );
        return None;
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => {
            cx.report.invalid(
                span,
                format!("`{text}` is not a mount: too many colons"),
                HINT,
            );
            return None;
        }
    };
    let bind = is_path(source);
    let mut read_only = false;
    let (mut bind_details, mut volume_details) = (Map::new(), Map::new());
    let detail = |details: &mut Map, key: &str, value: Value| {
        details.insert(key.to_owned(), Entry::new(value, span));
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" if !bind => detail(&mut volume_details, "nocopy", Value::Bool(true)),
            "z" | "Z" => detail(&mut bind_details, "selinux", Value::Text(option.into())),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                detail(&mut bind_details, "propagation", Value::Text(option.into()));
            }
            // Meant for Docker Desktop or for the other kind of mount: nothing to do, in Docker
            // Compose neither.
            "cached" | "delegated" | "consistent" | "nocopy" => {}
            _ if !bind && option.starts_with("subpath=") => {
                detail(
                    &mut volume_details,
                    "subpath",
                    Value::Text(option["subpath=".len()..].into()),
                );
            }
            _ => {
                cx.report.warning(
                    Rule::Value,
                    span,
                    format!("unknown mount option `{option}` is ignored"),
                    "use `ro`, `rw`, `z`, `Z`, `nocopy` or a propagation such as `rslave`",
                );
            }
        }
    }
    let kind = if bind { "bind" } else { "volume" };
    let mut entries = vec![("type", Value::Text(kind.into()))];
    if !source.is_empty() {
        entries.push(("source", Value::Text(source.into())));
    }
    entries.push(("target", Value::Text(target.into())));
    if read_only {
        entries.push(("read_only", Value::Bool(true)));
    }
    for (key, details, is_kind) in [
        ("bind", bind_details, bind),
        ("volume", volume_details, !bind),
    ] {
        // Docker Compose looks no further at what has only two characters.
        if is_kind && text.len() > 2 || !details.is_empty() {
            entries.push((key, Value::Map(details)));
        }
    }
    let mut node = map(span, entries);
    if let Value::Map(entries) = &mut node.value {
        clean_target(entries);
        resolve_source(entries, cx);
    }
    Some(node)
}

/// The long form's checks.
pub(super) fn complete(entries: &mut Map, span: Span, cx: &mut Context<'_>) {
    let text = |key: &str| entries.get(key).and_then(|entry| entry.node.as_text());
    let there = |key: &str| entries.contains_key(key);
    if !there("type") {
        cx.report.invalid(
            span,
            "a mount needs `type`",
            "add `type: volume`, `type: bind` or `type: tmpfs`",
        );
    }
    if !there("target") {
        cx.report.invalid(
            span,
            "a mount needs `target`",
            "add `target:`, the path in the container",
        );
    }
    if text("type") == Some("bind") && text("source").is_none_or(str::is_empty) {
        cx.report.invalid(
            span,
            "a bind mount needs `source`",
            "add `source:`, a path on the machine",
        );
    }
    if text("type") == Some("tmpfs") && there("source") {
        cx.report.warning(
            Rule::Value,
            span,
            "a tmpfs mount has no `source`",
            "remove `source`",
        );
    }
    clean_target(entries);
    resolve_source(entries, cx);
}

/// `/data/` and `/data` are one place.
fn clean_target(entries: &mut Map) {
    if let Some(target) = entries.get_mut("target")
        && let Value::Text(path) = &mut target.node.value
        && path.starts_with('/')
    {
        *path = super::clean(Path::new(path)).to_string_lossy().into_owned();
    }
}

/// Makes a bind mount's source absolute and remembers how it was written.
fn resolve_source(entries: &mut Map, cx: &Context<'_>) {
    if entries.get("type").and_then(|entry| entry.node.as_text()) != Some("bind") {
        return;
    }
    let Some(source) = entries.get_mut("source") else {
        return;
    };
    let Some(written) = source.node.as_text().map(str::to_owned) else {
        return;
    };
    if written.starts_with('/') {
        return;
    }
    // A path of Windows stays as it is: it is refused where it would be used.
    if !is_windows(&written) {
        source.node.value = Value::Text(cx.absolute(&written));
    }
    source.node.written = Some(written.into());
}

/// At colons, but not at the one of a Windows drive that begins a part (`C:\data:/data`).
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(':') {
        let part = &text[start..at];
        let rest = &text[at + 1..];
        // Forward slashes are also how a volume with a name of one letter begins its target: a
        // drive has another target after it.
        let before_target = rest.starts_with('/')
            && rest
                .split_once(':')
                .is_some_and(|(_, rest)| rest.starts_with('/'));
        let drive = part.len() == 1
            && part.starts_with(|c: char| c.is_ascii_alphabetic())
            && (rest.starts_with('\\') || before_target);
        if !drive {
            parts.push(part);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

fn is_windows(source: &str) -> bool {
    let mut characters = source.chars();
    let drive = characters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && characters.next() == Some(':');
    drive || source.starts_with("\\\\")
}

fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~']) || is_windows(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_of_drives_do_not_split() {
        for (text, expected) in [
            ("a:/b", &["a", "/b"][..]),
            ("a:/b:ro", &["a", "/b", "ro"]),
            ("C:\\x:/b", &["C:\\x", "/b"]),
            ("C:/x:/b:ro", &["C:/x", "/b", "ro"]),
            ("data:/b", &["data", "/b"]),
            ("/b", &["/b"]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
