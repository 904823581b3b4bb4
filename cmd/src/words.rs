//! The protocol's enumerations in words, the same in tables and in JSON.

use uc_api::v1::{
    DeployFinished, DeployOutcome, DeploymentStatus, Health, Kept, Liveness, ReplicaRecord,
    ReplicaState, ServiceChange, ServiceMode, TokenState,
};

/// A count with its noun: `1 machine`, `3 machines`.
pub(crate) fn counted(count: impl Into<u64>, one: &str, many: &str) -> String {
    let count = count.into();
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `812 B`, `9.8 KiB`, `1.2 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}

/// `REPLICA_STATE_RUNNING` as `running`; the unspecified value is `unknown`.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    let word = name
        .strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
        .replace('_', "-");
    if word == "unspecified" {
        "unknown".into()
    } else {
        word
    }
}

pub(crate) fn state(replica: &ReplicaRecord) -> String {
    word(replica.state().as_str_name(), "REPLICA_STATE_")
}

pub(crate) fn health(replica: &ReplicaRecord) -> String {
    word(replica.health().as_str_name(), "HEALTH_")
}

pub(crate) fn liveness(liveness: Liveness) -> String {
    word(liveness.as_str_name(), "LIVENESS_")
}

/// A machine's state in listings: its liveness, or `evicted` if it is evicted and not up again.
pub(crate) fn machine_state(of: Liveness, evicted: bool) -> String {
    if evicted && of != Liveness::Up {
        "evicted".into()
    } else {
        liveness(of)
    }
}

/// What is known of a machine whose Docker engine does not answer; `None` if it does. `now_ms` is
/// the time of a clock that can differ from the machine's.
pub(crate) fn engine_away(machine: &str, since_ms: i64, now_ms: i64) -> Option<String> {
    let time = crate::times::rough((now_ms - since_ms).max(0) / 1000);
    (since_ms > 0).then(|| {
        format!(
            "{machine}: Docker has not answered for {time}; the state of its replicas is unknown"
        )
    })
}

pub(crate) fn token_state(of: TokenState) -> String {
    word(of.as_str_name(), "TOKEN_STATE_")
}

pub(crate) fn mode(mode: ServiceMode) -> String {
    word(mode.as_str_name(), "SERVICE_MODE_")
}

/// `create`, `update`, …; `repair` if nothing of the service changed but replicas do.
pub(crate) fn service_change(change: ServiceChange, has_steps: bool) -> String {
    match change {
        ServiceChange::None if has_steps => "repair".to_owned(),
        change => word(change.as_str_name(), "SERVICE_CHANGE_"),
    }
}

/// The state of a deployment in JSON: how it ended, `running`, or `unknown` if its machine does not
/// tell.
pub(crate) fn deployment_state_word(deployment: &DeploymentStatus) -> String {
    match (&deployment.finished, deployment.machine_liveness()) {
        (Some(end), _) => word(end.outcome().as_str_name(), "DEPLOY_OUTCOME_"),
        (None, Liveness::Up | Liveness::Suspect) => "running".to_owned(),
        (None, Liveness::Down | Liveness::Unspecified) => "unknown".to_owned(),
    }
}

/// The state of a deployment in one phrase, such as `rolled back` or `unknown (m1 is down)`.
pub(crate) fn deployment_state(deployment: &DeploymentStatus) -> (String, Condition) {
    let mut text = deployment_state_word(deployment).replace('-', " ");
    let outcome = deployment.finished.as_ref().map(DeployFinished::outcome);
    let condition = match outcome {
        Some(DeployOutcome::Done) => Condition::Good,
        Some(DeployOutcome::Superseded) | None => Condition::Between,
        Some(_) => Condition::Bad,
    };
    if deployment.finished.is_none() && deployment.machine_liveness() == Liveness::Down {
        text = format!("{text} ({} is down)", deployment.machine_name);
    }
    (text, condition)
}

/// What a container is kept for that is not a replica any longer; `None` for a replica.
pub(crate) fn kept(replica: &ReplicaRecord) -> Option<String> {
    match replica.kept() {
        Kept::Unspecified => None,
        Kept::Replaced => Some("replaced".to_owned()),
        Kept::Failed => Some("failed".to_owned()),
    }
}

/// A replica's condition in one phrase, such as `running (healthy)`, `exited (1)` or `draining`,
/// and whether it is good, bad or in between.
pub(crate) fn condition(replica: &ReplicaRecord) -> (String, Condition) {
    let state_word = state(replica);
    let (note, condition) = match (replica.state(), replica.health()) {
        (ReplicaState::Running, Health::Healthy) => (Some("healthy".to_owned()), Condition::Good),
        (ReplicaState::Running, Health::Unhealthy) => {
            (Some("unhealthy".to_owned()), Condition::Bad)
        }
        (ReplicaState::Running, Health::Starting) => {
            (Some("starting".to_owned()), Condition::Between)
        }
        (ReplicaState::Running, _) => (None, Condition::Good),
        (ReplicaState::Exited | ReplicaState::Dead, _) => (
            replica.exit_code.map(|code| code.to_string()),
            Condition::Bad,
        ),
        (ReplicaState::Restarting, _) => (
            replica.exit_code.map(|code| code.to_string()),
            Condition::Bad,
        ),
        _ => (None, Condition::Between),
    };
    let mut text = match note {
        Some(note) => format!("{state_word} ({note})"),
        None => state_word,
    };
    let mut condition = condition;
    if replica.kept() == Kept::Failed {
        text.push_str(", kept for its logs");
    }
    if replica.draining {
        text.push_str(", draining");
        condition = Condition::Between;
    }
    (text, condition)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Good,
    Between,
    Bad,
}

impl Condition {
    pub(crate) fn style(self) -> anstyle::Style {
        match self {
            Self::Good => crate::ui::GREEN,
            Self::Between => crate::ui::YELLOW,
            Self::Bad => crate::ui::RED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(10_000)],
            ["0 B", "1023 B", "9.8 KiB"]
        );
        assert_eq!(
            [bytes(1 << 31), bytes(u64::MAX)],
            ["2.0 GiB", "16777216.0 TiB"]
        );
    }

    #[test]
    fn words_of_the_wire() {
        assert_eq!(word("SERVICE_MODE_GLOBAL", "SERVICE_MODE_"), "global");
        assert_eq!(word("LIVENESS_UNSPECIFIED", "LIVENESS_"), "unknown");
        assert_eq!(
            word("UPDATE_ORDER_START_FIRST", "UPDATE_ORDER_"),
            "start-first"
        );
    }

    #[test]
    fn a_machine_is_evicted_until_it_is_back() {
        assert_eq!(machine_state(Liveness::Down, true), "evicted");
        assert_eq!(machine_state(Liveness::Unspecified, true), "evicted");
        assert_eq!(machine_state(Liveness::Up, true), "up");
        assert_eq!(machine_state(Liveness::Down, false), "down");
    }

    #[test]
    fn engine_that_is_away_is_named_with_its_time() {
        let away = |since_ms| engine_away("m2", since_ms, 1_040_500);
        assert_eq!(
            away(1_000_000).unwrap(),
            "m2: Docker has not answered for 40 seconds; the state of its replicas is unknown"
        );
        assert_eq!(away(0), None, "it answers");
        // The machine's clock is ahead.
        assert!(away(2_000_000).unwrap().contains("for 0 seconds"));
    }

    fn replica(state: ReplicaState, health: Health, exit_code: Option<i32>) -> ReplicaRecord {
        ReplicaRecord {
            state: state.into(),
            health: health.into(),
            exit_code,
            ..Default::default()
        }
    }

    #[test]
    fn conditions_in_one_phrase() {
        let text = |replica: &ReplicaRecord| condition(replica).0;
        assert_eq!(
            text(&replica(ReplicaState::Running, Health::Healthy, None)),
            "running (healthy)"
        );
        assert_eq!(
            text(&replica(ReplicaState::Running, Health::None, None)),
            "running"
        );
        assert_eq!(
            text(&replica(ReplicaState::Exited, Health::None, Some(137))),
            "exited (137)"
        );
        let mut draining = replica(ReplicaState::Running, Health::Healthy, None);
        draining.draining = true;
        assert_eq!(
            condition(&draining),
            ("running (healthy), draining".into(), Condition::Between)
        );
    }
}
