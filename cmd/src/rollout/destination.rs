//! Where a change goes, for the document of `-o json`, and the warning that the compose file at
//! hand is for another cluster.

use serde::Serialize;

use crate::connect::Destination;
use crate::error::CliResult;
use crate::ui::Ui;

/// A cluster and the machine through which `uc` talks to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Cluster {
    id: Option<String>,
    /// `None`: a connection was named, or this machine's own socket is used.
    context: Option<String>,
    machine: Option<String>,
    connection: String,
}

impl From<&Destination> for Cluster {
    fn from(destination: &Destination) -> Self {
        let Destination {
            context,
            cluster,
            machine,
            connection,
        } = destination;
        Self {
            id: cluster.as_ref().map(ToString::to_string),
            context: context.clone(),
            machine: machine.clone(),
            connection: connection.clone(),
        }
    }
}

/// Warns if a change goes to another context than the one that the compose file at hand names.
/// `file_context` is its `x-context`.
pub(crate) fn warn_about_context(
    destination: &Destination,
    file_context: Option<&str>,
    ui: &Ui,
) -> CliResult {
    match file_context {
        Some(wanted) if destination.context.as_deref() != Some(wanted) => ui.warn(&format!(
            "the compose file has `x-context: {wanted}`, but this command goes to {destination}"
        )),
        _ => Ok(()),
    }
}
