//! Places, and what becomes of the parts of YAML that a compose file rarely has.

use super::*;

fn read(text: &str) -> (Vec<Node>, Vec<String>) {
    let mut report = Report::new(false);
    let file = report.add_file("f".into());
    let documents = parse(text, file, &mut report);
    let found = report
        .finish()
        .into_iter()
        .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
        .collect();
    (documents, found)
}

fn one(text: &str) -> Node {
    let (mut documents, found) = read(text);
    assert_eq!((documents.len(), found), (1, Vec::new()), "{text}");
    documents.remove(0)
}

/// Line, column and length of the value at `key`.
fn place(text: &str, key: &str) -> (u32, u32, u32) {
    let node = one(text);
    let span = node.get(key).unwrap().span;
    (span.line, span.column, span.length)
}

#[test]
fn scalars_and_flow_collections_stand_where_they_begin() {
    assert_eq!(place("a: 1\nb: word\n", "b"), (2, 4, 4));
    assert_eq!(place("a: \"x y\"\n", "a"), (1, 4, 5));
    assert_eq!(place("a: [1, 2]\n", "a"), (1, 4, 1));
    assert_eq!(place("a: {b: 1}\n", "a"), (1, 4, 1));
    assert_eq!(place("a: word  # comment\n", "a"), (1, 4, 4));
}

#[test]
fn block_collections_and_empty_values_stand_at_their_key() {
    assert_eq!(place("x: 1\nab:\n  c: 1\n", "ab"), (2, 1, 2));
    assert_eq!(place("ab:\n- 1\n", "ab"), (1, 1, 2));
    assert_eq!(place("ab:\nc: 1\n", "ab"), (1, 1, 2));
}

#[test]
fn columns_are_characters_and_line_ends_do_not_count() {
    assert_eq!(place("é: ü\r\nb: xyz\r\n", "é"), (1, 4, 1));
    assert_eq!(place("é: ü\r\nb: xyz\r\n", "b"), (2, 4, 3));
    assert_eq!(place("a: |\n  long\n  text\n", "a"), (1, 1, 1));
    assert_eq!(one("\u{feff}a: 1\n").get("a").unwrap().value, Value::Int(1));
}

#[test]
fn lines_that_are_indented_for_the_parser_keep_their_places() {
    let text = "a:\n  b: [\n    \"x\"\n  ]\n  c: [ {\n  d: \"e\"\n  } ]\n  f: y\n";
    let node = one(text);
    let a = node.get("a").unwrap();
    let d = &a.get("c").unwrap().items()[0].as_map().unwrap()["d"];
    assert_eq!((d.key.line, d.key.column, d.node.span.column), (6, 3, 6));
    assert_eq!(a.get("f").unwrap().span.line, 8);
}

#[test]
fn texts_over_several_lines() {
    let node = one("a: |\n  x\n    }\n  ]\nb: >\n  x\n  y\nc: \"x\n  y\"\nd: |-\n  z\n");
    let text = |key: &str| node.get_text(key).unwrap().to_owned();
    assert_eq!(
        (text("a"), text("b"), text("c"), text("d")),
        (
            "x\n  }\n]\n".into(),
            "x y\n".into(),
            "x y".into(),
            "z".into()
        )
    );
}

#[test]
fn tags() {
    let node =
        one("a: !!str 1\nb: !!int \"2\"\nc: !reset null\nd: !override [1]\ne: !!float 1\nf: ! x\n");
    assert_eq!(node.get("a").unwrap().value, Value::Text("1".into()));
    assert_eq!(node.get("b").unwrap().value, Value::Int(2));
    assert_eq!(node.get("c").unwrap().tag, Tag::Reset);
    assert_eq!(node.get("d").unwrap().tag, Tag::Override);
    assert_eq!(node.get("f").unwrap().value, Value::Text("x".into()));
    assert_eq!(
        read("a: !!int x\n").1,
        ["1:4 `x` does not match its tag `!!int`"]
    );
}

#[test]
fn merge_keys_keep_what_is_there() {
    let node =
        one("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {b: 0, <<: [*x, *y]}\nq: {\"<<\": 1}\n");
    let z: Vec<_> = node
        .get("z")
        .unwrap()
        .entries()
        .map(|(key, entry)| (key.clone(), entry.node.as_int()))
        .collect();
    assert_eq!(
        z,
        [
            ("b".to_owned(), Some(0)),
            ("a".to_owned(), Some(1)),
            ("c".to_owned(), Some(2))
        ]
    );
    assert_eq!(
        node.get("q").unwrap().get("<<").unwrap().value,
        Value::Int(1)
    );
}

#[test]
fn every_duplicate_is_found() {
    assert_eq!(
        read("a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n").1,
        [
            "2:1 duplicate key `a`",
            "3:11 duplicate key `c`",
            "4:1 duplicate key `a`"
        ]
    );
}

#[test]
fn what_is_cut_off_is_an_error_at_the_last_line() {
    assert_eq!(read("a: [1,\n\n\n").1.len(), 1);
    let found = read("a:\n  b: {c: 1\n\n").1;
    assert!(found[0].starts_with("2:"), "{found:?}");
}
