//! Why there is no plan, and what a person can do about it.

use thiserror::Error;
use uc_api::layout::MAX_REPLICAS;
use uc_api::name::NameError;
use uc_api::{Code, Failure};

use super::{and, rules};

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum PlanError {
    /// Also for a rollback: the daemon, which has the history, turns it into a deployment first.
    #[error("the request asks for nothing that can be planned")]
    NothingAsked,
    #[error(
        "service `{service}` wants {replicas} replicas, and a service can have at most {MAX_REPLICAS}"
    )]
    TooManyReplicas { service: String, replicas: u32 },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(
        "service `{service}` belongs to project `{found}`, but the deployment is of project `{project}`"
    )]
    OtherProject {
        service: String,
        found: String,
        project: String,
    },
    #[error("service `{service}` is defined twice")]
    ServiceTwice { service: String },
    #[error("service `{service}` has no image")]
    NoImage { service: String },
    #[error("the cluster has no machines")]
    NoMachines,
    #[error("machine `{machine}` not found")]
    NoSuchMachine { machine: String },
    #[error("service `{service}` is placed on machine `{machine}`, which does not exist")]
    UnknownMachine {
        service: String,
        machine: String,
        nearest: Option<String>,
    },
    #[error("service `{service}` depends on `{dependency}`, which does not exist")]
    UnknownDependency {
        service: String,
        dependency: String,
        nearest: Option<String>,
    },
    #[error("service `{service}` shares a namespace of `{shared}`, which does not exist")]
    UnknownShared {
        service: String,
        shared: String,
        nearest: Option<String>,
    },
    #[error(
        "service `{service}` shares a namespace of `{shared}`, but no machine is allowed to run both"
    )]
    SharedApart { service: String, shared: String },
    #[error(
        "service `{service}` shares a namespace of `{shared}`, which runs on no machine that is allowed to run it"
    )]
    SharedNowhere { service: String, shared: String },
    #[error("service `{service}`: placement constraint `{constraint}`: {problem}")]
    Constraint {
        service: String,
        constraint: String,
        problem: String,
        nearest: Option<String>,
    },
    #[error(
        "service `{service}` cannot be spread over `{over}`: it is not a label or fact of machines"
    )]
    Spread {
        service: String,
        over: String,
        nearest: Option<String>,
    },
    #[error("no machine is allowed to run service `{service}`: {}", few(machines))]
    NoMachineFits {
        service: String,
        machines: Vec<String>,
    },
    #[error(
        "no machine has room for a replica of service `{service}`: {}",
        few(machines)
    )]
    NoRoom {
        service: String,
        machines: Vec<String>,
    },
    #[error("services wait for each other: {}", cycle.join(" -> "))]
    DependencyCycle { cycle: Vec<String> },
    #[error("service `{service}` not found")]
    UnknownService {
        service: String,
        nearest: Option<String>,
    },
    #[error("project `{project}` not found")]
    UnknownProject {
        project: String,
        nearest: Option<String>,
    },
    #[error("`{service}` is ambiguous: {}", and(candidates))]
    AmbiguousService {
        service: String,
        candidates: Vec<String>,
    },
    #[error(
        "service `{service}` is global: it runs once on each eligible machine and cannot be scaled"
    )]
    ScaleGlobal { service: String },
    #[error("service `{service}` publishes port {port} twice")]
    PortTwice { service: String, port: String },
    #[error(
        "service `{service}` publishes port {port}, which `{holder}` already publishes on {machine}"
    )]
    PortTaken {
        service: String,
        port: String,
        machine: String,
        holder: String,
    },
    #[error(
        "{replicas} replicas of service `{service}` publish port {port}, but only {} can run it, and each machine has a port only once",
        and(machines)
    )]
    TooFewMachines {
        service: String,
        port: String,
        replicas: u32,
        machines: Vec<String>,
    },
    #[error("services exchange ports in a circle: {}", cycle.join(" -> "))]
    PortsTraded { cycle: Vec<String> },
    #[error(
        "volume `{volume}` of service `{service}` is only on {}, which is unreachable",
        and(machines)
    )]
    VolumeDown {
        service: String,
        volume: String,
        machines: Vec<String>,
    },
    #[error("volume `{volume}` of service `{service}` is external, but {} not have it", match machines.as_slice() {
        [] => "the machines do".to_owned(),
        [one] => format!("{one} does"),
        more => format!("{} do", and(more)),
    })]
    ExternalMissing {
        service: String,
        volume: String,
        machines: Vec<String>,
    },
    #[error("no machine is allowed to run service `{service}` and has its volumes: {}", places.join("; "))]
    VolumesApart {
        service: String,
        places: Vec<String>,
    },
    #[error(
        "services {} share volume `{volume}`, but no machine is allowed to run all of them",
        and(services)
    )]
    NoCommonMachine {
        volume: String,
        services: Vec<String>,
    },
    #[error(
        "volume `{volume}` of service `{service}` exists on {machine} with driver `{found}`, not `{wanted}`"
    )]
    VolumeDriver {
        service: String,
        volume: String,
        machine: String,
        found: String,
        wanted: String,
    },
    #[error(
        "volume `{volume}` is shared by the global service `{global}` and the replicated service `{replicated}`"
    )]
    VolumeOfBoth {
        volume: String,
        global: String,
        replicated: String,
    },
}

/// Of many machines the first few: a message is read in a terminal.
fn few(machines: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = machines.get(..SHOWN).unwrap_or(machines).join("; ");
    match machines.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more machines"),
    }
}

/// Whether one of these machines is closed for this reason.
fn is_about(machines: &[String], reason: &str) -> bool {
    let endings = [format!("({reason})"), format!("is {reason}")];
    let ends = |machine: &String| endings.iter().any(|ending| machine.ends_with(ending));
    machines.iter().any(ends)
}

