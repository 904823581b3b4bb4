//! `uc ctx`

use clap::{Args, Subcommand};

use crate::cli::{Output, Yes};
use crate::config::Config;
use crate::connect::Globals;
use crate::error::{CliError, CliResult};
use crate::ui::{Cell, GREEN, Table, Ui};
use crate::{suggest, view};

/// Choose the cluster to talk to
///
/// A context is one cluster and the ways into it. `uc machine init` makes one, `uc machine add` and
/// `uc machine rm` keep its connections.
#[derive(Debug, Subcommand)]
pub(crate) enum CtxCommand {
    /// List the contexts
    #[command(visible_alias = "list")]
    Ls(Output),
    /// Make a context the current one
    Use(NameArgs),
    /// Print the name of the current context
    Show,
    /// Forget a context; the cluster itself is not touched
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// One of `uc ctx ls`
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// One of `uc ctx ls`
    name: String,
    #[command(flatten)]
    yes: Yes,
}

pub(crate) fn run(command: CtxCommand, ui: &Ui, globals: &Globals) -> CliResult {
    let config = globals.load_config()?;
    globals.warn_of_unknown_keys(&config)?;
    match command {
        CtxCommand::Ls(output) => ls(&config, output, ui),
        CtxCommand::Show => match globals.context.as_ref().or(config.current.as_ref()) {
            Some(name) => ui.out(name),
            None => Err(CliError::failed("there is no current context")
                .hint("choose one with `uc ctx use NAME`")),
        },
        CtxCommand::Use(args) => choose(&config, &args.name, ui, globals),
        CtxCommand::Rm(args) => remove(&config, &args, ui, globals),
    }
}

fn ls(config: &Config, output: Output, ui: &Ui) -> CliResult {
    if output.is_json() {
        return ui.json(&contexts(config));
    }
    if config.contexts.is_empty() {
        ui.status("no contexts yet")?;
        return ui.hint("`uc machine init USER@HOST` makes a cluster and its context");
    }
    let mut table = Table::new(&["NAME", "CURRENT", "CONNECTIONS"]).free_text(&["CONNECTIONS"]);
    for context in contexts(config) {
        let current = if context.current { "✓" } else { "" };
        let addresses: Vec<_> = context
            .connections
            .into_iter()
            .map(|entry| entry.address)
            .collect();
        table.row([
            context.name.into(),
            Cell::styled(current, GREEN),
            addresses.join(", ").into(),
        ]);
    }
    ui.table(&table)
}

fn contexts(config: &Config) -> Vec<view::Context> {
    let entry = |entry: &crate::config::Entry| view::ContextConnection {
        address: entry.address.clone(),
        ssh_key: entry
            .ssh_key
            .as_ref()
            .map(|path| path.display().to_string()),
        machine_id: entry.machine.clone(),
    };
    config
        .contexts
        .iter()
        .map(|(name, context)| view::Context {
            name: name.clone(),
            current: config.current.as_ref() == Some(name),
            connections: context.connections.iter().map(entry).collect(),
        })
        .collect()
}

fn known(config: &Config, name: &str) -> CliResult {
    if config.contexts.contains_key(name) {
        return Ok(());
    }
    let names = config.contexts.keys().map(String::as_str);
    Err(CliError::usage(format!("there is no context `{name}`")).hint(suggest::hint(name, names)))
}

fn choose(config: &Config, name: &str, ui: &Ui, globals: &Globals) -> CliResult {
    known(config, name)?;
    Config::update(&globals.config_path()?, |config| {
        config.current = Some(name.to_owned());
    })?;
    ui.status(&format!("current context: {name}"))
}

fn remove(config: &Config, args: &RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    known(config, &args.name)?;
    ui.confirm_now(
        &format!("Forget the context `{}`? Its cluster goes on.", args.name),
        args.yes.yes,
        "forgetting a context",
    )?;
    Config::update(&globals.config_path()?, |config| config.remove(&args.name))?;
    ui.status(&format!("context {} forgotten", args.name))
}
