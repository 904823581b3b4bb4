//! Moves containers to the network that takes the place of the present one. They continue to run.
//!
//! The network cannot be removed while containers are on it, so there is a moment in which they are
//! on none. They are written to a file before ([`Journal`]), and the file is removed when all are
//! connected again. A container that cannot be moved is logged, stays in the file for the next
//! attempt, and holds up no other.
//!
//! A container between two restarts is stopped for the move and then started: the engine reports it
//! as running, but it has no endpoint that could be moved, and it would be started with the old
//! network. So is a container whose connection fails, for example because another process has taken
//! its port: the engine leaves half of the connection behind, which only a stop removes.
//!
//! A fixed MAC address is given to the engine again. Engines before 29.3 ignore it
//! (<https://github.com/moby/moby/pull/52040>), and no engine reports that of a stopped container.

mod journal;

use std::net::Ipv4Addr;
use std::path::Path;

use bollard::Docker;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, EndpointSettings, NetworkConnectRequest,
    NetworkDisconnectRequest,
};
use bollard::query_parameters::StopContainerOptions;
use uc_api::layout::DOCKER_NETWORK;

use self::journal::{Journal, Moved};
use super::{Attached, DockerError, NetworkError, inspect, is_not_found, limited};

/// Seconds that a container gets to end when it must be stopped for the move.
const STOP_S: i32 = 10;

/// Takes the containers off the network. Fails only if the journal cannot be kept.
pub(super) async fn disconnect(
    docker: &Docker,
    containers: &[Attached],
    journal: &Path,
) -> Result<(), NetworkError> {
    // Those of an attempt that was cut short are on no network.
    let mut journal = Journal::read(journal)?;
    for Attached { id, name } in containers {
        match look(docker, id).await {
            Ok(None) => {}
            Ok(Some(found)) => journal.add(id, found.mac_address),
            Err(error) => {
                tracing::warn!(container = %name, %error, "cannot look at a container that is moved");
                journal.add(id, None);
            }
        }
    }
    journal.save()?;
    for Attached { id, name } in containers {
        if let Some(index) = journal.index_of(id)
            && let Err(error) = leave(docker, &mut journal, index).await?
        {
            tracing::warn!(container = %name, %error, "cannot take a container off its network");
        }
    }
    Ok(())
}

/// Connects the containers of the journal, if there is one. Those that cannot be connected stay in
/// it. Fails only if the journal cannot be kept.
pub(super) async fn reconnect(docker: &Docker, journal: &Path) -> Result<(), NetworkError> {
    let mut journal = Journal::read(journal)?;
    if journal.is_empty() || inspect(docker).await?.is_none() {
        return Ok(());
    }
    let mut failed = Vec::new();
    for index in 0..journal.len() {
        let entered = enter(docker, &mut journal, index).await?;
        if let Err((name, error)) = entered {
            tracing::warn!(container = %name, %error, "cannot connect a container to its new network; it is tried again");
            failed.push(index);
        }
    }
    journal.keep_only(&failed)
}

/// What matters of a container that is moved.
struct Found {
    name: String,
    /// Also while it waits to be restarted.
    running: bool,
    restarting: bool,
    /// The one that it was given; `None` also if the engine does not report it.
    mac_address: Option<String>,
}

/// Looks at a container; `None` if it is gone, or about to be.
async fn look(docker: &Docker, id: &str) -> Result<Option<Found>, NetworkError> {
    let call = docker.inspect_container(id, None);
    let container = match limited("look at a container", call).await {
        Ok(container) => container,
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Found::of(id, container))
}

impl Found {
    fn of(id: &str, container: ContainerInspectResponse) -> Option<Self> {
        let state = container.state?;
        let removed = matches!(
            state.status,
            Some(ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::REMOVING)
        );
        if removed || state.dead == Some(true) {
            return None;
        }
        let networks = container.network_settings.and_then(|all| all.networks);
        let endpoint = networks.and_then(|mut all| all.remove(DOCKER_NETWORK));
        Some(Self {
            name: container.name.map_or_else(
                || id.to_owned(),
                |name| name.trim_start_matches('/').to_owned(),
            ),
            running: state.running == Some(true),
            restarting: state.restarting == Some(true),
            mac_address: endpoint.as_ref().and_then(given_mac_address),
        })
    }
}

