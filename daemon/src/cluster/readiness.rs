//! How far the parts of this machine work.

use uc_api::{Code, Failure};

/// Readiness of one part of the machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Stage {
    /// Not ready yet.
    #[default]
    Pending,
    /// It works.
    Ready,
    /// The last try failed. It is tried again.
    Failed(Failure),
}

/// Readiness of the parts that a machine needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Readiness {
    /// The tunnel has this machine's addresses.
    pub(crate) mesh: Stage,
    /// Other machines can talk to this daemon.
    pub(crate) listening: Stage,
    /// Containers have their network.
    pub(crate) network: Stage,
    /// Containers can look up names.
    pub(crate) dns: Stage,
}

impl Readiness {
    /// Whether all parts work.
    pub(crate) fn is_complete(&self) -> bool {
        self.parts()
            .iter()
            .all(|(_, stage)| **stage == Stage::Ready)
    }

    /// The first part that is not ready, with the reason.
    pub(crate) fn problem(&self) -> Option<Failure> {
        self.parts()
            .into_iter()
            .find_map(|(name, stage)| match stage {
                Stage::Ready => None,
                Stage::Pending => Some(Failure::new(
                    Code::TimedOut,
                    format!("{name} is not ready yet"),
                )),
                Stage::Failed(failure) => {
                    let message = format!("{name}: {}", failure.message);
                    Some(Failure {
                        message,
                        ..failure.clone()
                    })
                }
            })
    }

    /// The parts that are not ready, each with the reason.
    pub(crate) fn unready(&self) -> Vec<(&'static str, Failure)> {
        let parts = self.parts().into_iter();
        let unready = parts.filter_map(|(name, stage)| match stage {
            Stage::Ready => None,
            Stage::Pending => Some((name, Failure::new(Code::TimedOut, "not ready yet"))),
            Stage::Failed(failure) => Some((name, failure.clone())),
        });
        unready.collect()
    }

    fn parts(&self) -> [(&'static str, &Stage); 4] {
        [
            ("the mesh", &self.mesh),
            ("the listener for other machines", &self.listening),
            ("the container network", &self.network),
            ("DNS", &self.dns),
        ]
    }
}
