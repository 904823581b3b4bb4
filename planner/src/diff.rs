//! What differs between two specs of a service, in the words of the compose file, fit to be shown
//! to anybody.

mod container;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use uc_api::v1::{FieldChange, Placement, PreDeploy, ServiceMode, ServiceSpec, UpdatePolicy};

/// What stands in place of a value that must not be printed.
const MASK: &str = "***";
/// Variables and labels whose names contain one of these hold secrets.
const SECRET_WORDS: [&str; 8] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "KEY",
    "CREDENTIAL",
    "PRIVATE",
];
/// Fields, with all below them, whose change needs no new container: what [`uc_api::revision`]
/// leaves out.
const NOT_IN_CONTAINER: [&str; 9] = [
    "depends_on",
    "deploy.mode",
    "deploy.replicas",
    "deploy.update_config",
    "deploy.placement",
    "deploy.labels",
    "pull_policy",
    "networks.aliases",
    "x-pre_deploy",
];

/// Every field that differs, in the order of the compose reference; an absent value is an empty
/// text.
pub fn fields(old: &ServiceSpec, new: &ServiceSpec) -> Vec<FieldChange> {
    let mut changes = Changes(Vec::new());
    container::what_runs(&mut changes, old, new);
    changes.list(
        "depends_on",
        &old.depends_on,
        &new.depends_on,
        words::dependency,
    );
    changes.add("deploy.mode", words::mode(old), words::mode(new));
    if old.mode() != ServiceMode::Global || new.mode() != ServiceMode::Global {
        changes.add(
            "deploy.replicas",
            old.replicas.to_string(),
            new.replicas.to_string(),
        );
    }
    container::how_it_runs(&mut changes, old, new);
    changes.add("pull_policy", words::pull(old), words::pull(new));
    container::rights(&mut changes, old, new);
    container::network(&mut changes, old, new);
    changes.texts("networks.aliases", &old.aliases, &new.aliases);
    container::namespaces(&mut changes, old, new);
    container::resources(&mut changes, old, new);
    container::contents(&mut changes, old, new);
    changes.list("post_start", &old.post_start, &new.post_start, words::hook);
    changes.list("pre_stop", &old.pre_stop, &new.pre_stop, words::hook);
    pre_deploy(
        &mut changes,
        old.pre_deploy.as_ref(),
        new.pre_deploy.as_ref(),
    );
    update(&mut changes, old, new);
    placement(&mut changes, old.placement.as_ref(), new.placement.as_ref());
    changes.map("deploy.labels", &old.service_labels, &new.service_labels);
    changes.texts("x-machines", &old.machines, &new.machines);
    changes.0
}

