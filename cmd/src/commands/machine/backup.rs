//! `uc machine backup`

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::BackupRequest;

use crate::cli::Output;
use crate::connect::{Globals, within};
use crate::error::CliResult;
use crate::ui::Ui;
use crate::view;

/// Longer than the daemons give each other.
const LIMIT_S: u64 = 330;

/// Copy a machine's records to a file on its disk, while it runs
///
/// The file has the state of the whole cluster as that machine knows it at this moment: services
/// with their environment, machines, what runs where; no volumes, no images, no private keys. It is
/// written whole or not at all, readable by root alone, and never over another file. `uc` does not
/// fetch it; copy it to another place from there.
///
/// To go back to it on the same machine: `systemctl stop ucd`, put it in the place of
/// `/var/lib/uc/state.db` (and remove `state.db-wal` and `state.db-shm` beside that), `systemctl
/// start ucd`. What other machines have heard of since comes back from them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine backup                           of the machine uc is connected to
  uc machine backup m2 --to monday.db         /var/lib/uc/backups/monday.db on m2")]
pub(crate) struct BackupArgs {
    /// Its name, id, or the beginning of its id [default: the machine uc is connected to]
    machine: Option<String>,
    /// The file on that machine: a name in /var/lib/uc/backups, or a path from `/` where ucd may
    /// write [default: the time]
    #[arg(long, value_name = "FILE")]
    to: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: BackupArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let client = globals.client().await?;
    let machine = match &args.machine {
        None => String::new(),
        Some(text) => {
            let machines = super::list(&client).await?;
            super::find(&machines, text)?
                .machine
                .clone()
                .unwrap_or_default()
                .id
        }
    };
    let path = args
        .to
        .unwrap_or_else(|| format!("{:.0}.db", Timestamp::now()));
    let request = BackupRequest { machine, path };
    let done = client
        .cluster()
        .backup(within(LIMIT_S, request))
        .await?
        .into_inner();
    if args.output.is_json() {
        return ui.json(&view::Backup::from(&done));
    }
    let name = done.machine.unwrap_or_default().name;
    ui.out(&format!(
        "{} on {name}: {} bytes, blake3 {}",
        done.path, done.bytes, done.digest
    ))
}