/// The MAC address that the container was given. Engines before 28 make others from the IP address,
/// which another container may have next.
fn given_mac_address(endpoint: &EndpointSettings) -> Option<String> {
    let mac = endpoint.mac_address.clone().filter(|mac| !mac.is_empty())?;
    let ip: Option<Ipv4Addr> = endpoint.ip_address.as_ref().and_then(|ip| ip.parse().ok());
    let made = ip.map(|ip| {
        let [a, b, c, d] = ip.octets();
        format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    });
    (made.as_ref() != Some(&mac)).then_some(mac)
}

/// A result for one container, inside one that concerns them all.
type OfOne<T, E> = Result<Result<T, E>, NetworkError>;

async fn leave(docker: &Docker, journal: &mut Journal, index: usize) -> OfOne<(), NetworkError> {
    let id = journal.get(index).id.clone();
    let found = match look(docker, &id).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error)),
    };
    if !found.restarting {
        match disconnect_one(docker, &id).await {
            // It may have ended in the meantime, and waits to be restarted.
            Err(error) if found.running && is_refusal(&error) => {
                tracing::info!(container = %found.name, %error, "stopping a container to move it");
            }
            other => return Ok(other),
        }
    }
    journal.note_start(index)?;
    if let Err(error) = stop(docker, &id).await {
        return Ok(Err(error));
    }
    Ok(disconnect_one(docker, &id).await)
}

async fn enter(
    docker: &Docker,
    journal: &mut Journal,
    index: usize,
) -> OfOne<(), (String, NetworkError)> {
    let moved = journal.get(index).clone();
    let found = match look(docker, &moved.id).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err((moved.id, error))),
    };
    let name = found.name;
    let of_this = |error: NetworkError| Ok(Err((name.clone(), error)));
    if found.running && !found.restarting {
        match connect_one(docker, &moved).await {
            Ok(()) => return Ok(Ok(())),
            Err(error) if is_refusal(&error) => {
                tracing::info!(container = %name, %error, "stopping a container to move it");
            }
            Err(error) => return of_this(error),
        }
    }
    if found.running {
        journal.note_start(index)?;
        if let Err(error) = stop(docker, &moved.id).await {
            return of_this(error);
        }
    }
    // What is left of the old network, or of an attempt. There may be nothing.
    if let Err(error) = disconnect_one(docker, &moved.id).await {
        tracing::debug!(container = %name, %error, "a container is on no network");
    }
    if let Err(error) = connect_one(docker, &moved).await {
        return of_this(error);
    }
    if journal.get(index).start {
        let call = docker.start_container(&moved.id, None);
        if let Err(error) = limited("start a container", call).await {
            return of_this(error);
        }
    }
    Ok(Ok(()))
}

async fn disconnect_one(docker: &Docker, id: &str) -> Result<(), NetworkError> {
    let request = NetworkDisconnectRequest {
        container: id.to_owned(),
        force: Some(true),
    };
    let call = docker.disconnect_network(DOCKER_NETWORK, request);
    limited("disconnect a container", call).await
}

async fn connect_one(docker: &Docker, moved: &Moved) -> Result<(), NetworkError> {
    let call = docker.connect_network(DOCKER_NETWORK, connection(moved));
    match limited("connect a container", call).await {
        // It is on the network already, as after an attempt that was cut short.
        Err(error) if status(&error) == Some(403) => Ok(()),
        other => other,
    }
}

fn connection(moved: &Moved) -> NetworkConnectRequest {
    let endpoint = |mac: &String| EndpointSettings {
        mac_address: Some(mac.clone()),
        ..EndpointSettings::default()
    };
    NetworkConnectRequest {
        container: moved.id.clone(),
        endpoint_config: moved.mac_address.as_ref().map(endpoint),
    }
}

async fn stop(docker: &Docker, id: &str) -> Result<(), NetworkError> {
    let options = StopContainerOptions {
        signal: None,
        t: Some(STOP_S),
    };
    match limited("stop a container", docker.stop_container(id, Some(options))).await {
        // It is not running.
        Err(error) if status(&error) == Some(304) => Ok(()),
        other => other,
    }
}

/// Whether the engine could not do it to this container, which a stop can change.
fn is_refusal(error: &NetworkError) -> bool {
    status(error) == Some(500)
}

fn status(error: &NetworkError) -> Option<u16> {
    match error {
        NetworkError::Docker {
            source: DockerError::DockerResponseServerError { status_code, .. },
            ..
        } => Some(*status_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
