//! The Docker network that holds a machine's containers.

mod moving;

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder};
use ipnet::Ipv4Net;
use uc_api::layout::{DOCKER_NETWORK, MESH_INTERFACE, label};
use uc_mesh::DEFAULT_MTU;

use super::error::NetworkError;

/// The network's bridge. A fixed name, so that firewall rules can be written before Docker makes
/// it.
pub const BRIDGE: &str = "br-uc";

/// Making or removing a network takes Docker some hundred milliseconds, more when it is busy
/// starting containers.
const LIMIT: Duration = Duration::from_secs(30);

const OPTION_NAME: &str = "com.docker.network.bridge.name";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const OPTION_TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// The part of an engine's version that decides what it can do. Debian's `20.10.24+dfsg1` is 20.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DockerVersion {
    major: u32,
    minor: u32,
}

impl DockerVersion {
    /// Asks the engine.
    pub async fn of(docker: &Docker) -> Result<Self, NetworkError> {
        let version = limited("tell its version", docker.version())
            .await?
            .version
            .unwrap_or_default();
        // A version of another form is that of a newer engine or of a build from source.
        Ok(version.parse().unwrap_or(Self {
            major: u32::MAX,
            minor: 0,
        }))
    }

    /// Whether packets from other hosts straight to a container's address are dropped.
    pub(super) fn drops_direct_access(self) -> bool {
        self >= Self {
            major: 28,
            minor: 0,
        }
    }

    /// Whether a network can name interfaces that are exempt from that.
    pub(super) fn has_trusted_interfaces(self) -> bool {
        self >= Self {
            major: 28,
            minor: 2,
        }
    }
}

impl FromStr for DockerVersion {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        let mut next = || parts.next().unwrap_or_default().parse();
        Ok(Self {
            major: next()?,
            minor: next()?,
        })
    }
}

impl fmt::Display for DockerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The machine's own address in its subnet, on the bridge: the first one. Its DNS server has it,
/// too.
pub(crate) fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

/// Creates the Docker network `uc` with this subnet unless it exists.
///
/// An existing network that differs is recreated if no container, running or not, uses it. If
/// containers use it, differences such as an option of a newer release or another cluster's label
/// are kept until it is empty. For another subnet the containers are moved: they continue to run
/// and get other addresses. The containers of another cluster are not moved, which is an error.
///
/// `journal` is a file that keeps which containers are being moved. If this process or the machine
/// dies in between, the next call connects them again. A container that cannot be moved is logged
/// and tried again by the next call. It is not an error, since all other containers work.
pub async fn ensure_docker_network(
    docker: &Docker,
    subnet: Ipv4Net,
    cluster: &str,
    journal: &Path,
) -> Result<(), NetworkError> {
    if !(8..=29).contains(&subnet.prefix_len()) {
        return Err(NetworkError::Subnet(subnet));
    }
    let version = DockerVersion::of(docker).await?;
    let wanted = request(subnet.trunc(), cluster, version);
    if let Some(existing) = inspect(docker).await? {
        let own_cluster = cluster_of(existing.labels.as_ref()).is_some_and(|of| of == cluster);
        let Some(differences) = differences(&existing, &wanted) else {
            return Err(NetworkError::Foreign {
                name: DOCKER_NETWORK.to_owned(),
            });
        };
        if differences.is_empty() {
            return moving::reconnect(docker, journal).await;
        }
        let containers = containers(docker).await?;
        let text = differences
            .iter()
            .map(|difference| difference.text.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        if !containers.is_empty() {
            let names = || containers.iter().map(|container| container.name.clone());
            if !differences.iter().any(|difference| difference.vital) {
                tracing::warn!(differences = %text, "docker network {DOCKER_NETWORK} is kept as it is while containers use it");
                return moving::reconnect(docker, journal).await;
            }
            if !own_cluster {
                let name = DOCKER_NETWORK.to_owned();
                return Err(NetworkError::InUse {
                    name,
                    differences: text,
                    containers: names().collect(),
                });
            }
            let names: Vec<_> = names().collect();
            tracing::warn!(containers = %names.join(", "), "moving containers to another subnet");
            moving::disconnect(docker, &containers, journal).await?;
        }
        tracing::info!(differences = %text, "recreating docker network {DOCKER_NETWORK}");
        if let Err(error) = remove(docker).await {
            // Until the next attempt, the old network is better than none.
            moving::reconnect(docker, journal).await?;
            return Err(error);
        }
    }
    limited("create the network", docker.create_network(wanted)).await?;
    tracing::info!(%subnet, "created docker network {DOCKER_NETWORK}");
    moving::reconnect(docker, journal).await
}

/// Removes the Docker network `uc`, if it exists. Fails if containers use it.
pub async fn remove_docker_network(docker: &Docker) -> Result<(), NetworkError> {
    let Some(existing) = inspect(docker).await? else {
        return Ok(());
    };
    let name = DOCKER_NETWORK.to_owned();
    if !is_ours(&existing) {
        return Err(NetworkError::Foreign { name });
    }
    let containers = containers(docker).await?;
    if !containers.is_empty() {
        let differences = "it is to be removed".to_owned();
        return Err(NetworkError::InUse {
            name,
            differences,
            containers: containers.into_iter().map(|one| one.name).collect(),
        });
    }
    remove(docker).await
}

/// What Docker is asked for.
fn request(subnet: Ipv4Net, cluster: &str, version: DockerVersion) -> NetworkCreateRequest {
    let mut options = HashMap::from([
        (OPTION_NAME.to_owned(), BRIDGE.to_owned()),
        (OPTION_MASQUERADE.to_owned(), "false".to_owned()),
        (OPTION_MTU.to_owned(), DEFAULT_MTU.to_string()),
    ]);
    if version.has_trusted_interfaces() {
        options.insert(OPTION_TRUSTED.to_owned(), MESH_INTERFACE.to_owned());
    }
    NetworkCreateRequest {
        name: DOCKER_NETWORK.to_owned(),
        driver: Some("bridge".to_owned()),
        // People may `docker run --network uc` something beside what uc runs.
        attachable: Some(true),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.to_string()),
                gateway: Some(gateway(subnet).to_string()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        options: Some(options),
        labels: Some(HashMap::from([(
            label::CLUSTER.to_owned(),
            cluster.to_owned(),
        )])),
        ..NetworkCreateRequest::default()
    }
}

/// A way in which a network is not what it should be.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    text: String,
    /// Whether containers on it cannot be reached, or cannot reach others.
    vital: bool,
}