/// In a few words, why a container is replaced.
pub(super) fn reason(fields: &[FieldChange]) -> String {
    let in_container = |field: &&str| {
        *field != "x-machines"
            && !NOT_IN_CONTAINER.iter().any(|left_out| {
                field
                    .strip_prefix(left_out)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    };
    let mut names: Vec<&str> = Vec::new();
    for field in fields
        .iter()
        .map(|change| change.field.as_str())
        .filter(in_container)
    {
        let name = field.split(['.', '[']).next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.as_slice() {
        // The spec is the one of last time: that deployment did not get this far.
        [] => "runs an older revision".into(),
        [one] => format!("{one} changed"),
        [one, two] => format!("{one} and {two} changed"),
        [one, rest @ ..] => format!("{one} and {} more changed", rest.len()),
    }
}

fn pre_deploy(changes: &mut Changes, old: Option<&PreDeploy>, new: Option<&PreDeploy>) {
    let empty = PreDeploy::default();
    let (old_command, new_command) = (words::run_before(old), words::run_before(new));
    changes.add("x-pre_deploy", old_command, new_command);
    let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
    changes.map(
        "x-pre_deploy.environment",
        &old.environment,
        &new.environment,
    );
}

fn update(changes: &mut Changes, old: &ServiceSpec, new: &ServiceSpec) {
    changes.add(
        "deploy.update_config.order",
        words::order(old),
        words::order(new),
    );
    let empty = UpdatePolicy::default();
    let (old, new) = (
        old.update.as_ref().unwrap_or(&empty),
        new.update.as_ref().unwrap_or(&empty),
    );
    let mut add =
        |name: &str, old, new| changes.add(&format!("deploy.update_config.{name}"), old, new);
    add(
        "parallelism",
        words::number(old.parallelism),
        words::number(new.parallelism),
    );
    add(
        "delay",
        words::unless_zero(old.delay_ms),
        words::unless_zero(new.delay_ms),
    );
    let monitor = |policy: &UpdatePolicy| {
        policy
            .monitor_ms
            .map(words::milliseconds)
            .unwrap_or_default()
    };
    add("monitor", monitor(old), monitor(new));
    add(
        "failure_action",
        words::failure_action(old),
        words::failure_action(new),
    );
    let ratio = |policy: &UpdatePolicy| match policy.max_failure_ratio {
        0.0 => String::new(),
        ratio => ratio.to_string(),
    };
    add("max_failure_ratio", ratio(old), ratio(new));
}

fn placement(changes: &mut Changes, old: Option<&Placement>, new: Option<&Placement>) {
    let empty = Placement::default();
    let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
    changes.texts(
        "deploy.placement.constraints",
        &old.constraints,
        &new.constraints,
    );
    changes.texts("deploy.placement.preferences", &old.spread, &new.spread);
    let most = |placement: &Placement| {
        words::number(Some(placement.max_replicas_per_machine).filter(|most| *most > 0))
    };
    changes.add(
        "deploy.placement.max_replicas_per_node",
        most(old),
        most(new),
    );
}

struct Changes(Vec<FieldChange>);

impl Changes {
    fn add(&mut self, field: &str, old: impl Into<String>, new: impl Into<String>) {
        let (old, new) = (old.into(), new.into());
        if old != new {
            self.0.push(FieldChange {
                field: field.to_owned(),
                old,
                new,
            });
        }
    }

    fn texts(&mut self, field: &str, old: &[String], new: &[String]) {
        self.add(field, old.join(", "), new.join(", "));
    }

    /// A change even if what is shown of both is the same, since what differs is masked.
    fn list<T: PartialEq>(
        &mut self,
        field: &str,
        old: &[T],
        new: &[T],
        show: impl Fn(&T) -> String,
    ) {
        let all = |items: &[T]| items.iter().map(&show).collect::<Vec<_>>().join(", ");
        if old != new {
            self.0.push(FieldChange {
                field: field.to_owned(),
                old: all(old),
                new: all(new),
            });
        }
    }

    fn map(&mut self, field: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        self.map_as(field, old, new, |name, value| shown(name, value));
    }

    /// One change for each name, even if what is shown of the two values is the same.
    fn map_as<T: PartialEq>(
        &mut self,
        field: &str,
        old: &BTreeMap<String, T>,
        new: &BTreeMap<String, T>,
        show: impl Fn(&str, &T) -> String,
    ) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name))
        {
            let show = |map: &BTreeMap<String, T>| {
                map.get(name)
                    .map(|value| show(name, value))
                    .unwrap_or_default()
            };
            // A path has dots of its own.
            let path = name.starts_with(['.', '~', '/']);
            let field = if path {
                format!("{field}[{name}]")
            } else {
                format!("{field}.{name}")
            };
            self.0.push(FieldChange {
                field,
                old: show(old),
                new: show(new),
            });
        }
    }
}

/// A value as it may be printed. An empty value is written `""`, so that it is not taken for an
/// absent one.
fn shown(name: &str, value: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if SECRET_WORDS.iter().any(|word| upper.contains(word)) {
        return MASK.to_owned();
    }
    if value.is_empty() {
        return "\"\"".to_owned();
    }
    without_passwords(value)
}

/// `scheme://user:password@host` keeps the user and loses the password.
fn without_passwords(value: &str) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("://") {
        result.push_str(before);
        result.push_str("://");
        let end = after.find(['/', '?', '#', ' ', ',']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority
            .rsplit_once('@')
            .map(|(login, host)| (login.split_once(':'), host))
        {
            Some((Some((user, _)), host)) => {
                result.extend([user, ":", MASK, "@", host]);
            }
            _ => result.push_str(authority),
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests;
