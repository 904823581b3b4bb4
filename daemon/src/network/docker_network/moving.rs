//! Moves containers to the network that takes the place of the present one. They continue to run.
//!
//! The network cannot be removed while containers are on it, so there is a moment in which they are
//! on none. Their ids are written to a file before, and the file is removed when all are connected
//! again.

use std::path::Path;
use std::{fs, io};

use bollard::Docker;
use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use uc_api::layout::DOCKER_NETWORK;

use super::{Attached, DockerError, NetworkError, limited};
use crate::durable;

/// Takes the containers off the network.
pub(super) async fn disconnect(
    docker: &Docker,
    containers: &[Attached],
    journal: &Path,
) -> Result<(), NetworkError> {
    // Those of an attempt that was cut short are on no network.
    let mut ids = read(journal)?;
    ids.extend(containers.iter().map(|container| container.id.clone()));
    ids.sort();
    ids.dedup();
    durable::replace(journal, ids.join("\n").as_bytes())
        .map_err(|source| failed("write", journal, source))?;
    for container in containers {
        let request = NetworkDisconnectRequest {
            container: container.id.clone(),
            force: Some(true),
        };
        let call = docker.disconnect_network(DOCKER_NETWORK, request);
        ignore(&[404], limited("disconnect a container", call).await)?;
    }
    Ok(())
}

/// Connects the containers of the journal, if there is one.
pub(super) async fn reconnect(docker: &Docker, journal: &Path) -> Result<(), NetworkError> {
    let ids = read(journal)?;
    if ids.is_empty() {
        return Ok(());
    }
    for container in ids {
        let request = NetworkConnectRequest {
            container,
            endpoint_config: None,
        };
        let call = docker.connect_network(DOCKER_NETWORK, request);
        // Engines answer 403 for a container that is on the network already, as after an attempt
        // that was cut short, and 404 for one that was removed.
        ignore(&[403, 404], limited("connect a container", call).await)?;
    }
    fs::remove_file(journal).map_err(|source| failed("remove", journal, source))
}

/// Container ids, one in each line.
fn read(journal: &Path) -> Result<Vec<String>, NetworkError> {
    match fs::read_to_string(journal) {
        Ok(text) => Ok(text.lines().map(ToOwned::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed("read", journal, source)),
    }
}

fn failed(action: &'static str, journal: &Path, source: io::Error) -> NetworkError {
    NetworkError::Journal {
        action,
        path: journal.to_owned(),
        source,
    }
}

fn ignore(codes: &[u16], result: Result<(), NetworkError>) -> Result<(), NetworkError> {
    match result {
        Err(NetworkError::Docker {
            source:
                DockerError::DockerResponseServerError {
                    status_code,
                    message,
                },
            action,
        }) if codes.contains(&status_code) => {
            tracing::info!(message, "docker did not {action}");
            Ok(())
        }
        other => other,
    }
}
