//! `uc conflicts`

mod ls;
mod settle;
mod show;

use clap::Subcommand;
use uc_api::id::short;
use uc_api::v1::{Conflict, ConflictSide, ListConflictsRequest};

use crate::connect::{Client, Globals, ask, within};
use crate::error::{CliError, CliResult};
use crate::suggest;
use crate::ui::{DIM, Ui};
use crate::words::counted;

/// Shorter texts are not taken for the start of an id.
const MIN_ID: usize = 4;

/// Show and resolve changes that conflict after a network split
///
/// Machines that cannot reach each other continue to work. If the same record, such as a service,
/// was changed on both sides, all machines use one of the changes once they are connected again:
/// the later one. The other is kept until you resolve the conflict.
///
/// `uc conflicts settle` resolves a conflict. So does any later change of the same record, such as
/// a `uc deploy` that changes the service.
#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Settle(settle::SettleArgs),
}

pub(crate) async fn run(command: ConflictsCommand, ui: &Ui, globals: &Globals) -> CliResult {
    match command {
        ConflictsCommand::Ls(args) => ls::run(args, ui, globals).await,
        ConflictsCommand::Show(args) => show::run(args, ui, globals).await,
        ConflictsCommand::Settle(args) => settle::run(args, ui, globals).await,
    }
}

/// Prints one line if there are conflicts. The command's own work matters more, so nothing is
/// printed if they cannot be listed.
pub(crate) async fn note(ui: &Ui, client: &Client) -> CliResult {
    let request = within(5, ListConflictsRequest {});
    let Ok(answer) = ask(client.conflicts().list(request)).await else {
        return Ok(());
    };
    if answer.conflicts.is_empty() {
        return Ok(());
    }
    let count = answer.conflicts.len() as u64;
    let text = counted(count, "record was changed", "records were changed");
    ui.status(&format!(
        "{DIM}{text} on both sides of a network split: see `uc conflicts ls`{DIM:#}"
    ))
}

async fn list(client: &Client) -> CliResult<Vec<Conflict>> {
    let request = within(30, ListConflictsRequest {});
    Ok(ask(client.conflicts().list(request)).await?.conflicts)
}

/// Finds a conflict by its id or the start of it, by `KIND/KEY`, or by a key that is unique.
fn find<'a>(conflicts: &'a [Conflict], text: &str) -> CliResult<&'a Conflict> {
    let exact = conflicts
        .iter()
        .find(|conflict| conflict.name == text || conflict.id == text);
    if let Some(conflict) = exact {
        return Ok(conflict);
    }
    let meant = |conflict: &&Conflict| {
        conflict.key == text || (text.len() >= MIN_ID && conflict.id.starts_with(text))
    };
    let found: Vec<&Conflict> = conflicts.iter().filter(meant).collect();
    match found.as_slice() {
        [conflict] => Ok(conflict),
        [] => Err(missing(conflicts, text)),
        several => {
            let names: Vec<&str> = several
                .iter()
                .map(|conflict| conflict.name.as_str())
                .collect();
            Err(
                CliError::usage(format!("`{text}` matches several conflicts"))
                    .hint(format!("name one of them: {}", names.join(", "))),
            )
        }
    }
}

fn missing(conflicts: &[Conflict], text: &str) -> CliError {
    let error = CliError::usage(format!("conflict `{text}` not found"));
    let is_id = text.len() >= MIN_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        return error
            .hint("it was resolved, or it has a new id because a version was added: see `uc conflicts ls`");
    }
    if conflicts.is_empty() {
        return error.hint("there are no conflicts");
    }
    error.hint(suggest::hint(
        text,
        conflicts.iter().map(|conflict| conflict.name.as_str()),
    ))
}

/// The machine on which it was written: its name, or the start of its id if it has left the
/// cluster.
fn machine(side: &ConflictSide) -> &str {
    if side.machine_name.is_empty() {
        short(&side.machine_id)
    } else {
        &side.machine_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_accepts_id_name_and_unique_key() {
        let conflict = |id: &str, kind: &str, key: &str| Conflict {
            id: id.into(),
            name: format!("{kind}/{key}"),
            kind: kind.into(),
            key: key.into(),
            ..Conflict::default()
        };
        let conflicts = [
            conflict("aaaa1111", "service", "shop/web"),
            conflict("aaaa2222", "service", "shop"),
            conflict("bbbb3333", "token", "shop"),
        ];
        let found = |text| find(&conflicts, text).map(|conflict| conflict.name.as_str());
        let hint = |text| find(&conflicts, text).unwrap_err().render();
        assert_eq!(found("bbbb3333").unwrap(), "token/shop");
        assert_eq!(found("bbbb").unwrap(), "token/shop");
        assert_eq!(found("service/shop").unwrap(), "service/shop");
        assert_eq!(found("shop/web").unwrap(), "service/shop/web");
        assert!(hint("shop").contains("name one of them: service/shop, token/shop"));
        assert!(hint("aaaa").contains("matches several conflicts"));
        assert!(hint("service/shop/wbe").contains("did you mean `service/shop/web`?"));
        assert!(hint("0123abcd").contains("it was resolved, or it has a new id"));
        assert!(
            find(&[], "service/x")
                .unwrap_err()
                .render()
                .contains("there are no conflicts")
        );
    }
}
