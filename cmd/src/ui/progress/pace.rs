//! How many plain lines a task prints. The log of a CI job must show what happens, and must not
//! have a line for each of the five progress events that a pull sends every second.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A task that stays in its phase prints one line in this time.
const INTERVAL: Duration = Duration::from_secs(10);
/// Phases of a task that are printed as soon as they begin. A step has about five. The output of a
/// pre-deploy command counts as phases, too, and can be endless.
const MAX_PHASES: usize = 16;

/// Decides which messages of one task are printed. Pure: the time is a parameter.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// At most [`MAX_PHASES`].
    phases: BTreeSet<String>,
}

impl Pace {
    /// Whether to print this message: it starts a new phase, or the last line is old enough.
    pub(super) fn admits(&mut self, now: Instant, message: &str) -> bool {
        let new_phase =
            self.phases.len() < MAX_PHASES && self.phases.insert(phase(message).to_owned());
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if new_phase || due {
            self.last = Some(now);
        }
        new_phase || due
    }
}

/// The part of a message that names the phase: all before the first figure.
fn phase(message: &str) -> &str {
    message
        .split_once(|c: char| c.is_ascii_digit())
        .map_or(message, |(phase, _)| phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages that are printed, of messages at these milliseconds.
    fn printed(messages: &[(u64, String)]) -> Vec<String> {
        let start = Instant::now();
        let mut pace = Pace::default();
        messages
            .iter()
            .filter(|(ms, message)| pace.admits(start + Duration::from_millis(*ms), message))
            .map(|(_, message)| message.clone())
            .collect()
    }

    #[test]
    fn new_phase_is_printed_immediately() {
        let messages = ["creating", "pulling nginx", "starting", "starting"];
        let messages: Vec<_> = (0..).zip(messages.map(str::to_owned)).collect();
        assert_eq!(
            printed(&messages),
            ["creating", "pulling nginx", "starting"]
        );
    }

    #[test]
    fn pull_of_a_minute_prints_a_line_every_ten_seconds() {
        let messages: Vec<_> = (0..300)
            .map(|step| (step * 200, format!("pulling: {step} of 300 MB")))
            .collect();
        assert_eq!(
            printed(&messages),
            [0, 50, 100, 150, 200, 250].map(|step| format!("pulling: {step} of 300 MB"))
        );
    }

    #[test]
    fn two_phases_that_alternate_are_printed_once_each() {
        let messages: Vec<_> = (0..40)
            .map(|step| {
                (
                    step * 200,
                    ["downloading", "extracting"][step as usize % 2].to_owned(),
                )
            })
            .collect();
        assert_eq!(printed(&messages), ["downloading", "extracting"]);
    }

    #[test]
    fn endless_output_is_bounded() {
        let messages: Vec<_> = (0..1000)
            .map(|step: u64| (step, format!("{}line", "x".repeat(step as usize))))
            .collect();
        assert_eq!(printed(&messages).len(), MAX_PHASES);
    }
}
