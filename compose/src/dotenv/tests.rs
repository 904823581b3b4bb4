//! Each case was tried with Docker Compose v5.6.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Variables, Vec<String>) {
    let mut report = Report::new(false);
    let file = report.add_file(".env".into());
    let environment = |name: &str| (name == "HOME").then(|| "/root".to_owned());
    let variables = parse(text, file, &environment, &|_| None, &mut report);
    let found = report
        .finish()
        .into_iter()
        .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
        .collect();
    (variables, found)
}

fn value_of_a(text: &str) -> Option<String> {
    read(text).0.get("A").cloned().flatten()
}

#[test]
fn values() {
    let table = [
        ("A=1", "1"),
        ("A = spaced ", "spaced"),
        ("A='single $B ${B} \\n \"q\"'", "single $B ${B} \\n \"q\""),
        (
            "B=1\nA=\"double $B ${B} \\n\\t \\\"q\\\" \\$B\"",
            "double 1 1 \n\t \"q\" $B",
        ),
        ("A=plain # comment", "plain"),
        ("A=a#b", "a#b"),
        ("A=#c", "#c"),
        ("A= #c", "#c"),
        ("A=x\t#c", "x\t#c"),
        ("A=\"with # hash\" # c", "with # hash"),
        ("export A=exp", "exp"),
        ("A: yaml # y", "yaml"),
        ("A=", ""),
        ("A=\"multi\nline\"", "multi\nline"),
        ("A='multi\n$X'", "multi\n$X"),
        ("A=$$X", "$X"),
        ("A=${NOPE:-def}", "def"),
        ("A=crlf\r\nB=x", "crlf"),
        ("A=`x`", "`x`"),
        ("A=a\\nb", "a\\nb"),
        ("A= \"x\" ", "x"),
        ("A=a=b=c", "a=b=c"),
        ("A==", "="),
        ("A=~/x", "~/x"),
        ("A=${HOME}/x", "/root/x"),
        ("A=\"a\\\\b\"", "a\\b"),
        ("A=$1 $", "$1 $"),
        ("A='a\\'b'", "a'b"),
        ("A=\"x\\q\\r\\u00e9\\0101\"", "x\\q\r\\u00e9A"),
        ("A=a'b'c", "a'b'c"),
        ("A=\" s \"", " s "),
        ("A=é;", "é;"),
        ("  A=in", "in"),
        ("A=1\nA=2", "2"),
        ("\u{feff}A=bom", "bom"),
    ];
    for (text, expected) in table {
        let (_, found) = read(text);
        assert_eq!(value_of_a(text).as_deref(), Some(expected), "{text}");
        assert_eq!(found, [] as [String; 0], "{text}");
    }
}

#[test]
fn a_name_alone_is_inherited() {
    let (variables, found) = read("HOME\nNOPE\n# c\n\n");
    assert_eq!(variables["HOME"].as_deref(), Some("/root"));
    assert_eq!(variables["NOPE"], None);
    assert!(found.is_empty());
}

#[test]
fn problems_have_their_line() {
    let table = [
        (
            "\n\nA B=x",
            "3:1 invalid variable name `A B`: it contains a space",
        ),
        (
            " \"A\"=x",
            "1:2 invalid variable name `\"A\"`: it contains `\"`",
        ),
        ("?", "1:1 invalid variable name `?`: it contains `?`"),
        ("=x", "1:1 a name is missing before `=`"),
        ("B='x\ny'\nA=\"x\nz", "3:1 a quote is not closed"),
        ("A=${X", "1:1 `${X` is not a variable"),
        (
            "A=${X?why}",
            "1:1 variable `X` is required and not set: why",
        ),
        ("A=$X", "1:1 variable `X` is not set, so it is empty"),
        ("A=\"a\"b", "1:1 `b` after the closing quote is ignored"),
    ];
    for (text, expected) in table {
        assert_eq!(read(text).1, [expected], "{text}");
    }
}

#[test]
fn all_problems_are_found_at_once() {
    assert_eq!(read("?\nA=1\n!\n").1.len(), 2);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in r#"[A-C=:'"$\\{} \n#\t0é]{0,60}"#) {
        read(&text);
    }
}
