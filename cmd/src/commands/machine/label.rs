//! `uc machine label`

use std::collections::BTreeMap;

use clap::Args;
use uc_api::v1::{LabelMachineRequest, MachineRecord};

use crate::answer::Required as _;
use crate::args::Output;
use crate::connect::{Globals, ask, within};
use crate::error::{CliError, CliResult};
use crate::ui::Ui;
use crate::view;

/// Set, remove or print the labels of a machine
///
/// Labels control placement. `deploy.placement.constraints` such as `node.labels.disk == ssd`
/// restrict a service to matching machines, and `deploy.placement.preferences` such as `spread:
/// node.labels.zone` spread it over the values of a label. A change of labels moves nothing until
/// the next `uc deploy`. Without labels to set or remove, the command prints the machine's labels,
/// one per line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uc machine label m1 disk=ssd zone=a     set two labels
  uc machine label m1 zone-               remove one
  uc machine label m1                     print all")]
pub(crate) struct LabelArgs {
    /// Name, id, or beginning of the id of the machine
    machine: String,
    /// `KEY=VALUE` to set a label, `KEY-` to remove it; a key has up to 63 letters, digits and
    /// `.-_/`, a value up to 256 bytes
    #[arg(value_name = "LABEL")]
    labels: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: LabelArgs, ui: &Ui, globals: &Globals) -> CliResult {
    let (set, remove) = changes(&args.labels)?;
    let client = globals.client().await?;
    let machines = super::list(&client).await?;
    let (machine, _) = super::find(&machines, &args.machine)?;
    if args.labels.is_empty() {
        if args.output.is_json() {
            return ui.json(&view::MachineEntry::from(machine));
        }
        return ui.lines(&lines(machine));
    }
    let request = LabelMachineRequest {
        machine: machine.id.clone(),
        set,
        remove,
    };
    let answer = ask(client.cluster().label_machine(within(30, request))).await?;
    let changed = answer.machine.required("a machine")?;
    let name = &machine.name;
    ui.status(&match lines(&changed).as_slice() {
        [] => format!("{name} now has no labels"),
        labels => format!("labels of {name}: {}", labels.join(", ")),
    })?;
    if args.output.is_json() {
        ui.json(&view::MachineEntry::from(&changed))?;
    }
    Ok(())
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

/// What to set and what to remove. The daemon checks whether keys and values are valid.
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
                    CliError::usage(format!("`{label}` is not a label change")).hint(format!(
                        "write `{label}=VALUE` to set the label, or `{label}-` to remove it"
                    )),
                );
            }
        };
        if twice {
            return Err(CliError::usage(format!(
                "`{label}` changes a label that was given before"
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
    fn label_changes_are_split_into_set_and_remove() {
        let (set, remove) = read(&["disk=ssd", "zone-", "note=a=b-", "empty="]).unwrap();
        let set: Vec<_> = set
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(set, [("disk", "ssd"), ("empty", ""), ("note", "a=b-")]);
        assert_eq!(remove, ["zone"]);
    }

    #[test]
    fn label_change_without_value_or_given_twice_is_refused() {
        assert!(
            read(&["disk"])
                .unwrap_err()
                .contains("write `disk=VALUE` to set the label, or `disk-` to remove it")
        );
        assert!(read(&["a=1", "a=2"]).unwrap_err().contains("given before"));
        assert!(read(&["a-", "a-"]).unwrap_err().contains("given before"));
    }
}
