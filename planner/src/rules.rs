//! What a service asks of a machine: Swarm's placement constraints, the platform, and the labels it
//! is spread over.
//!
//! A constraint that cannot be understood is an error, never passed over: a service must not run
//! where its file says it may not.

use std::borrow::Cow;

use uc_api::nearest::nearest;
use uc_api::v1::ServiceSpec;

use super::Machine;
use super::error::PlanError;

/// What constraints may be about, as people write it.
const FACTS: [&str; 6] = [
    "node.id",
    "node.hostname",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
    LABEL,
];
const LABEL: &str = "node.labels.";
/// All machines run it.
const OS: &str = "linux";
/// Swarm's roles. Here no machine is special: each has both.
const ROLES: [&str; 2] = ["manager", "worker"];

/// Something that is known of every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Id,
    Hostname,
    Role,
    Os,
    Arch,
    Label(String),
}

impl Fact {
    /// As Swarm: the names of facts in any case, those of labels as they are.
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        Some(match lower.as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => Self::Label(
                text.get(LABEL.len()..)
                    .filter(|key| lower.starts_with(LABEL) && !key.is_empty())?
                    .to_owned(),
            ),
        })
    }

    /// Its value on a machine; none where there is none, which equals nothing.
    pub(super) fn value<'m>(&self, machine: &'m Machine) -> Option<Cow<'m, str>> {
        let text = match self {
            Self::Id => return Some(machine.id.to_string().into()),
            Self::Hostname if machine.holds_name => machine.name.as_str(),
            Self::Hostname => return None,
            Self::Role => return None,
            Self::Os => OS,
            Self::Arch => machine.arch.as_str(),
            Self::Label(key) => machine.labels.get(key)?.as_str(),
        };
        (!text.is_empty()).then_some(text.into())
    }

    fn is(&self, machine: &Machine, wanted: &str) -> bool {
        match self {
            Self::Role => ROLES.iter().any(|role| role.eq_ignore_ascii_case(wanted)),
            Self::Arch => architecture(&machine.arch) == architecture(wanted),
            _ => self
                .value(machine)
                .is_some_and(|value| value.eq_ignore_ascii_case(wanted)),
        }
    }
}

/// One name for an architecture, of Docker's, of `uname`'s and of others.
fn architecture(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "amd64" | "x86_64" | "x86-64" => "amd64".to_owned(),
        "arm64" | "aarch64" => "arm64".to_owned(),
        "386" | "i386" | "i486" | "i586" | "i686" | "x86" => "386".to_owned(),
        "arm" | "armhf" | "armel" | "armv6l" | "armv7l" => "arm".to_owned(),
        other => other.to_owned(),
    }
}

/// `node.labels.disk == ssd`
#[derive(Debug, Clone, PartialEq, Eq)]
struct Constraint {
    fact: Fact,
    /// As it was written.
    name: String,
    equal: bool,
    value: String,
}

impl Constraint {
    fn parse(text: &str) -> Result<Self, Problem> {
        let operator = text.find("==").into_iter().chain(text.find("!=")).min();
        let Some((name, rest)) = operator.and_then(|at| text.split_at_checked(at)) else {
            return Err(Problem::new("it needs `==` or `!=`"));
        };
        let value = rest.get(2..).expect("it begins with the operator");
        let (name, value) = (name.trim(), value.trim());
        let fact = Fact::parse(name).ok_or_else(|| unknown(name))?;
        if value.is_empty() {
            return Err(Problem::new("it has no value after the operator"));
        }
        if fact == Fact::Role && !fact_is_role(value) {
            return Err(Problem {
                text: format!("unknown role `{value}`"),
                nearest: nearest(value, ROLES).map(str::to_owned),
            });
        }
        Ok(Self {
            fact,
            name: name.to_owned(),
            equal: rest.starts_with("=="),
            value: value.to_owned(),
        })
    }

    /// Why the machine is out, if it is.
    fn excludes(&self, machine: &Machine) -> Option<String> {
        if self.fact.is(machine, &self.value) == self.equal {
            return None;
        }
        let operator = if self.equal { "==" } else { "!=" };
        let what = format!("`{} {operator} {}`", self.name, self.value);
        Some(match (&self.fact, self.fact.value(machine)) {
            (Fact::Role, _) => format!("{what}, but every machine is both manager and worker"),
            (_, Some(value)) => format!("{what}, but it is `{value}`"),
            (Fact::Label(key), None) => format!("{what}, but it has no label `{key}`"),
            (_, None) => format!("{what}, but the machine does not report it"),
        })
    }
}

