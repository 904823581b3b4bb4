//! Reads and prints points in time. The present is a parameter. All times are printed in UTC.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::words::counted;

/// Unix milliseconds as RFC 3339; `None` for 0, which means "never" on the wire.
pub(crate) fn rfc3339_ms(ms: i64) -> Option<String> {
    if ms == 0 {
        return None;
    }
    Timestamp::from_millisecond(ms)
        .ok()
        .map(|time| time.to_string())
}

/// Unix nanoseconds as RFC 3339 with `digits` digits after the decimal point.
pub(crate) fn rfc3339_ns(ns: i64, digits: usize) -> String {
    Timestamp::from_nanosecond(i128::from(ns))
        .map(|time| format!("{time:.digits$}"))
        .expect("64 bits of nanoseconds end in the year 2262, long before jiff does")
}

/// The age, such as `3 minutes ago`, in a unit that gives at least two (seconds: one). Empty for 0.
pub(crate) fn ago(ms: i64, now: Timestamp) -> String {
    let Ok(then) = Timestamp::from_millisecond(ms) else {
        return String::new();
    };
    if ms == 0 {
        return String::new();
    }
    match now.duration_since(then).as_secs() {
        i64::MIN..=1 => "just now".into(),
        seconds => format!("{} ago", rough(seconds)),
    }
}

/// A duration of at least one second, such as `45 seconds` or `2 hours`.
pub(crate) fn rough(seconds: i64) -> String {
    match seconds.unsigned_abs() {
        seconds @ ..=119 => counted(seconds, "second", "seconds"),
        seconds @ 120..=7_199 => counted(seconds / 60, "minute", "minutes"),
        seconds @ 7_200..=172_799 => counted(seconds / 3_600, "hour", "hours"),
        seconds => counted(seconds / 86_400, "day", "days"),
    }
}

/// A bound of `uc logs`, as Unix milliseconds: a duration back from now (`10m`, `1h30m`), RFC 3339,
/// a date (midnight UTC) or Unix seconds.
pub(crate) fn parse_bound(text: &str, now: Timestamp) -> Result<i64, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "invalid time `{text}`: use a duration (10m, 1h30m), 2026-01-31T10:00:00Z, 2026-01-31 or Unix seconds"
        )
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if let Ok(date) = text.parse::<Date>() {
        return date
            .to_zoned(TimeZone::UTC)
            .map(|zoned| zoned.timestamp().as_millisecond())
            .map_err(|_| wrong());
    }
    // Digits alone are Unix seconds, as in Docker. A fraction is allowed.
    if text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        let seconds: f64 = text.parse().map_err(|_| wrong())?;
        return Timestamp::from_millisecond((seconds * 1000.0) as i64)
            .map(Timestamp::as_millisecond)
            .map_err(|_| wrong());
    }
    let back = parse_duration(text, now).ok_or_else(wrong)?;
    now.checked_sub(back)
        .map(Timestamp::as_millisecond)
        .map_err(|_| wrong())
}

/// A duration from now such as `10m`, `1h30m` or `7days`. `None` if it is negative or none at all.
pub(crate) fn parse_duration(text: &str, now: Timestamp) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    // Only a month needs the present, which decides how long it is.
    let duration = span.to_duration(&now.to_zoned(TimeZone::UTC)).ok()?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn ago_rounds_to_the_largest_unit() {
        let at = |seconds: i64| ago(now().as_millisecond() - seconds * 1000, now());
        assert_eq!(at(0), "just now");
        assert_eq!(at(-500), "just now");
        assert_eq!(at(59), "59 seconds ago");
        assert_eq!(at(150), "2 minutes ago");
        assert_eq!(at(7_200), "2 hours ago");
        assert_eq!(at(86_400 * 3), "3 days ago");
        assert_eq!(ago(0, now()), "");
    }

    #[test]
    fn parse_bound_accepts_four_forms() {
        let bound = |text| parse_bound(text, now()).map(|ms| rfc3339_ms(ms).unwrap());
        assert_eq!(bound("10m"), Ok("2026-11-21T11:50:00Z".into()));
        assert_eq!(bound("1h30m"), Ok("2026-11-21T10:30:00Z".into()));
        assert_eq!(bound("2026-11-20"), Ok("2026-11-20T00:00:00Z".into()));
        assert_eq!(
            bound("2026-11-20T01:02:03+01:00"),
            Ok("2026-11-20T00:02:03Z".into())
        );
        assert_eq!(bound("1700000000.5"), Ok("2023-11-14T22:13:20.5Z".into()));
        for text in ["", "soon", "2026-13-01", "-5m", "99999999999999999999"] {
            assert!(bound(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rfc3339_of_0_is_none() {
        assert_eq!(rfc3339_ms(0), None);
        assert_eq!(
            rfc3339_ns(1_700_000_000_123_456_789, 3),
            "2023-11-14T22:13:20.123Z"
        );
    }
}
