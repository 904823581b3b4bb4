//! Plain YAML scalars as Docker Compose types them, and numbers as it prints them.
//!
//! Compose's YAML library (go-yaml) resolves plain scalars by YAML 1.2's core schema with leftovers
//! of 1.1: `0777` and `0b11` are numbers, `1_000` is 1000; `yes` and `on` are strings. A number
//! that stands where text is wanted (`environment`) becomes the text Go prints for it, so `1.50` is
//! `1.5` and `0777` is `511`. That is what Compose runs, so it is what we run.

use crate::node::Value;

/// The value of a plain (unquoted) scalar. `None` means that it is a string.
pub(crate) fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        // Of the integers this one has no sign to keep.
        "-0" => return Some(Value::Float(-0.0)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Some(Value::Float(f64::INFINITY));
        }
        "-.inf" | "-.Inf" | "-.INF" => return Some(Value::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    let integer = integer(&digits).map(Value::Int);
    integer.or_else(|| float(&digits).map(Value::Float))
}

/// Go's `strconv.ParseInt(…, 0, 64)` and `ParseUint`, with YAML's `0o` and `0b`.
fn integer(text: &str) -> Option<i128> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = body.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    // Wider ones are floats for Go.
    (i128::from(i64::MIN)..=i128::from(u64::MAX))
        .contains(&value)
        .then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_is_fine = exponent.is_none_or(|text| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        !digits.is_empty() && all_digits(digits)
    });
    let mantissa_is_fine =
        all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    (mantissa_is_fine && exponent_is_fine)
        .then(|| text.parse().ok())
        .flatten()
}

/// A float as Go's `%v` prints it: shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific
        .split_once('e')
        .expect("scientific notation has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    if (-4..6).contains(&exponent) {
        format!("{value}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}

/// Booleans as Compose casts them where a key wants one. The second value says that the spelling is
/// an old one.
pub(crate) fn cast_bool(text: &str) -> Option<(bool, bool)> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some((true, false)),
        "false" => Some((false, false)),
        "1" | "t" | "y" | "yes" | "on" => Some((true, true)),
        "0" | "f" | "n" | "no" | "off" => Some((false, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Docker Compose v5.6 makes of these in `environment`; `None`: text as it stands.
    #[test]
    fn plain_scalars_as_text() {
        let table = [
            ("1.50", Some("1.5")),
            ("0777", Some("511")),
            ("1e6", Some("1e+06")),
            ("1_000", Some("1000")),
            ("12345678901234567890", Some("12345678901234567890")),
            ("0x10", Some("16")),
            ("-0x10", Some("-16")),
            ("+0x10", Some("16")),
            ("1234567.5", Some("1.2345675e+06")),
            ("0o17", Some("15")),
            ("0b11", Some("3")),
            ("08", Some("8")),
            ("1e-7", Some("1e-07")),
            (
                "123456789012345678901234567890",
                Some("1.2345678901234568e+29"),
            ),
            ("0.0001", Some("0.0001")),
            ("0.00001", Some("1e-05")),
            ("1.0", Some("1")),
            ("012345678", Some("1.2345678e+07")),
            ("+5", Some("5")),
            (".5", Some("0.5")),
            ("-.5", Some("-0.5")),
            ("5.", Some("5")),
            ("1e21", Some("1e+21")),
            ("-0.0", Some("-0")),
            ("1__0", Some("10")),
            ("1_", Some("1")),
            ("0_7", Some("7")),
            ("0x", None),
            ("_1", None),
            ("1:30:00", None),
            ("22:22", None),
            ("yes", None),
            ("on", None),
            ("1.2.3", None),
            ("1e", None),
            ("-", None),
            (".", None),
            ("+-1", None),
            ("--1", None),
        ];
        for (text, expected) in table {
            let printed = match resolve(text) {
                Some(Value::Int(value)) => Some(value.to_string()),
                Some(Value::Float(value)) => Some(go_float(value)),
                None => None,
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!(printed.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn words_with_a_meaning() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(text), Some(Value::Null), "{text}");
        }
        for (text, value) in [("true", true), ("True", true), ("FALSE", false)] {
            assert_eq!(resolve(text), Some(Value::Bool(value)), "{text}");
        }
        assert_eq!(resolve("-.inf"), Some(Value::Float(f64::NEG_INFINITY)));
        assert!(matches!(resolve(".nan"), Some(Value::Float(value)) if value.is_nan()));
        assert_eq!(
            (go_float(f64::INFINITY), go_float(f64::NAN)),
            ("+Inf".to_owned(), "NaN".to_owned())
        );
    }

    #[test]
    fn booleans_in_old_spellings() {
        for (text, expected) in [
            ("true", Some((true, false))),
            ("FALSE", Some((false, false))),
            ("Yes", Some((true, true))),
            ("0", Some((false, true))),
            ("maybe", None),
            ("", None),
        ] {
            assert_eq!(cast_bool(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_type(text in "\\PC{0,20}") {
            resolve(&text);
        }

        #[test]
        fn printed_floats_read_back(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            prop_assert_eq!(go_float(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }
}
