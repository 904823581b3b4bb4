//! Every form, against what Docker Compose v5.6 gives.

use proptest::prelude::*;

use super::*;

fn with(text: &str, variables: &[(&str, &str)]) -> Result<String, TemplateError> {
    let lookup = |name: &str| {
        variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    substitute(text, &lookup, &mut BTreeSet::new())
}

#[test]
fn forms_without_and_with_a_value_and_with_an_empty_one() {
    // text, not set, X=val, X empty
    let table = [
        ("$X", "", "val", ""),
        ("${X}", "", "val", ""),
        ("$X-tail", "-tail", "val-tail", "-tail"),
        ("a${X}b", "ab", "avalb", "ab"),
        ("${X:-d}", "d", "val", "d"),
        ("${X-d}", "d", "val", ""),
        ("${X:+a}", "", "a", ""),
        ("${X+a}", "", "a", "a"),
        ("${X:-}", "", "val", ""),
        ("${X:--}", "-", "val", "-"),
        ("${X-a:-b}", "a:-b", "val", ""),
        ("${X:-a:?b}", "a:?b", "val", "a:?b"),
        ("${X:-${Y:-z}}", "z", "val", "z"),
        ("${X-${Y-${Z-d}}}", "d", "val", ""),
        ("${X:+${X}z}", "", "valz", ""),
        ("${X+a}${Y-b}", "b", "ab", "ab"),
        ("$$", "$", "$", "$"),
        ("$$X", "$X", "$X", "$X"),
        ("$$$X", "$", "$val", "$"),
        ("$${X}", "${X}", "${X}", "${X}"),
        ("${X:-a$$b}", "a$b", "val", "a$b"),
        ("$", "$", "$", "$"),
        ("$1", "$1", "$1", "$1"),
        ("a$ b", "a$ b", "a$ b", "a$ b"),
        ("$ü", "$ü", "$ü", "$ü"),
        ("{$X}", "{}", "{val}", "{}"),
        ("${X}}", "}", "val}", "}"),
        (r#"${X:-{"a":1}}"#, r#"{"a":1}"#, "val", r#"{"a":1}"#),
        ("${X:-a{b}c}", "a{b}c", "val", "a{b}c"),
        ("${X:-{a}", "{a", "val", "{a"),
        ("${X:-a}b}c", "ab}c", "valb}c", "ab}c"),
        (r"${X:-a\}b}", r"a\}b", "val", r"a\}b"),
        (
            "${X?e}",
            "!variable `X` is required and not set: e",
            "val",
            "",
        ),
        (
            "${X:?e}",
            "!variable `X` is required and not set: e",
            "val",
            "!variable `X` is required and empty: e",
        ),
        ("${X?}", "!variable `X` is required and not set", "val", ""),
        (
            "${X:?${Y:-zz}}",
            "!variable `X` is required and not set: zz",
            "val",
            "!variable `X` is required and empty: zz",
        ),
        (
            "${X:?${Y:?q}}",
            "!variable `Y` is required and not set: q",
            "val",
            "!variable `Y` is required and not set: q",
        ),
        (
            "${X",
            "!`${X` is not a variable",
            "!`${X` is not a variable",
            "!`${X` is not a variable",
        ),
    ];
    for (text, unset, set, empty) in table {
        for (expected, variables) in [
            (unset, &[][..]),
            (set, &[("X", "val")][..]),
            (empty, &[("X", "")][..]),
        ] {
            let got = with(text, variables).unwrap_or_else(|error| format!("!{error}"));
            assert_eq!(got, expected, "{text} with {variables:?}");
        }
    }
}

#[test]
fn what_is_no_variable_is_said() {
    for text in [
        "${}", "${1}", "${X!}", "${X y}", "${X :-a}", "${X/a/b}", "${X:=v}", "${ü}", "${X.y}",
        "${X:}", "${X-y",
    ] {
        assert!(
            matches!(with(text, &[]), Err(TemplateError::Syntax(_))),
            "{text}"
        );
    }
}

#[test]
fn values_are_not_interpolated_again() {
    assert_eq!(with("$X", &[("X", "$Y ${Z} $$")]).unwrap(), "$Y ${Z} $$");
}

#[test]
fn a_default_that_is_not_used_is_not_looked_at() {
    assert_eq!(with("${X:-${Y?never}}", &[("X", "v")]).unwrap(), "v");
}

#[test]
fn growth_is_bounded() {
    let long = "x".repeat(100_000);
    assert_eq!(
        with(&"$X".repeat(100), &[("X", &long)]),
        Err(TemplateError::TooLarge)
    );
    assert!(with(&"${A:-".repeat(200), &[]).is_err());
    assert_eq!(
        with(&format!("{}{}", "${A:-".repeat(200), "}".repeat(200)), &[]),
        Err(TemplateError::TooLarge)
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in r"[$\{\}:?+\-A-Z\\ é]{0,40}") {
        let _ = with(&text, &[("A", "1")]);
    }

    #[test]
    fn text_without_a_dollar_stays(text in "[^$]{0,40}") {
        prop_assert_eq!(with(&text, &[]).unwrap(), text);
    }

    #[test]
    fn doubling_dollars_escapes_everything(text in ".{0,40}") {
        prop_assert_eq!(with(&text.replace('$', "$$"), &[]).unwrap(), text);
    }
}
