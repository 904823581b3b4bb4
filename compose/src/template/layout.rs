//! Go's way to write dates: the form is how Mon Jan 2 15:04:05 MST 2006 would look.

use std::fmt::Write as _;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A point in time in a zone, taken apart.
#[derive(Debug)]
pub(super) struct Moment {
    year: i64,
    /// From 1.
    month: usize,
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// 0 is Sunday.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
    /// Seconds east of UTC.
    offset: i32,
    zone: String,
}

impl Moment {
    /// `at`: seconds since 1970.
    pub(super) fn new(at: i64, offset: i32, zone: String) -> Self {
        // Beyond these years nothing is a date.
        let local = at.clamp(-62_135_596_800, 253_402_300_799) + i64::from(offset);
        let (days, second) = (
            local.div_euclid(86_400),
            local.rem_euclid(86_400).unsigned_abs(),
        );
        let (year, month, day) = civil(days);
        let index = |value: i64| usize::try_from(value).unwrap_or(0);
        Self {
            year,
            month: index(month),
            day: day.unsigned_abs(),
            day_of_year: (days - days_before(year) + 1).unsigned_abs(),
            weekday: index((days + 4).rem_euclid(7)),
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            offset,
            zone,
        }
    }
}

/// Year, month and day of the Gregorian calendar, of days since 1970. Counted in eras of 400 years
/// that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days from 1970 to the first of January of a year.
fn days_before(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

/// The moment in Go's form.
pub(super) fn format(form: &str, moment: &Moment) -> String {
    let mut out = String::new();
    let mut rest = form;
    while let Some(first) = rest.chars().next() {
        let length = match element(rest) {
            Some(element) => {
                write(&mut out, element, moment);
                element.len()
            }
            None => {
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

/// Elements of a form, longer ones before those they begin with.
const ELEMENTS: [&str; 43] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "__2",
    "_2",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "-070000",
    "-07:00:00",
    "-0700",
    "-07:00",
    "-07",
    "Z070000",
    "Z07:00:00",
    "Z0700",
    "Z07:00",
    "Z07",
    "PM",
    "pm",
    "1",
    "2",
    "3",
    "4",
    "5",
    ".000000000",
    ".000000",
    ".000",
    ".999999999",
    ".999999",
    ".999",
    ",000000000",
    ",000000",
    ",000",
    ",999",
];

/// The element that a text begins with.
fn element(text: &str) -> Option<&'static str> {
    let element = ELEMENTS
        .into_iter()
        .find(|element| text.starts_with(element))?;
    let next = text[element.len()..].chars().next();
    let standing_alone = match element {
        // "Janitor" is not a month.
        "Jan" | "Mon" => !next.is_some_and(char::is_lowercase),
        // "_2006" is an underscore and a year.
        "_2" => !text[1..].starts_with("2006"),
        element if element.starts_with(['.', ',']) => !next.is_some_and(|c| c.is_ascii_digit()),
        _ => true,
    };
    standing_alone.then_some(element)
}

fn write(out: &mut String, element: &str, moment: &Moment) {
    let month = MONTHS
        .get(moment.month.saturating_sub(1))
        .copied()
        .unwrap_or_default();
    let day = DAYS.get(moment.weekday).copied().unwrap_or_default();
    let hour = (moment.hour + 11) % 12 + 1;
    let name = |name: &'static str| name.get(..3).unwrap_or(name);
    // Writing into a string does not fail.
    _ = match element {
        "January" => out.write_str(month),
        "Jan" => out.write_str(name(month)),
        "Monday" => out.write_str(day),
        "Mon" => out.write_str(name(day)),
        "MST" => out.write_str(&moment.zone),
        "2006" => write!(out, "{:04}", moment.year),
        "06" => write!(out, "{:02}", moment.year.rem_euclid(100)),
        "01" => write!(out, "{:02}", moment.month),
        "1" => write!(out, "{}", moment.month),
        "02" => write!(out, "{:02}", moment.day),
        "_2" => write!(out, "{:2}", moment.day),
        "2" => write!(out, "{}", moment.day),
        "002" => write!(out, "{:03}", moment.day_of_year),
        "__2" => write!(out, "{:3}", moment.day_of_year),
        "15" => write!(out, "{:02}", moment.hour),
        "03" => write!(out, "{hour:02}"),
        "3" => write!(out, "{hour}"),
        "04" => write!(out, "{:02}", moment.minute),
        "4" => write!(out, "{}", moment.minute),
        "05" => write!(out, "{:02}", moment.second),
        "5" => write!(out, "{}", moment.second),
        "PM" => out.write_str(if moment.hour < 12 { "AM" } else { "PM" }),
        "pm" => out.write_str(if moment.hour < 12 { "am" } else { "pm" }),
        zone if zone.starts_with('Z') && moment.offset == 0 => out.write_char('Z'),
        zone if zone.starts_with(['Z', '-']) => write_offset(out, zone, moment.offset),
        // Times are whole seconds: nines are left out, noughts are written.
        fraction if fraction.contains('9') => Ok(()),
        fraction => out.write_str(fraction),
    };
}

fn write_offset(out: &mut String, element: &str, offset: i32) -> std::fmt::Result {
    let sign = if offset < 0 { '-' } else { '+' };
    let offset = offset.unsigned_abs();
    let (hours, minutes, seconds) = (offset / 3600, offset / 60 % 60, offset % 60);
    match element.get(1..).unwrap_or_default() {
        "07" => write!(out, "{sign}{hours:02}"),
        "0700" => write!(out, "{sign}{hours:02}{minutes:02}"),
        "07:00" => write!(out, "{sign}{hours:02}:{minutes:02}"),
        "070000" => write!(out, "{sign}{hours:02}{minutes:02}{seconds:02}"),
        _ => write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}
