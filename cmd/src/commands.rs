//! The list of commands. Each has a file with its arguments (their doc comments are the help text)
//! and one function that runs it.

pub(crate) mod build;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod conflicts;
pub(crate) mod ctx;
pub(crate) mod deploy;
pub(crate) mod deployments;
pub(crate) mod dial_stdio;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod history;
pub(crate) mod inspect;
pub(crate) mod lock;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod machine;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod rollback;
pub(crate) mod scale;
pub(crate) mod version;

use std::future::Future;

use clap::{Args, Subcommand};

use crate::connect::Globals;
use crate::error::{CliError, CliResult};
use crate::interrupt;
use crate::ui::Ui;

/// The commands, in the order of the help text.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Deploy(deploy::DeployArgs),
    Plan(deploy::PlanArgs),
    Ps(ps::PsArgs),
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    Logs(logs::LogsArgs),
    Exec(exec::ExecArgs),
    Scale(scale::ScaleArgs),
    Rm(rm::RmArgs),
    History(history::HistoryArgs),
    Rollback(rollback::RollbackArgs),
    #[command(subcommand, visible_alias = "deployment")]
    Deployments(deployments::DeploymentsCommand),
    Build(build::BuildArgs),
    Config(config::ConfigArgs),
    #[command(subcommand, visible_alias = "m")]
    Machine(machine::MachineCommand),
    #[command(subcommand, visible_alias = "conflict")]
    Conflicts(conflicts::ConflictsCommand),
    #[command(subcommand)]
    Lock(lock::LockCommand),
    Doctor(doctor::DoctorArgs),
    #[command(visible_alias = "context")]
    Ctx(ctx::CtxArgs),
    Version(version::VersionArgs),
    Completion(completion::CompletionArgs),
    DialStdio(dial_stdio::DialStdioArgs),
    Help(HelpArgs),
}

/// Print the help of a command
//
// Hidden, since `--help` is what the help text names. clap's own `help` would be listed in every
// group of commands.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct HelpArgs {
    /// The command, such as `deploy` or `machine add` [default: all commands]
    #[arg(value_name = "COMMAND")]
    pub(crate) words: Vec<String>,
}

/// Runs one command and returns its exit code. `definition` makes the definition of the command
/// line.
pub(crate) fn run(
    command: Command,
    definition: fn() -> clap::Command,
    ui: &Ui,
    globals: &Globals,
) -> CliResult<u8> {
    match command {
        // These talk to no daemon, so they start no runtime.
        Command::Completion(args) => done(completion::run(&args, definition(), ui)),
        Command::DialStdio(args) => done(dial_stdio::run(&args)),
        Command::Config(args) => done(config::run(&args, ui)),
        command => block_on(run_with_daemon(command, ui, globals)),
    }
}

fn done(result: CliResult) -> CliResult<u8> {
    result.map(|()| 0)
}

async fn run_with_daemon(command: Command, ui: &Ui, globals: &Globals) -> CliResult<u8> {
    match command {
        Command::Exec(args) => return exec::run(args, ui, globals).await,
        Command::Doctor(args) => return doctor::run(args, ui, globals).await,
        Command::Plan(args) => return deploy::plan(args, ui, globals).await,
        Command::Version(args) => version::run(args, ui, globals).await?,
        Command::Build(args) => build::run(args, ui).await?,
        Command::Deploy(args) => deploy::run(args, ui, globals).await?,
        Command::Ps(args) => ps::run(args, ui, globals).await?,
        Command::Ls(args) => ls::run(args, ui, globals).await?,
        Command::Inspect(args) => inspect::run(args, ui, globals).await?,
        Command::Logs(args) => logs::run(args, ui, globals).await?,
        Command::Scale(args) => scale::run(args, ui, globals).await?,
        Command::Rm(args) => rm::run(args, ui, globals).await?,
        Command::History(args) => history::run(args, ui, globals).await?,
        Command::Rollback(args) => rollback::run(args, ui, globals).await?,
        Command::Deployments(command) => deployments::run(command, ui, globals).await?,
        Command::Machine(command) => machine::run(command, ui, globals).await?,
        Command::Ctx(args) => ctx::run(args, ui, globals).await?,
        Command::Lock(command) => lock::run(command, ui, globals).await?,
        Command::Conflicts(command) => conflicts::run(command, ui, globals).await?,
        Command::Completion(_)
        | Command::DialStdio(_)
        | Command::Config(_)
        // The parser has printed the help.
        | Command::Help(_) => {}
    }
    Ok(0)
}

/// Runs a command on one thread, which is enough for one connection.
fn block_on(work: impl Future<Output = CliResult<u8>>) -> CliResult<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start the async runtime").source(error))?;
    let result = runtime.block_on(interrupt::run(work));
    // Do not wait for a thread that is blocked reading stdin.
    runtime.shutdown_background();
    result
}
