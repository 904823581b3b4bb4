//! Durations (`1m30s`) and sizes (`1.5g`) as Docker Compose reads and prints them.

/// Nanoseconds of a Go duration with Compose's days and weeks; `None` if it is none or out of
/// range.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanoseconds: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => 24 * 3_600 * SECOND,
            "w" => 7 * 24 * 3_600 * SECOND,
            _ => return None,
        };
        total = total.checked_add(decimal(number)?.scaled(nanoseconds)?)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

const SECOND: i128 = 1_000_000_000;

/// A duration as Go prints it: `1m0s`, `500ms`, `0s`.
pub(crate) fn format_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let value = i128::from(nanoseconds).abs();
    if value == 0 {
        return "0s".into();
    }
    for (unit, size) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
        if value < size * 1_000 {
            return format!("{sign}{}{unit}", fraction(value, size));
        }
    }
    let (minutes, seconds) = (
        value / (60 * SECOND),
        fraction(value % (60 * SECOND), SECOND),
    );
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` in decimal, without trailing zeros.
fn fraction(value: i128, unit: i128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Bytes of a size: a number with `b`, `k`, `m`, `g`, `t`, `p` (also `kb`, `kib`), in powers of
/// 1024.
pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    if text == "-1" {
        return Some(-1);
    }
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let letter = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let exponent = match letter {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    i64::try_from(decimal(number)?.scaled(1_i128 << (10 * exponent))?).ok()
}

/// A decimal number, exact.
struct Decimal {
    digits: i128,
    /// 10 to the power of the digits after the point.
    divisor: i128,
}

impl Decimal {
    /// Times `unit`, cut to a whole number.
    fn scaled(&self, unit: i128) -> Option<i128> {
        Some(self.digits.checked_mul(unit)? / self.divisor)
    }
}

fn decimal(text: &str) -> Option<Decimal> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More digits than these say nothing about nanoseconds and would overflow.
    let fraction = fraction.get(..fraction.len().min(12))?;
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some(Decimal {
        digits,
        divisor: 10_i128.pow(u32::try_from(fraction.len()).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        let table = [
            ("90s", "1m30s"),
            ("1m", "1m0s"),
            ("500ms", "500ms"),
            ("0s", "0s"),
            ("0", "0s"),
            ("1h2m3s4ms5us", "1h2m3.004005s"),
            ("1.5h", "1h30m0s"),
            ("1d", "24h0m0s"),
            ("2w", "336h0m0s"),
            ("100us", "100µs"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
            ("-3s", "-3s"),
            (".5s", "500ms"),
        ];
        for (text, printed) in table {
            assert_eq!(
                parse_duration(text).map(format_duration).as_deref(),
                Some(printed),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "1x",
            "1h -3s",
            "1.2.3s",
            "99999999999h",
            "-",
            "1 s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let table = [
            ("64m", Some(67_108_864)),
            ("1g", Some(1_073_741_824)),
            ("1.5g", Some(1_610_612_736)),
            ("10MB", Some(10_485_760)),
            ("2KiB", Some(2_048)),
            ("100", Some(100)),
            ("100b", Some(100)),
            ("-1", Some(-1)),
            ("1x", None),
            ("", None),
            ("m", None),
            ("-2m", None),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_durations_read_back(nanoseconds in any::<i64>()) {
            // The smallest has no positive counterpart to be written with.
            prop_assume!(nanoseconds != i64::MIN);
            prop_assert_eq!(parse_duration(&format_duration(nanoseconds)), Some(nanoseconds));
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"[-+.0-9a-z µ]{0,20}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
