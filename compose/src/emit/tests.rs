//! YAML as it is written, and that it reads back.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::node::{Node, Value as Read};
use crate::parse;
use crate::report::Report;

/// What our own reader makes of a text.
fn read(yaml: &str) -> Value {
    fn value(node: &Node) -> Value {
        match &node.value {
            Read::Broken | Read::Null => Value::Null,
            Read::Bool(value) => json!(value),
            Read::Int(value) => json!(i64::try_from(*value).unwrap()),
            Read::Float(value) => json!(value),
            Read::Text(text) => json!(text),
            Read::List(items) => items.iter().map(value).collect(),
            Read::Map(map) => map
                .iter()
                .map(|(key, entry)| (key.clone(), value(&entry.node)))
                .collect(),
        }
    }
    let mut report = Report::new(false);
    let documents = parse::parse(yaml, 0, &mut report);
    assert!(!report.has_errors(), "{yaml:?}\n{:?}", report.finish());
    value(&documents[0])
}

#[test]
fn nesting_and_empties() {
    let value = json!({
        "a": {"b": [1, {"c": true, "d": [[], {}]}, [2, 3]], "e": null},
        "f": {}, "g": [], "h": [{"i": "one\ntwo\n", "j": ["x\ny"]}]
    });
    insta::assert_snapshot!(to_yaml(&value));
    assert_eq!(read(&to_yaml(&value)), value);
}

#[test]
fn texts_are_quoted_where_a_reader_takes_them_for_something_else() {
    for (text, expected) in [
        ("", "\"\""),
        ("true", "\"true\""),
        ("No", "\"No\""),
        ("y", "\"y\""),
        ("1", "\"1\""),
        ("0x1f", "\"0x1f\""),
        ("1.5", "\"1.5\""),
        ("1_000", "\"1_000\""),
        ("~", "\"~\""),
        ("null", "\"null\""),
        ("a: b", "\"a: b\""),
        ("- a", "\"- a\""),
        ("-a", "-a"),
        ("-", "\"-\""),
        (":a", ":a"),
        ("a:", "\"a:\""),
        ("22:22", "\"22:22\""),
        ("1:30:20.5", "\"1:30:20.5\""),
        ("8080:80", "\"8080:80\""),
        ("0.0.0.0:22", "\"0.0.0.0:22\""),
        ("# x", "\"# x\""),
        ("a #b", "\"a #b\""),
        ("a#b", "a#b"),
        (" a", "\" a\""),
        ("a ", "\"a \""),
        ("*a", "\"*a\""),
        ("{", "\"{\""),
        ("a,b", "a,b"),
        ("é", "é"),
        ("a\u{85}\u{2028}", "\"a\\u0085\\u2028\""),
        ("2001-01-01", "\"2001-01-01\""),
        ("it's \"q\"", "it's \"q\""),
        ("'x'", "\"'x'\""),
        ("a\tb", "\"a\\tb\""),
        ("\u{1}x", "\"\\u0001x\""),
        ("=", "\"=\""),
        ("<<", "\"<<\""),
        ("nginx:${TAG:-1}", "nginx:${TAG:-1}"),
        ("$$HOME", "$$HOME"),
    ] {
        assert_eq!(style::inline(text), expected, "{text:?}");
    }
}

#[test]
fn several_lines_stand_below_a_bar() {
    let value = json!({"a": "one\n\n  two\nthree", "b": "end\n", "c": "more\n\n", "d": " lead\nx", "e": "\nx", "f": "trail \nx", "g": "\n"});
    insta::assert_snapshot!(to_yaml(&value));
    assert_eq!(read(&to_yaml(&value)), value);
}

#[test]
fn keys_of_a_project_stand_in_compose_s_order() {
    let value = json!({
        "name": "shop",
        "networks": {"default": {"ipam": {}, "name": "shop_default"}},
        "services": {"web": {
            "build": {"args": {"B": "1", "A": "2"}, "context": "/x", "dockerfile": "D"},
            "command": null,
            "deploy": {"placement": {}, "replicas": 2, "mode": "replicated"},
            "environment": {"A": "1"},
            "image": "x",
            "ports": [{"mode": "ingress", "protocol": "tcp", "published": "80", "target": 80}],
            "volumes": [{"bind": {}, "source": "/a", "target": "/b", "type": "bind"}],
        }},
        "x-top": 1,
    });
    insta::assert_snapshot!(document(&value));
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "[ \\n\\ta-c:#'\"\\-|>&*!%@`{}\\[\\],?0-9]{0,12}",
        "[-+]?[0-9._:eExob]{1,8}",
        "(yes|no|on|off|true|null|~|<<|=|\\.inf|---|\\.\\.\\.)[ :]?",
    ]
}

proptest! {
    #[test]
    fn every_text_reads_back(texts in prop::collection::vec(texts(), 1..4), key in texts()) {
        let value = json!({"k": texts[0], "l": texts, "m": {key: [{"n": texts[0]}]}});
        let yaml = to_yaml(&value);
        prop_assert_eq!(read(&yaml), value, "{}", yaml);
    }
}
