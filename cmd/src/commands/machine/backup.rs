//! `uc machine backup`

use clap::Args;
use jiff::Timestamp;
use uc_api::v1::BackupRequest;

use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{Globals, ask, within};
use crate::error::CliResult;
use crate::ui::Ui;
use crate::view;

/// Longer than the daemons give each other.
const LIMIT_S: u64 = 330;

/// Back up the records of a machine to a file on its disk
///
/// The file has the state of the whole cluster as that machine knows it: services with their
/// environment, machines and containers. It has no volumes, images or private keys. Only root can
/// read it, and it never replaces another file.
///
/// The file stays on the machine, in /var/lib/uc/backups or where `--to` says. Copy it to another
/// place from there, for example with `scp`.
///
/// To restore it on the same machine, run there as root: (1) `systemctl stop ucd`; (2) `rm -f
/// /var/lib/uc/state.db-wal /var/lib/uc/state.db-shm`; (3) `cp FILE /var/lib/uc/state.db`; (4)
/// `systemctl start ucd`. Newer records come back from the other machines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine backup                           back up the machine that uc is connected to
  uc machine backup m2 --to monday.db         write /var/lib/uc/backups/monday.db on m2")]
pub(crate) struct BackupArgs {
    /// Name, id or start of the id of the machine [default: the one uc is connected to]
    machine: Option<String>,
    /// File on that machine: a name in /var/lib/uc/backups, or an absolute path that ucd can write
    /// to [default: the current time]
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
            let (machine, _) = super::find(&machines, text)?;
            machine.id.clone()
        }
    };
    let path = args
        .to
        .unwrap_or_else(|| format!("{:.0}.db", Timestamp::now()));
    let request = BackupRequest { machine, path };
    let done = ask(client.cluster().backup(within(LIMIT_S, request))).await?;
    let machine = done.machine.as_ref().required("a machine")?;
    if args.output.is_json() {
        return ui.json(&view::Backup::new(&done, machine));
    }
    ui.out(&format!(
        "{} on {}: {} bytes, blake3 {}",
        done.path, machine.name, done.bytes, done.digest
    ))
}
