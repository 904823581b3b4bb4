//! `uc machine`

mod add;
mod backup;
mod cordon;
mod drain;
mod init;
mod join;
mod label;
mod ls;
mod rename;
mod rm;
mod setup;
mod token;

use clap::Subcommand;
use uc_api::v1::{ListMachinesRequest, MachineRecord, MachineStatus};

use crate::answer::with_part;
use crate::connect::{Client, Globals, ask, within};
use crate::error::{CliError, CliResult};
use crate::suggest;
use crate::ui::Ui;

/// Shorter texts are not taken for the start of an id.
const MIN_ID: usize = 4;

/// Create a cluster, add and remove machines
#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    Init(init::InitArgs),
    Add(add::AddArgs),
    Join(join::JoinArgs),
    Ls(ls::LsArgs),
    Rename(rename::RenameArgs),
    Label(label::LabelArgs),
    Cordon(cordon::CordonArgs),
    Uncordon(cordon::UncordonArgs),
    Drain(drain::DrainArgs),
    Rm(rm::RmArgs),
    Token(token::TokenArgs),
    Backup(backup::BackupArgs),
}

pub(crate) async fn run(command: MachineCommand, ui: &Ui, globals: &Globals) -> CliResult {
    match command {
        MachineCommand::Init(args) => init::run(args, ui, globals).await,
        MachineCommand::Add(args) => add::run(args, ui, globals).await,
        MachineCommand::Join(args) => join::run(args, ui, globals).await,
        MachineCommand::Ls(args) => ls::run(args, ui, globals).await,
        MachineCommand::Rename(args) => rename::run(args, ui, globals).await,
        MachineCommand::Label(args) => label::run(args, ui, globals).await,
        MachineCommand::Cordon(args) => cordon::cordon(args, ui, globals).await,
        MachineCommand::Uncordon(args) => cordon::uncordon(args, ui, globals).await,
        MachineCommand::Drain(args) => drain::run(args, ui, globals).await,
        MachineCommand::Rm(args) => rm::run(args, ui, globals).await,
        MachineCommand::Token(args) => token::run(args, ui, globals).await,
        MachineCommand::Backup(args) => backup::run(args, ui, globals).await,
    }
}

/// The record of a machine and its state.
pub(crate) type Listed = (MachineRecord, MachineStatus);

pub(crate) async fn list(client: &Client) -> CliResult<Vec<Listed>> {
    let request = within(30, ListMachinesRequest {});
    let answer = ask(client.cluster().list_machines(request)).await?;
    with_part(answer.machines, "a machine", |status| status.machine.take())
}

/// The machine with this name, id, or unique beginning of an id.
fn find<'a>(machines: &'a [Listed], text: &str) -> CliResult<&'a Listed> {
    let names = || machines.iter().map(|(machine, _)| machine.name.as_str());
    if let Some(index) = names().position(|name| name == text) {
        return Ok(&machines[index]);
    }
    by_id(machines, text, "machines", |(machine, _)| &machine.id)?.ok_or_else(|| {
        CliError::usage(format!("machine `{text}` not found")).hint(suggest::hint(text, names()))
    })
}

/// The item with this id, or the only one whose id begins with this text.
fn by_id<'a, T>(
    items: &'a [T],
    text: &str,
    nouns: &str,
    id: impl Fn(&T) -> &String,
) -> CliResult<Option<&'a T>> {
    if let Some(exact) = items.iter().find(|item| id(item) == text) {
        return Ok(Some(exact));
    }
    if text.len() < MIN_ID {
        return Ok(None);
    }
    let mut matches = items.iter().filter(|item| id(item).starts_with(text));
    match (matches.next(), matches.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(CliError::usage(format!(
            "the ids of several {nouns} begin with `{text}`"
        ))),
    }
}

/// Warns that the config file on this computer does not show what the command did to the cluster.
fn warn_about_config(error: &CliError, hint: &str, ui: &Ui) -> CliResult {
    ui.warn(&format!(
        "the context on this computer was not updated: {}",
        error.with_causes()
    ))?;
    ui.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_found_by_name_id_and_beginning_of_id() {
        let machine = |id: &str, name: &str| {
            let record = MachineRecord {
                id: id.into(),
                name: name.into(),
                ..Default::default()
            };
            (record, MachineStatus::default())
        };
        let machines = [
            machine("aaaa1111", "web-1"),
            machine("aaaa2222", "web-2"),
            machine("bbbb3333", "aaaa"),
        ];
        let found = |text| find(&machines, text).map(|(machine, _)| machine.name.clone());
        assert_eq!(found("web-2").unwrap(), "web-2");
        assert_eq!(found("bbbb").unwrap(), "aaaa");
        assert_eq!(
            found("aaaa").unwrap(),
            "aaaa",
            "a name takes precedence over the beginning of an id"
        );
        assert!(found("aaaa1").is_ok());
        assert!(found("bbb").is_err(), "too short");
        let text = found("wbe-1").unwrap_err().render();
        assert!(text.contains("did you mean `web-1`?"), "{text}");
    }
}
