//! `uc machine drain`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;
use uc_api::v1::plan_request::Change;
use uc_api::v1::{DrainMachine, MachineRecord, Plan, PlanRequest, PsRequest};

use super::cordon;
use crate::args::{Output, Yes};
use crate::commands::ps;
use crate::connect::{Client, Globals, ask, within};
use crate::error::{CliError, CliResult, Kind};
use crate::files::Contents;
use crate::rollout::{self, Action, Options, Report};
use crate::ui::{BOLD, DIM, Ui};
use crate::words::counted;
use crate::{picture, view};

/// Move all replicas from a machine to other machines, and cordon it
///
/// Shows the plan, asks, cordons the machine, and deploys project by project: a replica is removed
/// after its successor on another machine is healthy. Replicas of global services are removed.
///
/// Services whose volumes are on the machine stay there, and are listed (exit code 4), also if
/// another machine has a volume of that name: it has other data. Volumes whose driver or options
/// keep the data outside the machines hold nothing back.
///
/// If a service has no place on another machine, nothing is changed, and the machine is not
/// cordoned. The plans do not count the room that the other projects of the machine will need, so a
/// project can still be refused when its turn comes. If a deployment is refused or fails, that
/// project is as before, projects before it have moved, and the machine stays cordoned.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine drain m2             before maintenance of m2
  uc machine drain m2 --dry-run   show what would move
  uc machine uncordon m2          after it")]
pub(crate) struct DrainArgs {
    /// Name, id, or beginning of the id of the machine
    machine: String,
    /// Show the plan and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

/// The document of `-o json`.
#[derive(Serialize)]
struct Document {
    machine: view::MachineEntry,
    /// Services that stay, as `PROJECT/SERVICE`.
    staying: BTreeSet<String>,
    /// One for each project that has replicas on the machine.
    deployments: Vec<Report>,
}

/// One project's part of the drain.
struct Part {
    request: PlanRequest,
    plan: Plan,
}

pub(crate) async fn run(args: DrainArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let json = args.output.is_json();
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let (machine, _) = super::find(&machines, &args.machine)?;
    let found = services_on(&client, machine).await?;
    let mut parts = Vec::new();
    for project in found.keys() {
        parts.push(plan(&client, machine, project).await?);
    }
    let staying = staying(&found, &parts);
    let mut document = Document {
        machine: machine.into(),
        staying,
        deployments: Vec::new(),
    };
    show(ui, &client, &parts, args.dry_run && !json)?;
    let moves = parts.iter().any(|part| !picture::is_empty(&part.plan));
    if args.dry_run {
        let planned = parts
            .iter()
            .map(|part| Report::planned(&client, &part.plan));
        document.deployments = planned.collect();
    } else {
        if moves {
            let question = format!("Drain {} of {}?", machine.name, client.destination());
            ui.confirm(&question, args.yes.yes, "draining a machine")
                .await?;
        }
        let result = execute(ui, &client, machine, parts, &args, &mut document).await;
        if let Err(error) = result {
            let name = &machine.name;
            return Err(error
                .hint(format!(
                    "{name} stays cordoned: run `uc machine drain {name}` again, or end it with `uc machine uncordon {name}`"
                ))
                .with_json_of(&document));
        }
    }
    report(ui, machine, &document, args.dry_run, json)
}

/// The services with containers on the machine, by project.
async fn services_on(
    client: &Client,
    machine: &MachineRecord,
) -> CliResult<BTreeMap<String, BTreeSet<String>>> {
    let answer = ask(client.services().ps(within(30, PsRequest::default()))).await?;
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (replica, status) in ps::listed(answer.replicas)? {
        if status.machine_id == machine.id {
            found
                .entry(replica.project)
                .or_default()
                .insert(replica.service);
        }
    }
    Ok(found)
}

async fn plan(client: &Client, machine: &MachineRecord, project: &str) -> CliResult<Part> {
    let request = PlanRequest {
        change: Some(Change::Drain(DrainMachine {
            machine: machine.id.clone(),
            project: project.to_owned(),
        })),
    };
    let plan = ask(client.deploy().plan(within(60, request.clone()))).await;
    let plan = plan.map_err(|error| {
        error.hint(format!(
            "nothing was changed; without moving replicas, `uc machine cordon {}` keeps new ones away",
            machine.name
        ))
    })?;
    Ok(Part { request, plan })
}

/// The services on the machine that the plans leave out.
fn staying(found: &BTreeMap<String, BTreeSet<String>>, parts: &[Part]) -> BTreeSet<String> {
    let moves = |project: &str, service: &str| {
        let mut services = parts.iter().flat_map(|part| &part.plan.services);
        services.any(|planned| planned.project == project && planned.service == service)
    };
    let mut staying = BTreeSet::new();
    for (project, services) in found {
        let services = services.iter().filter(|service| !moves(project, service));
        staying.extend(services.map(|service| format!("{project}/{service}")));
    }
    staying
}

/// Prints the plans: on stdout if they are all that was asked for.
fn show(ui: &Ui, client: &Client, parts: &[Part], on_stdout: bool) -> CliResult {
    for Part { plan, .. } in parts {
        if picture::is_empty(plan) {
            plan.warnings.iter().try_for_each(|text| ui.warn(text))?;
            continue;
        }
        ui.status(&format!(
            "{DIM}plan for{DIM:#} {BOLD}{}{BOLD:#}",
            client.destination()
        ))?;
        let picture = picture::draw(plan);
        if on_stdout {
            ui.out(&picture)?;
        } else {
            ui.status(&picture)?;
        }
    }
    Ok(())
}

async fn execute(
    ui: &Ui,
    client: &Client,
    machine: &MachineRecord,
    parts: Vec<Part>,
    args: &DrainArgs,
    document: &mut Document,
) -> CliResult {
    if !cordon::is_cordoned(machine) {
        let cordoned = cordon::set(client, machine, true).await?;
        document.machine = (&cordoned).into();
    }
    for Part { request, plan } in parts {
        let options = Options {
            confirmed: Some(plan.digest),
            ..Options::new(Action::Drain, args.yes, args.output)
        };
        let (report, result) =
            rollout::carry_out(ui, client, request, &Contents::default(), &options).await;
        document.deployments.push(report);
        result?;
    }
    Ok(())
}

fn report(
    ui: &Ui,
    machine: &MachineRecord,
    document: &Document,
    dry_run: bool,
    json: bool,
) -> CliResult {
    let name = &machine.name;
    let staying: Vec<&str> = document.staying.iter().map(String::as_str).collect();
    if !dry_run && !staying.is_empty() {
        let count = counted(staying.len() as u64, "service stays", "services stay");
        let message = format!("{count} on {name}: {}", staying.join(", "));
        return Err(CliError::failed(message)
            .kind(Kind::Partial)
            .hint("move their volumes or remove them with `uc rm`; until then they continue to run there")
            .with_json_of(document));
    }
    if !dry_run {
        ui.status(&format!("{name} is cordoned and runs no replicas"))?;
    } else if document.deployments.is_empty() {
        ui.status(&format!("{name} has no replicas"))?;
    }
    if json {
        ui.json(document)?;
    }
    Ok(())
}
