//! Who answers on a connection, and whether that is the cluster the context is for.
//!
//! A context holds its cluster's id. A context written by an older `uc` has none. It then learns
//! the id, but only where the answer cannot come from another cluster: the machine has the id that
//! the context noted when the machine became a member (a machine gets a new id when it enters
//! another cluster), or the context has one connection only.

use tonic::Code;
use tonic::transport::Channel;
use uc_api::v1::machine_client::MachineClient;
use uc_api::v1::{IdentifyRequest, InfoRequest};
use uc_api::{ClusterId, MachineName, id};

use super::call::{CallMetadata, within};
use super::{Candidate, Route};
use crate::error::{CliError, CliResult, Kind};

/// Seconds for a daemon that has greeted to say which machine it is. It reads one small file.
const IDENTIFY_S: u64 = 10;

/// The machine at the other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None`: it is not in a cluster.
    pub(crate) cluster: Option<ClusterId>,
    /// Its id as a member. `None`: it is not in a cluster.
    pub(crate) machine: Option<String>,
    /// `None` if it is not in a cluster, or its daemon does not know its own name yet.
    pub(crate) machine_name: Option<String>,
}

/// What a machine's identity means for the context whose connection led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the context's cluster, or no context is used.
    Accepted,
    /// It is in the context's cluster, whose id the context does not have yet.
    Learn(ClusterId),
    /// Nothing shows that it is in the context's cluster, and nothing speaks against it.
    Unknown,
    /// It is in another cluster, or in none.
    Refused,
}

/// Asks the daemon which machine it is. A daemon that is too old for `Identify` is asked with
/// `Info`, which is slower because it asks Docker too.
pub(super) async fn identify(channel: &Channel) -> CliResult<Identity> {
    let mut client = MachineClient::with_interceptor(channel.clone(), CallMetadata::default());
    let (cluster, machine, name) = match client
        .identify(within(IDENTIFY_S, IdentifyRequest {}))
        .await
    {
        Ok(answer) => {
            let answer = answer.into_inner();
            (answer.cluster_id, answer.machine_id, answer.machine_name)
        }
        Err(status) if status.code() == Code::Unimplemented => {
            let answer = client
                .info(within(3 * IDENTIFY_S, InfoRequest {}))
                .await?
                .into_inner();
            (answer.cluster_id, answer.machine_id, answer.machine_name)
        }
        Err(status) => return Err(status.into()),
    };
    if cluster.is_empty() {
        return Ok(Identity::default());
    }
    let cluster = cluster.parse().map_err(|error: id::IdError| {
        CliError::failed("the daemon returned an invalid cluster id").source(error.to_string())
    })?;
    // The name is printed where the user confirms a change, so it must be a name.
    let name = Some(name).filter(|name| !name.is_empty());
    let name = name.map(|name| name.parse::<MachineName>()).transpose();
    let name = name.map_err(|error| {
        CliError::failed("the daemon returned an invalid machine name").source(error.to_string())
    })?;
    Ok(Identity {
        cluster: Some(cluster),
        machine: Some(machine),
        machine_name: name.map(|name| name.to_string()),
    })
}

/// Whether the machine that answers is in the context's cluster.
pub(super) fn judge(route: &Route, candidate: &Candidate, identity: &Identity) -> Verdict {
    if route.context.is_none() {
        return Verdict::Accepted;
    }
    let Some(cluster) = identity.cluster else {
        return Verdict::Refused;
    };
    match (route.cluster, &candidate.machine) {
        (Some(meant), _) if meant == cluster => Verdict::Accepted,
        (Some(_), _) => Verdict::Refused,
        (None, Some(_)) if candidate.machine == identity.machine => Verdict::Learn(cluster),
        (None, Some(_)) => Verdict::Refused,
        (None, None) if route.candidates.len() == 1 => Verdict::Learn(cluster),
        (None, None) => Verdict::Unknown,
    }
}

/// Why a connection of a context is not used.
pub(super) fn refused(route: &Route, candidate: &Candidate, identity: &Identity) -> CliError {
    let connection = &candidate.connection;
    let context = route
        .context
        .as_deref()
        .expect("without a context every machine is accepted");
    let short = |cluster: ClusterId| id::short(&cluster.to_string()).to_owned();
    let reason = match (identity.cluster, route.cluster) {
        (None, _) => "the machine is not in a cluster".to_owned(),
        (Some(theirs), Some(meant)) => format!(
            "the machine is in cluster {}, and context `{context}` is for cluster {}",
            short(theirs),
            short(meant)
        ),
        (Some(theirs), None) => format!(
            "the machine joined cluster {} after context `{context}` was saved",
            short(theirs)
        ),
    };
    CliError::new(Kind::Partial, format!("cannot use {connection}: {reason}")).hint(format!(
        "update the context through a machine of its cluster: `uc ctx add {context} USER@HOST`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(byte: u8) -> ClusterId {
        ClusterId::from_bytes([byte; 16])
    }

    fn member(byte: u8, machine: &str) -> Identity {
        Identity {
            cluster: Some(cluster(byte)),
            machine: Some(machine.into()),
            machine_name: None,
        }
    }

    /// `machines`: the machine id of each connection; the first one answers.
    fn verdict(known: Option<u8>, machines: &[Option<&str>], identity: &Identity) -> Verdict {
        let candidates = machines.iter().map(|machine| Candidate {
            connection: "ssh://root@h".parse().unwrap(),
            machine: machine.map(Into::into),
        });
        let route = Route {
            context: Some("prod".into()),
            cluster: known.map(cluster),
            candidates: candidates.collect(),
        };
        judge(&route, &route.candidates[0], identity)
    }

    #[test]
    fn judge_with_known_cluster_compares_clusters() {
        assert_eq!(
            verdict(Some(1), &[None, None], &member(1, "a")),
            Verdict::Accepted
        );
        // A machine that left and came back has another id; its cluster is what counts.
        assert_eq!(
            verdict(Some(1), &[Some("old")], &member(1, "new")),
            Verdict::Accepted
        );
        assert_eq!(
            verdict(Some(1), &[Some("a")], &member(2, "a")),
            Verdict::Refused
        );
        assert_eq!(
            verdict(Some(1), &[Some("a")], &Identity::default()),
            Verdict::Refused
        );
    }

    #[test]
    fn judge_without_known_cluster_learns_only_from_the_noted_machine_or_a_single_connection() {
        let learn = Verdict::Learn(cluster(1));
        assert_eq!(
            verdict(None, &[Some("a"), Some("b")], &member(1, "a")),
            learn
        );
        assert_eq!(verdict(None, &[None], &member(1, "a")), learn);
        assert_eq!(
            verdict(None, &[None, None], &member(1, "a")),
            Verdict::Unknown
        );
        assert_eq!(
            verdict(None, &[Some("a")], &member(1, "b")),
            Verdict::Refused
        );
        assert_eq!(
            verdict(None, &[None], &Identity::default()),
            Verdict::Refused
        );
    }

    #[test]
    fn judge_without_context_accepts_every_machine() {
        let candidate = Candidate::from(
            "ssh://root@h"
                .parse::<crate::connection::Connection>()
                .unwrap(),
        );
        let route = Route::to(candidate.connection.clone());
        for identity in [Identity::default(), member(1, "a")] {
            assert_eq!(judge(&route, &candidate, &identity), Verdict::Accepted);
        }
    }
}
