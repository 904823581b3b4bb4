//! `uc conflicts`

mod ls;
mod settle;
mod show;

use clap::Subcommand;
use uc_api::id::short;
use uc_api::v1::{Conflict, ConflictSide, ListConflictsRequest};

use crate::connect::{Client, Globals, within};
use crate::error::{CliError, CliResult};
use crate::suggest;
use crate::ui::{DIM, Ui};

/// An id shortened to fewer digits than this is hardly meant as one.
const MIN_ID: usize = 4;

/// See and settle what was changed on two sides of a partition
///
/// Machines that cannot reach each other go on working. Where the same record (a service, a
/// machine's name) was changed on both sides, every machine goes by the later change once they meet
/// again, and keeps the other one until somebody settles it: with `uc conflicts settle`, or with
/// any later change of the same record, such as a `uc deploy` that changes the service.
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

/// One quiet line where there are conflicts. That they cannot be listed is no reason to fail, or to
/// say anything.
pub(crate) async fn note(ui: &Ui, client: &Client) -> CliResult {
    let Ok(answer) = client
        .conflicts()
        .list(within(5, ListConflictsRequest {}))
        .await
    else {
        return Ok(());
    };
    let text = match answer.into_inner().conflicts.len() {
        0 => return Ok(()),
        1 => "1 conflict".to_owned(),
        count => format!("{count} conflicts"),
    };
    ui.status(&format!("{DIM}{text}: `uc conflicts ls`{DIM:#}"))
}

async fn list(client: &Client) -> CliResult<Vec<Conflict>> {
    Ok(client
        .conflicts()
        .list(within(30, ListConflictsRequest {}))
        .await?
        .into_inner()
        .conflicts)
}

/// The conflict of this id (or its beginning), this `KIND/KEY`, or this key where only one kind has
/// it.
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
                CliError::usage(format!("several conflicts are meant by `{text}`"))
                    .hint(format!("say which: {}", names.join(" or "))),
            )
        }
    }
}

fn missing(conflicts: &[Conflict], text: &str) -> CliError {
    let error = CliError::usage(format!("there is no conflict `{text}`"));
    let is_id = text.len() >= MIN_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        return error
            .hint("it was settled, or one of its values changed, which makes it another: `uc conflicts ls`");
    }
    if conflicts.is_empty() {
        return error.hint("nothing is in conflict");
    }
    error.hint(suggest::hint(
        text,
        conflicts.iter().map(|conflict| conflict.name.as_str()),
    ))
}

/// Where it was written: the machine's name, or the beginning of its id where it is no member any
/// more.
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
    fn conflicts_are_found_by_id_name_and_key() {
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
            conflict("bbbb3333", "lock", "shop"),
        ];
        let found = |text| find(&conflicts, text).map(|conflict| conflict.name.as_str());
        let hint = |text| find(&conflicts, text).unwrap_err().render();
        assert_eq!(found("bbbb3333").unwrap(), "lock/shop");
        assert_eq!(found("bbbb").unwrap(), "lock/shop");
        assert_eq!(found("service/shop").unwrap(), "service/shop");
        assert_eq!(found("shop/web").unwrap(), "service/shop/web");
        assert!(hint("shop").contains("say which: service/shop or lock/shop"));
        assert!(hint("aaaa").contains("several conflicts"));
        assert!(hint("service/shop/wbe").contains("did you mean `service/shop/web`?"));
        assert!(hint("0123abcd").contains("settled, or one of its values changed"));
        assert!(
            find(&[], "service/x")
                .unwrap_err()
                .render()
                .contains("nothing is in conflict")
        );
    }
}