fn fact_is_role(value: &str) -> bool {
    ROLES.iter().any(|role| role.eq_ignore_ascii_case(value))
}

struct Problem {
    text: String,
    nearest: Option<String>,
}

impl Problem {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            nearest: None,
        }
    }
}

fn unknown(name: &str) -> Problem {
    if name.to_ascii_lowercase().starts_with("engine.labels.") {
        return Problem {
            text: "labels of the Docker engine are not available".to_owned(),
            nearest: name
                .get("engine.labels.".len()..)
                .map(|key| format!("{LABEL}{key}")),
        };
    }
    // A label is meant with the key it was written with.
    let label = name
        .rsplit_once('.')
        .map(|(_, key)| format!("{LABEL}{key}"));
    let candidates = FACTS
        .iter()
        .copied()
        .filter(|fact| *fact != LABEL)
        .chain(label.as_deref());
    Problem {
        text: format!("`{name}` is not a fact about machines"),
        nearest: nearest(name, candidates).map(str::to_owned),
    }
}

/// `linux/arm64`; of a variant nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Platform {
    text: String,
    os: String,
    /// Empty: any.
    arch: String,
}

impl Platform {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let first = parts.next().filter(|part| !part.is_empty())?;
        let known_os = ["linux", "windows", "darwin", "freebsd"]
            .contains(&first.to_ascii_lowercase().as_str());
        let (os, arch) = match parts.next() {
            Some(arch) => (first, arch),
            None if known_os => (first, ""),
            // As the engine reads it.
            None => (OS, first),
        };
        Some(Self {
            text: text.to_owned(),
            os: os.to_ascii_lowercase(),
            arch: arch.to_owned(),
        })
    }

    fn excludes(&self, machine: &Machine) -> Option<String> {
        let fits = self.os == OS
            && (self.arch.is_empty() || architecture(&self.arch) == architecture(&machine.arch));
        let arch = if machine.arch.is_empty() {
            "an unknown architecture".to_owned()
        } else {
            machine.arch.clone()
        };
        (!fits).then(|| format!("platform `{}`, but it is {OS} on {arch}", self.text))
    }
}

/// What a service asks of its machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    constraints: Vec<Constraint>,
    platform: Option<Platform>,
    /// What it is spread over, the most important first.
    pub(super) spread: Vec<Fact>,
}

impl Rules {
    /// Read from a spec.
    pub(super) fn of(spec: &ServiceSpec) -> Result<Self, PlanError> {
        let mut rules = Self {
            platform: Platform::parse(&spec.platform),
            ..Self::default()
        };
        let Some(placement) = &spec.placement else {
            return Ok(rules);
        };
        for text in &placement.constraints {
            let constraint = Constraint::parse(text).map_err(|problem| PlanError::Constraint {
                service: spec.name.clone(),
                constraint: text.clone(),
                problem: problem.text,
                nearest: problem.nearest,
            })?;
            rules.constraints.push(constraint);
        }
        for text in &placement.spread {
            let fact = Fact::parse(text.trim())
                .filter(|fact| *fact != Fact::Role)
                .ok_or_else(|| PlanError::Spread {
                    service: spec.name.clone(),
                    over: text.clone(),
                    nearest: unknown(text.trim()).nearest,
                })?;
            rules.spread.push(fact);
        }
        Ok(rules)
    }

    /// Why a machine may not run the service, if it may not.
    pub(super) fn excludes(&self, machine: &Machine) -> Option<String> {
        let by_constraint = self
            .constraints
            .iter()
            .find_map(|constraint| constraint.excludes(machine));
        by_constraint.or_else(|| self.platform.as_ref()?.excludes(machine))
    }
}

/// What may be in a constraint, for a hint.
pub(super) fn possible() -> String {
    format!(
        "{} and {LABEL}KEY can be compared by == and !=",
        FACTS.get(..FACTS.len() - 1).unwrap_or_default().join(", ")
    )
}

#[cfg(test)]
mod tests;
