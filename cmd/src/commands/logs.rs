//! `uc logs`

use std::io::IsTerminal as _;

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::{LogEntry, LogStream, LogsRequest};

use crate::args::Output;
use crate::connect::Globals;
use crate::error::{CliError, CliResult, Kind};
use crate::ui::{DIM, Ui};
use crate::{text, times, view};

/// Colours of services. Red is left for errors.
const COLOURS: [anstyle::AnsiColor; 6] = [
    anstyle::AnsiColor::Cyan,
    anstyle::AnsiColor::Green,
    anstyle::AnsiColor::Yellow,
    anstyle::AnsiColor::Magenta,
    anstyle::AnsiColor::Blue,
    anstyle::AnsiColor::BrightCyan,
];

/// Show the logs of services on all machines, in time order
///
/// Lines that a container wrote to stderr go to stderr. Times are UTC. With `-f`, new lines are in
/// time order as far as they arrive together: a machine that is more than 250 ms late does not hold
/// up the others.
#[derive(Debug, Args)]
#[command(
    visible_alias = "log",
    after_help = "Examples:
  uc logs -f web                   show the last 100 lines of each container and follow
  uc logs -n all --since 1h db     show all lines of the last hour
  uc logs -o json | jq .message    print one JSON object per line"
)]
pub(crate) struct LogsArgs {
    /// `SERVICE` or `PROJECT/SERVICE` [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Number of lines from the end of each container's log, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "100", value_parser = parse_tail)]
    tail: i64,
    /// Only lines since this time: 10m (ago), 2026-01-31T10:00:00Z, 2026-01-31 or Unix seconds
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines until this time, in the same forms
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    output: Output,
}

fn parse_tail(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse::<u32>()
        .map(i64::from)
        .map_err(|_| "must be a number of lines or `all`".into())
}

pub(crate) async fn run(args: LogsArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let now = Timestamp::now();
    let bound = |text: &Option<String>| {
        text.as_deref().map_or(Ok(0), |text| {
            times::parse_bound(text, now).map_err(CliError::usage)
        })
    };
    let request = LogsRequest {
        services: args.services,
        follow: args.follow,
        tail: args.tail,
        since_ms: bound(&args.since)?,
        until_ms: bound(&args.until)?,
        container: String::new(),
    };
    let client = globals.client().await?;
    let mut stream = client.services().logs(request).await?.into_inner();
    let stdout_is_terminal = std::io::stdout().is_terminal();
    let stderr_is_terminal = std::io::stderr().is_terminal();
    let mut missing = 0_u32;
    while let Some(entry) = stream.message().await? {
        missing += u32::from(!entry.problem.is_empty());
        if args.output.is_json() {
            ui.out(&serde_json::to_string(&view::LogLine::from(&entry))?)?;
        } else if !entry.problem.is_empty() {
            ui.warn(&format!(
                "some logs of {} are missing: {}",
                entry.machine_name, entry.problem
            ))?;
        } else if entry.stream() == LogStream::Stderr {
            ui.status(&line(&entry, stderr_is_terminal))?;
        } else {
            ui.out(&line(&entry, stdout_is_terminal))?;
        }
    }
    if missing > 0 {
        return Err(CliError::new(Kind::Partial, "the logs are incomplete"));
    }
    Ok(())
}

/// `time machine service/container  message`. On a terminal, a message keeps its colours and no
/// other escape sequence.
fn line(entry: &LogEntry, on_terminal: bool) -> String {
    let colour = colour(&entry.service);
    let container: String = entry.container_id.chars().take(5).collect();
    let message = String::from_utf8_lossy(&entry.message);
    let message = message.trim_end_matches(['\n', '\r']);
    let message = if on_terminal {
        text::of_container(message)
    } else {
        message.to_owned()
    };
    format!(
        "{DIM}{}{DIM:#} {} {colour}{}{colour:#}  {message}",
        times::rfc3339_ns(entry.time_ns, 3),
        text::one_line(&entry.machine_name),
        text::one_line(&format!("{}/{container}", entry.service)),
    )
}

/// The same service has the same colour each time.
fn colour(service: &str) -> anstyle::Style {
    let sum = service.bytes().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(byte))
    });
    anstyle::Style::new().fg_color(Some(COLOURS[sum % COLOURS.len()].into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_time_machine_container_and_message() {
        let entry = LogEntry {
            machine_name: "m1".into(),
            service: "web".into(),
            container_id: "0123456789".into(),
            time_ns: 1_700_000_000_123_456_789,
            message: b"hello\n".to_vec(),
            ..Default::default()
        };
        let text = anstream::adapter::strip_str(&line(&entry, true)).to_string();
        assert_eq!(text, "2023-11-14T22:13:20.123Z m1 web/01234  hello");
    }

    #[test]
    fn line_on_a_terminal_keeps_colours_only() {
        let entry = LogEntry {
            machine_name: "m1\u{1b}[2J".into(),
            service: "web\u{7}".into(),
            message: b"\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J\x1b[1;1H end\n".to_vec(),
            ..Default::default()
        };
        let text = line(&entry, true);
        assert!(
            text.ends_with("  \u{1b}[31mred\u{1b}[0m end\u{1b}[0m"),
            "{text:?}"
        );
        assert!(!text.contains("[2J") && !text.contains('\u{7}'), "{text:?}");
        let text = line(&entry, false);
        assert!(text.ends_with("\u{1b}[1;1H end"), "{text:?}");
    }

    #[test]
    fn parse_tail_accepts_numbers_and_all() {
        assert_eq!(parse_tail("all"), Ok(-1));
        assert_eq!(parse_tail("0"), Ok(0));
        assert!(parse_tail("-3").is_err());
    }
}
