//! The registration of a machine that is being added, and how it is undone.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};
use uc_api::MachineId;
use uc_api::v1::{
    AddMachineRequest, AddMachineResponse, JoinRequest, MachineRecord, RemoveMachineRequest,
    ResetRequest,
};

use crate::answer::Required as _;
use crate::commands::machine::setup;
use crate::connect::{self, Client, Globals, Route, within};
use crate::connection::SshTarget;
use crate::error::{self, CliError, CliResult};
use crate::ui::Ui;

/// How long a record may take to reach another machine of the cluster.
const REPLICATION_LIMIT: Duration = Duration::from_secs(5);
/// How often another machine is asked for a record that it did not have.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

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

    /// Has the cluster write the machine's record. Returns the record as well.
    pub(super) async fn register(
        &mut self,
        request: AddMachineRequest,
    ) -> CliResult<(AddMachineResponse, MachineRecord)> {
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
        let added = added?.into_inner();
        let record = added.machine.clone().required("a machine")?;
        let id: MachineId = record.id.parse().map_err(|error| {
            CliError::failed("the cluster returned an invalid machine id").source(error)
        })?;
        self.id = id.to_string();
        Ok((added, record))
    }

    /// Has the machine join the cluster that registered it. What the machine returns about itself
    /// is not used: the cluster's record counts.
    pub(super) async fn join(&mut self, request: JoinRequest) -> CliResult {
        // Set before the call: if it is dropped half-way, the machine may join.
        self.joining = true;
        let joined = self.machine.machine().join(within(120, request)).await;
        if let Err(status) = &joined {
            // A machine that refuses to join, or that fails to, has left by the time it answers.
            self.joining = is_undecided(status);
        }
        joined.map_err(|status| CliError::from(status).context("the machine could not join"))?;
        Ok(())
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
        if self.is_member().await? {
            self.reset().await?;
            if self.is_member().await? {
                return Err(CliError::failed("it still belongs to the cluster"));
            }
        }
        Ok(())
    }

    /// Whether the machine has the id that this registration gave it.
    async fn is_member(&self) -> CliResult<bool> {
        Ok(setup::info(self.machine).await?.machine_id == self.id)
    }

    /// Undoes the join of this registration. The machine may have entered another cluster in the
    /// meantime, where it has another id; it stays in it.
    async fn reset(&self) -> CliResult {
        let request = ResetRequest {
            machine_id: self.id.clone(),
        };
        self.machine.machine().reset(within(60, request)).await?;
        Ok(())
    }

    /// Removes the machine's record from the cluster, through a new connection if the one in use is
    /// broken. A record that does not exist is a success, if the machine that would have written it
    /// answers so. Another machine may not have received it yet.
    async fn remove_record(&self, route: &Route, globals: &Globals) -> CliResult {
        match self.cluster.cluster().remove_machine(self.removal()).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) if is_undecided(&status) => {}
            Err(status) => return Err(status.into()),
        }
        let again = connect::connect(route, globals).await?;
        let is_writer = again.machine_id.is_some() && again.machine_id == self.cluster.machine_id;
        let deadline = Instant::now() + REPLICATION_LIMIT;
        loop {
            match again.cluster().remove_machine(self.removal()).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::NotFound && is_writer => return Ok(()),
                Err(status) if status.code() == Code::NotFound && Instant::now() < deadline => {}
                Err(status) if status.code() == Code::NotFound => {
                    return Err(CliError::failed(format!(
                        "{} does not have its record, and {} does not answer",
                        again.destination().through(),
                        self.cluster.destination().through()
                    )));
                }
                Err(status) => return Err(status.into()),
            }
            sleep(RETRY_INTERVAL).await;
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
    // The transport reports a reset HTTP/2 stream as an internal error.
    error::is_lost_connection(status)
        || matches!(
            status.code(),
            Code::Unavailable
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unknown
                | Code::Internal
        )
}
