//! `uc lock`

use clap::{Args, Subcommand};
use uc_api::id::short;
use uc_api::v1::{ListLocksRequest, Lock, ReleaseLockRequest};

use crate::args::{Output, Yes};
use crate::connect::{Client, Globals, ask, within};
use crate::error::{CliError, CliResult};
use crate::ui::{Table, Ui};
use crate::words::counted;
use crate::{suggest, times, view};

/// Show and release the locks of running deployments
///
/// A deployment locks its project on every machine that it reaches, so that no second deployment of
/// the project begins. It renews the lock while it runs, and releases it at its end. The lock of a
/// deployment whose machine died expires after a minute.
#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    Show(ShowArgs),
    Release(ReleaseArgs),
}

/// List the projects that are being deployed now
#[derive(Debug, Args)]
#[command(visible_aliases = ["ls", "list"])]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    output: Output,
}

/// Release the lock of a project, so that another deployment can begin
///
/// Does not stop a running deployment: it locks the project again within 15 seconds, unless another
/// deployment has locked it by then. Two deployments of one project at the same time can undo each
/// other's changes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc lock release shop      show the lock, ask, and release it on all machines
  uc lock release shop -y   release it without asking")]
pub(crate) struct ReleaseArgs {
    /// Project, as in `uc lock show`
    project: String,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(command: LockCommand, ui: &Ui, globals: &Globals) -> CliResult {
    match command {
        LockCommand::Show(args) => show(args, ui, globals).await,
        LockCommand::Release(args) => release(args, ui, globals).await,
    }
}

async fn show(args: ShowArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let locks = list(&client, ui).await?;
    if args.output.is_json() {
        return ui.json_list(locks.iter().map(view::Lock::from));
    }
    if locks.is_empty() {
        return ui.status("no deployment is running");
    }
    ui.table(&table(&locks))
}

async fn list(client: &Client, ui: &Ui) -> CliResult<Vec<Lock>> {
    let request = within(30, ListLocksRequest {});
    let answer = ask(client.deploy().list_locks(request)).await?;
    warn(&answer.warnings, ui)?;
    Ok(answer.locks)
}

fn warn(warnings: &[String], ui: &Ui) -> CliResult {
    warnings.iter().try_for_each(|warning| ui.warn(warning))
}

async fn release(args: ReleaseArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let locks = list(&client, ui).await?;
    let found: Vec<Lock> = locks
        .iter()
        .filter(|lock| lock.project == args.project)
        .cloned()
        .collect();
    if found.is_empty() {
        let projects = locks.iter().map(|lock| lock.project.as_str());
        let message = format!("no deployment of project `{}` is running", args.project);
        return Err(CliError::usage(message).hint(if locks.is_empty() {
            "no project is locked".to_owned()
        } else {
            suggest::hint(&args.project, projects)
        }));
    }
    ui.status(&table(&found).render())?;
    let question = format!(
        "Release the lock of {}, although a deployment of it may be running?",
        args.project
    );
    ui.confirm(&question, args.yes.yes, "releasing a lock")
        .await?;
    let request = ReleaseLockRequest {
        project: args.project.clone(),
    };
    let answer = ask(client.deploy().release_lock(within(30, request))).await?;
    warn(&answer.warnings, ui)?;
    if args.output.is_json() {
        return ui.json_list(answer.locks.iter().map(view::Lock::from));
    }
    let mut machines: Vec<&str> = answer
        .locks
        .iter()
        .flat_map(|lock| &lock.holders)
        .map(String::as_str)
        .collect();
    machines.sort_unstable();
    machines.dedup();
    let count = counted(machines.len() as u64, "machine", "machines");
    ui.status(&format!("released {} on {count}", args.project))
}

fn table(locks: &[Lock]) -> Table {
    let mut table = Table::new(&[
        "PROJECT",
        "EXECUTED BY",
        "DEPLOYMENT",
        "AGE",
        "STATE",
        "HELD ON",
    ])
    .free_text(&["HELD ON"]);
    for lock in locks {
        let seconds = i64::try_from(lock.age_ms / 1000).unwrap_or(i64::MAX);
        let machine = if lock.machine_name.is_empty() {
            short(&lock.machine_id)
        } else {
            &lock.machine_name
        };
        let state = if lock.confirmed { "held" } else { "asking" };
        table.row([
            lock.project.as_str().into(),
            machine.into(),
            lock.deployment_id.as_str().into(),
            times::rough(seconds).into(),
            state.into(),
            lock.holders.join(", ").into(),
        ]);
    }
    table
}