impl PlanError {
    fn hint(&self) -> Option<String> {
        let did_you_mean = |nearest: &Option<String>, otherwise: &str| match nearest {
            Some(name) => format!("did you mean `{name}`? {otherwise}"),
            None => otherwise.to_owned(),
        };
        Some(match self {
            Self::NothingAsked | Self::Name(_) | Self::OtherProject { .. } | Self::ServiceTwice { .. } => return None,
            Self::NoImage { .. } => "give the service an `image` or a `build` section".into(),
            Self::NoMachines => "run `uc machine init` or `uc machine add` first".into(),
            Self::UnknownMachine { nearest, .. } => did_you_mean(nearest, "`uc machine ls` lists the machines"),
            Self::UnknownDependency { nearest, .. } => {
                did_you_mean(nearest, "name a service of the same compose file in `depends_on`")
            }
            Self::UnknownShared { nearest, .. } => {
                did_you_mean(nearest, "`service:NAME` names a service of the same compose file")
            }
            Self::SharedApart { .. } => "change the constraints, `x-machines` or volumes of one of them so that one machine can run both".into(),
            Self::SharedNowhere { shared, .. } => format!("let at least one replica of `{shared}` run on a machine that can run both"),
            Self::Constraint { nearest, .. } | Self::Spread { nearest, .. } => did_you_mean(nearest, &rules::possible()),
            Self::NoSuchMachine { .. } => "`uc machine ls` lists the machines".into(),
            Self::NoMachineFits { machines, .. } | Self::VolumesApart { places: machines, .. }
                if is_about(machines, "cordoned") =>
            {
                "let it take replicas again with `uc machine uncordon MACHINE`, or let another machine run the service".into()
            }
            Self::NoMachineFits { machines, .. } if is_about(machines, "drained") => {
                "add a machine, let another machine run the service, or remove it with `uc rm`".into()
            }
            Self::NoMachineFits { .. } => {
                "change `deploy.placement.constraints`, `platform` or `x-machines`, or label a machine: `uc machine label MACHINE KEY=VALUE`".into()
            }
            Self::NoRoom { .. } => {
                "lower `deploy.resources.reservations` or the number of replicas, raise `max_replicas_per_node`, or add a machine".into()
            }
            Self::DependencyCycle { .. } => "remove one of them from `depends_on`".into(),
            Self::UnknownService { nearest, .. } | Self::UnknownProject { nearest, .. } => {
                did_you_mean(nearest, "`uc ls` lists the services")
            }
            Self::AmbiguousService { candidates, .. } => {
                format!("include the project: `{}`", candidates.first().map_or("", String::as_str))
            }
            Self::ScaleGlobal { .. } => "set `deploy.mode: replicated` in the compose file and deploy it, or limit the machines with `x-machines`".into(),
            Self::TooManyReplicas { .. } => "is the number right?".into(),
            Self::PortTwice { .. } => "remove one of the two from `ports`".into(),
            Self::PortTaken { holder, .. } => {
                format!("publish another port, keep the two apart with `x-machines`, or remove the other: `uc rm {holder}`")
            }
            Self::TooFewMachines { .. } => {
                "lower the number of replicas, let more machines run it (`x-machines`; a volume keeps all replicas on its machine), or remove the published port".into()
            }
            Self::PortsTraded { .. } => "deploy twice: first without the port of one of them, then with all ports".into(),
            Self::VolumeDown { machines, .. } => format!(
                "bring {} back; or, if its data is lost, give the volume another name, because uc never creates a second, empty volume of the same name",
                and(machines)
            ),
            Self::ExternalMissing { volume, .. } => format!(
                "create it on a machine (`docker volume create {volume}`), limit the service with `x-machines` to machines that have it, or remove `external: true`"
            ),
            Self::VolumesApart { .. } => "change `x-machines` to a machine that has the volumes, or move them".into(),
            Self::NoCommonMachine { .. } => "change `x-machines` so that one machine can run all of them".into(),
            Self::VolumeDriver { .. } => "give the volume another name, or use the driver it has".into(),
            Self::VolumeOfBoth { .. } => "make both global or both replicated, or give each its own volume".into(),
        })
    }

    fn code(&self) -> Code {
        match self {
            Self::NothingAsked
            | Self::Name(_)
            | Self::OtherProject { .. }
            | Self::ServiceTwice { .. }
            | Self::NoImage { .. }
            | Self::UnknownDependency { .. }
            | Self::DependencyCycle { .. }
            | Self::AmbiguousService { .. }
            | Self::ScaleGlobal { .. }
            | Self::PortTwice { .. }
            | Self::TooManyReplicas { .. }
            | Self::VolumeOfBoth { .. }
            | Self::NoCommonMachine { .. }
            | Self::UnknownShared { .. }
            | Self::SharedApart { .. }
            | Self::Constraint { .. }
            | Self::Spread { .. } => Code::Invalid,
            Self::UnknownMachine { .. }
            | Self::NoSuchMachine { .. }
            | Self::UnknownService { .. }
            | Self::UnknownProject { .. } => Code::NotFound,
            Self::NoMachines
            | Self::NoMachineFits { .. }
            | Self::NoRoom { .. }
            | Self::SharedNowhere { .. }
            | Self::PortTaken { .. }
            | Self::PortsTraded { .. }
            | Self::TooFewMachines { .. }
            | Self::ExternalMissing { .. }
            | Self::VolumesApart { .. }
            | Self::VolumeDriver { .. } => Code::Refused,
            Self::VolumeDown { .. } => Code::Unreachable,
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let failure = Self::new(error.code(), error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
