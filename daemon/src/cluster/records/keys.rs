//! Keys that name a machine and something on it.

use uc_api::MachineId;

/// A container that its machine has to remove.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OnMachine {
    pub(crate) machine: MachineId,
    /// Id of the container.
    pub(crate) container: String,
}

impl OnMachine {
    /// The key of its record.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.machine, self.container)
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        let (machine, container) = key.split_once('/')?;
        Some(Self {
            machine: machine.parse().ok()?,
            container: container.to_owned(),
        })
    }
}

/// A volume and the machine that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VolumeHome {
    pub(crate) machine: MachineId,
    pub(crate) volume: String,
}

impl VolumeHome {
    /// The key of its record.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.volume, self.machine)
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        let (volume, machine) = key.rsplit_once('/')?;
        Some(Self {
            machine: machine.parse().ok()?,
            volume: volume.to_owned(),
        })
    }
}