/// What differs; none if the network is not ours.
fn differences(
    existing: &NetworkInspect,
    wanted: &NetworkCreateRequest,
) -> Option<Vec<Difference>> {
    if !is_ours(existing) {
        return None;
    }
    let mut differences = Vec::new();
    let mut compare = |what: &str, vital: bool, is: Option<&String>, should: Option<&String>| {
        if is != should {
            let show = |value: Option<&String>| value.map_or("none".to_owned(), Clone::clone);
            let text = format!("{what} is {}, should be {}", show(is), show(should));
            differences.push(Difference { text, vital });
        }
    };
    let ipam = |ipam: &Option<Ipam>| {
        let configs = ipam
            .as_ref()
            .and_then(|ipam| ipam.config.clone())
            .unwrap_or_default();
        configs.into_iter().next().unwrap_or_default()
    };
    let (is, should) = (ipam(&existing.ipam), ipam(&wanted.ipam));
    compare(
        "its subnet",
        true,
        is.subnet.as_ref(),
        should.subnet.as_ref(),
    );
    compare(
        "its gateway",
        true,
        is.gateway.as_ref(),
        should.gateway.as_ref(),
    );
    compare(
        "its driver",
        true,
        existing.driver.as_ref(),
        wanted.driver.as_ref(),
    );
    for (option, vital) in [
        (OPTION_NAME, true),
        (OPTION_MASQUERADE, true),
        (OPTION_TRUSTED, false),
        (OPTION_MTU, false),
    ] {
        let value = |options: &Option<HashMap<String, String>>| {
            options
                .as_ref()
                .and_then(|options| options.get(option))
                .cloned()
        };
        compare(
            option,
            vital,
            value(&existing.options).as_ref(),
            value(&wanted.options).as_ref(),
        );
    }
    compare(
        "its cluster",
        false,
        cluster_of(existing.labels.as_ref()),
        cluster_of(wanted.labels.as_ref()),
    );
    Some(differences)
}

fn is_ours(network: &NetworkInspect) -> bool {
    cluster_of(network.labels.as_ref()).is_some()
}

fn cluster_of(labels: Option<&HashMap<String, String>>) -> Option<&String> {
    labels?.get(label::CLUSTER)
}

/// A container on the network.
struct Attached {
    id: String,
    name: String,
}

