//! Ports, paths and label names that every part must agree on.

/// WireGuard, UDP, unless set otherwise.
pub const WIREGUARD_PORT: u16 = 51820;
/// gRPC between daemons: TCP on the management address, inside the mesh only.
pub const PEER_API_PORT: u16 = 51000;
/// Membership datagrams: UDP on the management address.
pub const GOSSIP_PORT: u16 = 51001;
/// The network machines get their /24 from, unless set otherwise.
pub const DEFAULT_NETWORK: &str = "10.210.0.0/16";
/// The mesh interface.
pub const MESH_INTERFACE: &str = "uc0";
/// The Docker network that holds a machine's replicas.
pub const DOCKER_NETWORK: &str = "uc";
/// The daemon's state, mode 0700.
pub const STATE_DIR: &str = "/var/lib/uc";
/// Sockets, mode 0750 root:uc.
pub const RUN_DIR: &str = "/run/uc";
/// The API's Unix socket, 0660 root:uc.
pub const API_SOCKET: &str = "/run/uc/uc.sock";
/// Control socket of `ucd mesh`, root only.
pub const MESH_SOCKET: &str = "/run/uc/mesh.sock";
/// The top-level domain of the cluster's names.
pub const DOMAIN: &str = "internal";

/// Labels on every container, network and volume that uc makes: enough to rebuild a machine's facts
/// from Docker alone.
pub mod label {
    /// Cluster id; its presence says "made by uc".
    pub const CLUSTER: &str = "uc.cluster";
    /// Machine id.
    pub const MACHINE: &str = "uc.machine";
    /// Project name.
    pub const PROJECT: &str = "uc.project";
    /// Service name, without the project.
    pub const SERVICE: &str = "uc.service";
    /// Revision of the service's spec.
    pub const REVISION: &str = "uc.revision";
    /// The deployment that made it.
    pub const DEPLOYMENT: &str = "uc.deployment";
    /// Hashes of the travelled contents it has mounted or in its environment, separated by commas.
    pub const FILES: &str = "uc.files";
    /// Billionths of a CPU that its service reserves.
    pub const RESERVED_CPU: &str = "uc.reserved.cpu";
    /// Bytes of memory that its service reserves.
    pub const RESERVED_MEMORY: &str = "uc.reserved.memory";
    /// It has resolvers of its own, asked after the machine's, which then forwards nothing for it.
    pub const RESOLVERS: &str = "uc.resolvers";
    /// Address of its machine on the cluster network, if the container has the machine's network
    /// and so no address of its own.
    pub const ADDRESS: &str = "uc.address";
    /// Commands to run in it after its start: JSON, a list of `uc.v1.Hook`.
    pub const POST_START: &str = "uc.post-start";
    /// Commands to run in it before it is stopped: JSON, a list of `uc.v1.Hook`.
    pub const PRE_STOP: &str = "uc.pre-stop";
    /// The container is no replica: it runs a command for a deployment. The value says for which
    /// life of which daemon, and for which run.
    pub const HOOK: &str = "uc.hook";
}
