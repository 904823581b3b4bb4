//! The registration of a machine that is being added, and how it is undone.

use tonic::{Code, Request, Status};
use uc_api::v1::{
    AddMachineRequest, AddMachineResponse, JoinRequest, MachineRecord, RemoveMachineRequest,
    ResetRequest,
};

use crate::commands::machine::setup;
use crate::connect::{self, Client, Globals, Route, within};
use crate::connection::SshTarget;
use crate::error::{CliError, CliResult};
use crate::ui::Ui;

/// A machine on its way into the cluster.
pub(super) struct Registration<'a> {
    cluster: &'a Client,
    machine: &'a Client,
    /// The id that the machine has in the cluster once it is registered.
    id: String,
    name: String,
    /// The cluster may have a record of the machine.
    registered: bool,
    /// The machine may have joined.
    joining: bool,
}

impl<'a> Registration<'a> {
    pub(super) fn new(
        cluster: &'a Client,
        machine: &'a Client,
        request: &AddMachineRequest,
    ) -> Self {
        Self {
            cluster,
            machine,
            id: request.machine_id.clone(),
            name: request.name.clone(),
            registered: false,
            joining: false,
        }
    }

    /// Has the cluster write the machine's record.
    pub(super) async fn register(
        &mut self,
        request: AddMachineRequest,
    ) -> CliResult<AddMachineResponse> {
        // Set before the call: if it is dropped half-way, the record may exist.
        self.registered = true;
        let added = self
            .cluster
            .cluster()
            .add_machine(within(30, request))
            .await;
        if let Err(status) = &added {
            self.registered = is_undecided(status);
        }
        Ok(added?.into_inner())
    }

    /// Has the machine join the cluster that registered it.
    pub(super) async fn join(&mut self, request: JoinRequest) -> CliResult<MachineRecord> {
        self.joining = true;
        let joined = self.machine.machine().join(within(120, request)).await;
        let joined = joined
            .map_err(|status| CliError::from(status).context("the machine could not join"))?;
        Ok(joined.into_inner().machine.unwrap_or_default())
    }

    /// Leaves the cluster and the machine as they were before the registration.
    pub(super) async fn roll_back(
        self,
        route: &Route,
        globals: &Globals,
        target: &SshTarget,
        ui: &Ui,
    ) -> CliResult {
        if !self.registered {
            return Ok(());
        }
        let reset = self.reset_machine().await;
        match self.remove_record(route, globals).await {
            Ok(()) => ui.status("rolled back: the machine was not added")?,
            Err(error) => {
                ui.warn(&format!(
                    "{} may still be in the cluster's list of machines: {}",
                    self.name, error.message
                ))?;
                ui.hint(&format!(
                    "check with `uc machine ls`, and remove it with `uc machine rm --no-reset {}`",
                    self.name
                ))?;
            }
        }
        if let Err(error) = reset {
            ui.warn(&format!(
                "{target} may still believe that it is in the cluster: {}",
                error.message
            ))?;
            ui.hint("run `sudo ucd reset --yes` on it before you add it again")?;
        }
        Ok(())
    }

    /// Makes the machine forget the cluster. A reset also ends a join that is still running.
    async fn reset_machine(&self) -> CliResult {
        if !self.joining {
            return Ok(());
        }
        self.reset().await?;
        // A join that the machine had not started when the reset arrived may have started since.
        if !setup::info(self.machine).await?.cluster_id.is_empty() {
            self.reset().await?;
        }
        Ok(())
    }

    async fn reset(&self) -> CliResult {
        // The machine may have entered another cluster in the meantime, where it has another id.
        let request = ResetRequest {
            machine_id: self.id.clone(),
        };
        self.machine.machine().reset(within(60, request)).await?;
        Ok(())
    }

    /// Removes the machine's record from the cluster, through a new connection if the one in use is
    /// broken. A record that does not exist is a success.
    async fn remove_record(&self, route: &Route, globals: &Globals) -> CliResult {
        let mut removed = self.cluster.cluster().remove_machine(self.removal()).await;
        if removed.as_ref().is_err_and(is_undecided) {
            let again = connect::connect(route, globals).await?;
            removed = again.cluster().remove_machine(self.removal()).await;
        }
        match removed {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(CliError::from(status)),
        }
    }

    fn removal(&self) -> Request<RemoveMachineRequest> {
        let request = RemoveMachineRequest {
            machine: self.id.clone(),
            no_reset: true,
        };
        within(30, request)
    }
}

/// Whether the call broke off, so that it may or may not have had its effect. All other statuses
/// are refusals of the daemon, which changes nothing then.
fn is_undecided(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown
    )
}
