//! `uc machine label`

use std::collections::BTreeMap;

use clap::Args;
use uc_api::v1::{LabelMachineRequest, MachineRecord};

use crate::connect::{Globals, within};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;

/// Label a machine, for placement
///
/// A service goes only where its `deploy.placement.constraints` hold, such as `node.labels.disk ==
/// ssd`, and `deploy.placement.preferences` spread it over the values of a label, such as `spread:
/// node.labels.zone`. A change of labels moves nothing by itself: the next `uc deploy` does.
/// Without labels to set or remove, the machine's labels are printed, one a line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine label m1 disk=ssd zone=a     set two labels
  uc machine label m1 zone-               remove one
  uc machine label m1                     print all")]
pub(crate) struct LabelArgs {
    /// Its name, id, or the beginning of its id
    machine: String,
    /// `KEY=VALUE` sets a label, `KEY-` removes it; a key is up to 63 letters, digits and `.-_/`,
    /// a value up to 256 bytes
    #[arg(value_name = "LABEL")]
    labels: Vec<String>,
}

pub(crate) async fn run(args: LabelArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let (set, remove) = changes(&args.labels)?;
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let machine = super::find(&machines, &args.machine)?
        .machine
        .clone()
        .unwrap_or_default();
    if args.labels.is_empty() {
        for line in lines(&machine) {
            ui.out(&line)?;
        }
        return Ok(());
    }
    let request = LabelMachineRequest {
        machine: machine.id.clone(),
        set,
        remove,
    };
    let answer = client
        .cluster()
        .label_machine(within(30, request))
        .await?
        .into_inner();
    let now = answer.machine.unwrap_or_default();
    let name = &machine.name;
    ui.status(&match lines(&now).as_slice() {
        [] => format!("{name} has no labels now"),
        labels => format!("{name} has {} now", labels.join(", ")),
    })
}

/// `KEY=VALUE`, by key.
pub(super) fn lines(machine: &MachineRecord) -> Vec<String> {
    machine
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

type Changes = (BTreeMap<String, String>, Vec<String>);

/// What to set and what to remove; whether keys and values are possible is the daemon's to say.
fn changes(labels: &[String]) -> CliResult<Changes> {
    let (mut set, mut remove) = Changes::default();
    for label in labels {
        let twice = match (label.split_once('='), label.strip_suffix('-')) {
            (Some((key, value)), _) => set.insert(key.to_owned(), value.to_owned()).is_some(),
            (None, Some(key)) => {
                let twice = remove.iter().any(|other| other == key);
                remove.push(key.to_owned());
                twice
            }
            (None, None) => {
                return Err(
                    CliError::usage(format!("`{label}` neither sets nor removes a label"))
                        .hint(format!("`{label}=VALUE` sets it, `{label}-` removes it")),
                );
            }
        };
        if twice {
            return Err(CliError::usage(format!(
                "the label of `{label}` is given twice"
            )));
        }
    }
    Ok((set, remove))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[&str]) -> Result<Changes, String> {
        changes(
            &labels
                .iter()
                .map(|label| (*label).to_owned())
                .collect::<Vec<_>>(),
        )
        .map_err(|error| error.render())
    }

    #[test]
    fn labels_are_set_and_removed() {
        let (set, remove) = read(&["disk=ssd", "zone-", "note=a=b-", "empty="]).unwrap();
        let set: Vec<_> = set
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(set, [("disk", "ssd"), ("empty", ""), ("note", "a=b-")]);
        assert_eq!(remove, ["zone"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(
            read(&["disk"])
                .unwrap_err()
                .contains("`disk=VALUE` sets it, `disk-` removes it")
        );
        assert!(read(&["a=1", "a=2"]).unwrap_err().contains("given twice"));
        assert!(read(&["a-", "a-"]).unwrap_err().contains("given twice"));
    }
}
