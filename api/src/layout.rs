//! Ports, paths and label names that all parts of uc must agree on.

/// Default UDP port of WireGuard.
pub const WIREGUARD_PORT: u16 = 51820;
/// gRPC between daemons: TCP on the management address, inside the mesh only.
pub const PEER_API_PORT: u16 = 51000;
/// Membership datagrams: UDP on the management address.
pub const GOSSIP_PORT: u16 = 51001;
/// Default cluster network. Each machine gets a /24 of it.
pub const DEFAULT_NETWORK: &str = "10.210.0.0/16";
/// The mesh interface.
pub const MESH_INTERFACE: &str = "uc0";
/// The Docker network of a machine's replicas.
pub const DOCKER_NETWORK: &str = "uc";
/// Folder of the daemon's state, mode 0700.
pub const STATE_DIR: &str = "/var/lib/uc";
/// Folder of the sockets, mode 0750, owner root:uc.
pub const RUN_DIR: &str = "/run/uc";
/// Unix socket of the API, mode 0660, owner root:uc.
pub const API_SOCKET: &str = "/run/uc/uc.sock";
/// Control socket of `ucd mesh`, for root only.
pub const MESH_SOCKET: &str = "/run/uc/mesh.sock";
/// Top-level domain of the cluster's names.
pub const DOMAIN: &str = "internal";

/// Labels on every container, network and volume that uc creates. They are enough to rebuild a
/// machine's observations from Docker alone.
pub mod label {
    /// Cluster id. An object with this label was created by uc.
    pub const CLUSTER: &str = "uc.cluster";
    /// Machine id.
    pub const MACHINE: &str = "uc.machine";
    /// Project name.
    pub const PROJECT: &str = "uc.project";
    /// Service name, without the project.
    pub const SERVICE: &str = "uc.service";
    /// Revision of the service's spec.
    pub const REVISION: &str = "uc.revision";
    /// Id of the deployment that created the object.
    pub const DEPLOYMENT: &str = "uc.deployment";
    /// The image reference of the spec. Set only if the container was created by the image's digest
    /// instead.
    pub const IMAGE: &str = "uc.image";
    /// Deployment and step that created the container, as `deployment/step`. A change that was cut
    /// short finds its container by it.
    pub const STEP: &str = "uc.step";
    /// Hashes of the contents that are mounted in the container or set in its environment,
    /// separated by commas.
    pub const FILES: &str = "uc.files";
    /// CPU that the service reserves, in billionths of a CPU.
    pub const RESERVED_CPU: &str = "uc.reserved.cpu";
    /// Memory that the service reserves, in bytes.
    pub const RESERVED_MEMORY: &str = "uc.reserved.memory";
    /// The container has its own resolvers. They are used after the machine's DNS server, which
    /// then forwards nothing for this container.
    pub const RESOLVERS: &str = "uc.resolvers";
    /// Address of the machine on the cluster network. Set only if the container shares the
    /// machine's network and so has no address of its own.
    pub const ADDRESS: &str = "uc.address";
    /// Names of the anonymous volumes that the container got from its predecessor, separated by
    /// commas.
    pub const HANDED_ON: &str = "uc.handed-on";
    /// The service sets no restart policy, so the daemon decides whether the container is a job or
    /// a server. The only value is `default`.
    pub const RESTART: &str = "uc.restart";
    /// Commands to run in the container after it starts: a JSON list of `uc.v1.Hook`.
    pub const POST_START: &str = "uc.post-start";
    /// Commands to run in the container before it is stopped: a JSON list of `uc.v1.Hook`.
    pub const PRE_STOP: &str = "uc.pre-stop";
    /// Marks a container that runs a command for a deployment and is not a replica. The value is
    /// the id of the deployment.
    pub const HOOK: &str = "uc.hook";
    /// Time limit of the command of a container with [`HOOK`], in milliseconds.
    pub const HOOK_LIMIT: &str = "uc.hook.limit";
}

/// Most replicas of one service. A plan has a step for each, so a mistyped number must not make
/// millions of them. A cluster has at most a thousand machines.
pub const MAX_REPLICAS: u32 = 5_000;
