//! `uc ctx`

mod add;

use clap::{Args, Subcommand};

use crate::args::{Output, Yes};
use crate::config::Config;
use crate::connect::Globals;
use crate::error::{CliError, CliResult};
use crate::ui::{Cell, GREEN, Table, Ui};
use crate::{suggest, view};

/// Choose the cluster to talk to
///
/// A context is a cluster and the connections to its machines. `uc machine init` and `uc ctx add`
/// save one; `uc machine add` and `uc machine rm` update its connections. Without a command, this
/// lists the contexts and, on a terminal, asks which one to use.
#[derive(Debug, Args)]
pub(crate) struct CtxArgs {
    #[command(subcommand)]
    command: Option<CtxCommand>,
}

#[derive(Debug, Subcommand)]
enum CtxCommand {
    Add(add::AddArgs),
    /// List the contexts
    #[command(visible_alias = "list")]
    Ls(Output),
    /// Make a context the current one
    Use(UseArgs),
    /// Print the name of the current context
    Show(Output),
    /// Remove a context; the cluster is not affected
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
struct UseArgs {
    /// One of `uc ctx ls`
    name: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// One of `uc ctx ls`
    name: String,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: CtxArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let config = globals.load_config()?;
    globals.warn_of_unknown_keys(&config)?;
    match args.command {
        None => pick(&config, ui, globals).await,
        Some(CtxCommand::Add(args)) => add::run(args, ui, globals).await,
        Some(CtxCommand::Ls(output)) => ls(&config, output.is_json(), ui),
        Some(CtxCommand::Show(output)) => show(&config, output.is_json(), ui, globals),
        Some(CtxCommand::Use(args)) => {
            choose(&config, &args.name, args.output.is_json(), ui, globals)
        }
        Some(CtxCommand::Rm(args)) => remove(&config, &args, ui, globals).await,
    }
}

/// Lists the contexts and asks which one to use, if there is a choice and someone to ask.
async fn pick(config: &Config, ui: &Ui, globals: &Globals) -> CliResult {
    if !ui.interactive() || config.contexts.len() < 2 {
        ls(config, false, ui)?;
        if config.contexts.len() > 1 {
            ui.hint("choose one with `uc ctx use NAME`")?;
        }
        return Ok(());
    }
    let names: Vec<&String> = config.contexts.keys().collect();
    for (index, name) in names.iter().enumerate() {
        let current = config.current.as_ref() == Some(*name);
        let mark = if current { " (current)" } else { "" };
        ui.status(&format!("{:>3}  {name}{mark}", index + 1))?;
    }
    let number = ui.choose("Use which context?", names.len()).await?;
    choose(config, names[number - 1], false, ui, globals)
}

fn show(config: &Config, json: bool, ui: &Ui, globals: &Globals) -> CliResult {
    let Some(name) = globals.context.as_ref().or(config.current.as_ref()) else {
        return Err(CliError::usage("no context is the current one")
            .hint("choose one with `uc ctx use NAME`"));
    };
    let context = known(config, name)?;
    if json {
        ui.json(&context)
    } else {
        ui.out(name)
    }
}

fn ls(config: &Config, json: bool, ui: &Ui) -> CliResult {
    if json {
        return ui.json(&contexts(config));
    }
    if config.contexts.is_empty() {
        ui.status("no contexts yet")?;
        ui.hint("make a cluster with `uc machine init USER@HOST`")?;
        return ui.hint("or save a context for one that exists: `uc ctx add USER@HOST`");
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
    let names = config.contexts.keys();
    names.filter_map(|name| shown(config, name)).collect()
}

fn shown(config: &Config, name: &str) -> Option<view::Context> {
    let entry = |entry: &crate::config::Entry| view::ContextConnection {
        address: entry.address.clone(),
        ssh_key: entry
            .ssh_key
            .as_ref()
            .map(|path| path.display().to_string()),
        machine_id: entry.machine.clone(),
    };
    let context = config.contexts.get(name)?;
    Some(view::Context {
        name: name.to_owned(),
        current: config.current.as_deref() == Some(name),
        cluster_id: context.cluster.map(|cluster| cluster.to_string()),
        connections: context.connections.iter().map(entry).collect(),
    })
}

fn known(config: &Config, name: &str) -> CliResult<view::Context> {
    shown(config, name).ok_or_else(|| {
        let names = config.contexts.keys().map(String::as_str);
        CliError::usage(format!("context `{name}` not found")).hint(suggest::hint(name, names))
    })
}

fn choose(config: &Config, name: &str, json: bool, ui: &Ui, globals: &Globals) -> CliResult {
    let context = known(config, name)?;
    Config::update(&globals.config_path()?, |config| {
        config.current = Some(name.to_owned());
    })?;
    ui.status(&format!("`{name}` is the current context"))?;
    if json {
        ui.json(&view::Context {
            current: true,
            ..context
        })?;
    }
    Ok(())
}

async fn remove(config: &Config, args: &RmArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let context = known(config, &args.name)?;
    let question = format!(
        "Remove context `{}`? The cluster is not affected.",
        args.name
    );
    ui.confirm(&question, args.yes.yes, "removing a context")
        .await?;
    Config::update(&globals.config_path()?, |config| config.remove(&args.name))?;
    ui.status(&format!("removed context `{}`", args.name))?;
    if args.output.is_json() {
        ui.json(&context)?;
    }
    Ok(())
}