async fn inspect(docker: &Docker) -> Result<Option<NetworkInspect>, NetworkError> {
    let found = limited(
        "look at the network",
        docker.inspect_network(DOCKER_NETWORK, None::<InspectNetworkOptions>),
    );
    match found.await {
        Ok(network) => Ok(Some(network)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The containers that are on the network, stopped ones too: they could not be started without it.
async fn containers(docker: &Docker) -> Result<Vec<Attached>, NetworkError> {
    let filters = HashMap::from([("network".to_owned(), vec![DOCKER_NETWORK.to_owned()])]);
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filters)
        .build();
    let list = limited(
        "list the containers of the network",
        docker.list_containers(Some(options)),
    )
    .await?;
    let attached = list.into_iter().filter_map(|container| {
        let id = container.id?;
        let name = container.names.and_then(|names| names.into_iter().next());
        let name = name.map(|name| name.trim_start_matches('/').to_owned());
        Some(Attached {
            name: name.unwrap_or_else(|| id.clone()),
            id,
        })
    });
    let mut attached: Vec<_> = attached.collect();
    attached.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(attached)
}

async fn remove(docker: &Docker) -> Result<(), NetworkError> {
    match limited("remove the network", docker.remove_network(DOCKER_NETWORK)).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_not_found(error: &NetworkError) -> bool {
    matches!(
        error,
        NetworkError::Docker {
            source: DockerError::DockerResponseServerError {
                status_code: 404,
                ..
            },
            ..
        }
    )
}

async fn limited<T>(
    action: &'static str,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, NetworkError> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(result) => result.map_err(|source| NetworkError::Docker { action, source }),
        Err(_) => Err(NetworkError::DockerTimeout {
            action,
            seconds: LIMIT.as_secs(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: DockerVersion = DockerVersion {
        major: 20,
        minor: 10,
    };
    const NEW: DockerVersion = DockerVersion {
        major: 28,
        minor: 5,
    };

    fn subnet() -> Ipv4Net {
        "10.210.7.0/24".parse().unwrap()
    }

    /// The network as Docker shows it after the request.
    fn made(request: NetworkCreateRequest) -> NetworkInspect {
        NetworkInspect {
            name: Some(request.name),
            driver: request.driver,
            ipam: request.ipam,
            options: request.options,
            labels: request.labels,
            ..NetworkInspect::default()
        }
    }

    #[test]
    fn versions() {
        assert_eq!("20.10.24+dfsg1".parse(), Ok(OLD));
        assert_eq!("28.5.2".parse(), Ok(NEW));
        assert_eq!("29.0".parse::<DockerVersion>().unwrap().to_string(), "29.0");
        assert!("dev".parse::<DockerVersion>().is_err());
    }

    #[test]
    fn the_request_has_bridge_gateway_mtu_and_no_masquerading() {
        let request = request(subnet(), "c1", OLD);
        let options = request.options.unwrap();
        assert_eq!(options[OPTION_NAME], "br-uc");
        assert_eq!(options[OPTION_MASQUERADE], "false");
        assert_eq!(options[OPTION_MTU], "1420");
        assert!(!options.contains_key(OPTION_TRUSTED));
        let config = request.ipam.unwrap().config.unwrap();
        assert_eq!(config[0].gateway.as_deref(), Some("10.210.7.1"));
        assert_eq!(request.labels.unwrap()["uc.cluster"], "c1");
    }

    #[test]
    fn engines_that_drop_direct_access_trust_the_mesh() {
        assert_eq!(
            request(subnet(), "c1", NEW).options.unwrap()[OPTION_TRUSTED],
            "uc0"
        );
    }

    #[test]
    fn the_network_as_it_was_made_does_not_differ() {
        for version in [OLD, NEW] {
            let request = request(subnet(), "c1", version);
            assert_eq!(differences(&made(request.clone()), &request), Some(vec![]));
        }
    }

    #[test]
    fn another_subnet_is_vital_a_new_option_is_not() {
        let existing = made(request(subnet(), "c1", OLD));
        let other = request("10.210.8.0/24".parse().unwrap(), "c1", OLD);
        let found = differences(&existing, &other).unwrap();
        assert!(found.iter().all(|difference| difference.vital));
        assert_eq!(
            found[0].text,
            "its subnet is 10.210.7.0/24, should be 10.210.8.0/24"
        );
        let upgraded = request(subnet(), "c1", NEW);
        let found = differences(&existing, &upgraded).unwrap();
        assert_eq!(found.len(), 1);
        assert!(!found[0].vital, "{found:?}");
        let joined = request(subnet(), "c2", OLD);
        assert_eq!(
            differences(&existing, &joined).unwrap()[0].text,
            "its cluster is c1, should be c2"
        );
    }

    #[test]
    fn a_network_without_our_label_is_not_ours() {
        let request = request(subnet(), "c1", OLD);
        let mut existing = made(request.clone());
        existing.labels = None;
        assert_eq!(differences(&existing, &request), None);
    }
}
