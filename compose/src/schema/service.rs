//! Keys of a service.

use super::Shape::{
    Any, Bool, Command, Distinct, Duration, Files, Hosts, Int, Items, List, Microseconds, Named,
    Number, NumberOrText, Object, OneOf, Options, OrObject, Pairs, Path, Set, Size, Test, Text,
    TextOrList,
};
use super::Unset::{Empty, FromEnvironment, FromProcess};
use super::build::BUILD;
use super::deploy::{DEPLOY, GPU};
use super::mounts::{GRANT, PORT, VOLUME};
use super::resources::NO_OPTIONS;
use super::{
    Key, Names, Reason, Scalar, Shape, Short, because, honoured, no_effect, noted, refused,
    reported,
};

const WINDOWS: Reason = because(
    "it is for Windows containers, and machines run Linux",
    "remove it",
);
const HOOK: Reason = because(
    "a replica cannot run another container before its own",
    "use `x-pre_deploy` to run a command once before the deployment, or make it a service that others depend on with `condition: service_completed_successfully`",
);
const OWN_CONTAINER: Reason = because(
    "the command runs in the service's own container, once per replica",
    "remove it, as Docker Compose has it in `pre_start` only",
);
const ADDRESS: Reason = because(
    "each machine assigns addresses of its own subnet, and they change",
    "use the service's name, or an alias, in place of the address",
);

/// Why `models` is not honoured, at the top level and in a service.
pub(super) const MODELS: Reason = because(
    "machines have no model runner",
    "run the model as a service, and give its address to the others in `environment`",
);

/// All keys of a service.
pub(crate) const SERVICE: &[Key] = &[
    honoured(
        "annotations",
        Pairs(Empty),
        "OCI annotations on the container",
    ),
    no_effect(
        "attach",
        Bool,
        "whether `up` shows its logs",
        "`uc deploy` shows no logs; `uc logs` does",
    ),
    honoured(
        "blkio_config",
        Object(BLKIO),
        "weights and rates of block devices",
    ),
    honoured(
        "build",
        OrObject(Scalar::Key("context"), BUILD),
        "how to build the image; a string is the context",
    ),
    honoured("cap_add", Set(&Text), "capabilities to add"),
    honoured("cap_drop", Set(&Text), "capabilities to drop"),
    honoured("cgroup", OneOf(&["host", "private"]), "cgroup namespace"),
    honoured("cgroup_parent", Text, "parent cgroup"),
    honoured(
        "command",
        Command,
        "replaces the image's CMD; `null` keeps it, `[]` clears it",
    ),
    noted(
        "configs",
        Items(Short::Config, GRANT),
        "grants configs as read-only files",
        "contents of at most 16 MiB travel with the deployment; external configs are refused",
    ),
    noted(
        "container_name",
        Text,
        "fixed name of the container",
        "becomes a DNS name for the project's services; containers have names of their own, so that one can replace another",
    ),
    reported("cpu_count", Int, "number of CPUs (Windows)", WINDOWS),
    reported(
        "cpu_percent",
        Number,
        "share of all CPUs in per cent (Windows)",
        WINDOWS,
    ),
    honoured("cpu_period", Microseconds, "CFS period"),
    honoured("cpu_quota", Microseconds, "CFS quota"),
    honoured("cpu_rt_period", Microseconds, "real-time period"),
    honoured("cpu_rt_runtime", Microseconds, "real-time runtime"),
    honoured("cpu_shares", Number, "weight against other containers"),
    honoured("cpus", Number, "CPUs it can use, fractions allowed"),
    honoured("cpuset", Text, "numbers of the CPUs it can use, `0-3,5`"),
    reported(
        "credential_spec",
        Object(CREDENTIAL_SPEC),
        "Windows gMSA credentials",
        WINDOWS,
    ),
    noted(
        "depends_on",
        Shape::Names(Names::Dependency, DEPENDENCY),
        "start order, with a condition per dependency",
        "also across machines",
    ),
    noted(
        "deploy",
        Object(DEPLOY),
        "replicas, placement, updates, resources",
        "see the table of its keys",
    ),
    no_effect(
        "develop",
        Object(DEVELOP),
        "what `watch` does when files change",
        "it is for `docker compose watch`",
    ),
    honoured(
        "device_cgroup_rules",
        Distinct(&Text),
        "rules for the device cgroup, such as `c 1:3 mr`",
    ),
    noted(
        "devices",
        Items(Short::Device, DEVICE),
        "devices of the host",
        "devices of the machine that runs the replica",
    ),
    noted(
        "dns",
        TextOrList,
        "DNS servers of the container",
        "asked for all names but those of the cluster, which still resolve",
    ),
    honoured("dns_opt", Set(&Text), "resolver options in `resolv.conf`"),
    noted(
        "dns_search",
        TextOrList,
        "search domains in `resolv.conf`",
        "before the cluster's own domains",
    ),
    honoured("domainname", Text, "domain name inside the container"),
    honoured(
        "entrypoint",
        Command,
        "replaces the image's ENTRYPOINT and drops its CMD; `null` keeps it, `[]` clears it",
    ),
    honoured(
        "env_file",
        Items(Short::EnvFile, ENV_FILE),
        "files of variables; `environment` overrides them",
    ),
    honoured(
        "environment",
        Pairs(FromEnvironment),
        "variables of the container; a name without a value takes it from the environment of `uc`",
    ),
    no_effect(
        "expose",
        Set(&NumberOrText),
        "ports for other services only",
        "services reach each other on all ports, as in Docker Compose",
    ),
    honoured(
        "extends",
        OrObject(Scalar::Key("service"), EXTENDS),
        "starts from the definition of another service",
    ),
    reported(
        "external_links",
        Distinct(&Text),
        "links to containers outside the project",
        because(
            "containers outside the cluster cannot be found by name",
            "reach a service of another project as `service.project`",
        ),
    ),
    honoured("extra_hosts", Hosts, "extra `/etc/hosts` lines"),
    honoured("gpus", OrObject(Scalar::All, GPU), "GPUs to pass in"),
    honoured(
        "group_add",
        Distinct(&NumberOrText),
        "more groups of the user",
    ),
    honoured(
        "healthcheck",
        Object(HEALTHCHECK),
        "command that checks the container, and its timing",
    ),
    honoured("hostname", Text, "host name inside the container"),
    honoured(
        "image",
        Text,
        "image to pull, or name for the image that is built",
    ),
    honoured(
        "init",
        Bool,
        "small init process as PID 1: forwards signals, reaps children",
    ),
    honoured("ipc", Text, "IPC namespace"),
    reported("isolation", Text, "Windows isolation technology", WINDOWS),
    honoured(
        "label_file",
        Files,
        "files of labels; `labels` overrides them",
    ),
    honoured("labels", Pairs(Empty), "metadata on the container"),
    noted(
        "links",
        Set(&Text),
        "old way to name another service, with an alias",
        "the whole project can use an alias",
    ),
    noted(
        "logging",
        Object(LOGGING),
        "log driver and its options",
        "default `local`; options without a driver go to the default driver of the machine",
    ),
    noted(
        "mac_address",
        Text,
        "hardware address of the container",
        "the same for all replicas",
    ),
    honoured("mem_limit", Size, "memory limit"),
    honoured("mem_reservation", Size, "soft memory limit"),
    honoured(
        "mem_swappiness",
        Int,
        "0 to 100: how eagerly its pages are swapped",
    ),
    honoured(
        "memswap_limit",
        Size,
        "memory and swap together; -1 means unlimited",
    ),
    reported(
        "models",
        Shape::Names(Names::Bare, MODEL_USE),
        "AI models it uses, by top-level name",
        MODELS,
    ),
    noted(
        "network_mode",
        Text,
        "`none`, `host`, `service:x`, `container:x` or a driver",
        "`service:x` places a replica on a machine that runs `x`; `container:x` is a container of the machine; other drivers are refused",
    ),
    noted(
        "networks",
        Shape::Names(Names::Bare, NETWORK_USE),
        "networks to join, with aliases and fixed addresses",
        "every service joins the cluster's one network; a file that keeps services apart is reported",
    ),
    honoured(
        "oom_kill_disable",
        Bool,
        "do not kill it when memory runs out",
    ),
    honoured(
        "oom_score_adj",
        Int,
        "-1000 to 1000: how likely it is picked when memory runs out",
    ),
    honoured("pid", Text, "PID namespace"),
    honoured("pids_limit", Int, "number of processes; -1 means unlimited"),
    noted(
        "platform",
        Text,
        "`os[/arch[/variant]]` to run, and to build for by default",
        "it runs only on machines of that architecture",
    ),
    honoured(
        "ports",
        Items(Short::Port, PORT),
        "publishes container ports on every machine that runs a replica",
    ),
    honoured(
        "post_start",
        List(&Object(HOOK_INSIDE)),
        "commands run in the container after it starts",
    ),
    refused(
        "pre_start",
        List(&Object(HOOK_BEFORE)),
        "commands run before the container starts",
        HOOK,
    ),
    noted(
        "pre_stop",
        List(&Object(HOOK_INSIDE)),
        "commands run in the container before it stops",
        "a failed command is reported; the container stops anyway",
    ),
    honoured("privileged", Bool, "all capabilities and devices"),
    honoured(
        "profiles",
        Set(&Text),
        "the service is used only when one of these is active",
    ),
    refused(
        "provider",
        Object(PROVIDER),
        "service run by a plug-in instead of a container",
        because(
            "machines run containers only",
            "run what the plug-in provides as a service, or give its address in `environment`",
        ),
    ),
    noted(
        "pull_policy",
        Text,
        "`always`, `never`, `missing`, `build`, `daily`, `weekly`, `every_<duration>`",
        "`always` asks the registry in every deployment, and replaces the replicas if the tag has moved; so do `daily`, `weekly` and `every_…`",
    ),
    reported(
        "pull_refresh_after",
        Text,
        "age after which an image is pulled again",
        because(
            "the age of an image is not known",
            "use `pull_policy: always` to pull in every deployment",
        ),
    ),
    honoured("read_only", Bool, "mount the root file system read-only"),
    noted(
        "restart",
        Text,
        "when Docker restarts it: `no`, `always`, `on-failure[:max]`, `unless-stopped`",
        "default: a container that ends with code 0 within its first minute is a finished job; others are restarted, as with `unless-stopped`. A service for whose completion another one waits is restarted after a failure at most",
    ),
    honoured("runtime", Text, "OCI runtime, such as `runc` or `nvidia`"),
    honoured(
        "scale",
        Int,
        "number of containers; must equal `deploy.replicas`",
    ),
    noted(
        "secrets",
        Items(Short::Secret, GRANT),
        "grants secrets as files",
        "contents travel with the deployment, and only root can read them on the machines; external secrets are refused",
    ),
    noted(
        "security_opt",
        Distinct(&Text),
        "seccomp, AppArmor, SELinux, no-new-privileges",
        "a seccomp profile in a file is refused; write its JSON in place of the path",
    ),
    honoured("shm_size", Size, "size of `/dev/shm`"),
    honoured("stdin_open", Bool, "keep standard input open"),
    honoured(
        "stop_grace_period",
        Duration,
        "time between the stop signal and SIGKILL (10 s)",
    ),
    honoured("stop_signal", Text, "stop signal (SIGTERM)"),
    honoured(
        "storage_opt",
        Options,
        "options of the storage driver, such as `size`",
    ),
    honoured(
        "sysctls",
        Pairs(Empty),
        "kernel parameters of the container's namespaces",
    ),
    honoured("tmpfs", TextOrList, "in-memory mounts, `path[:options]`"),
    honoured("tty", Bool, "allocate a terminal"),
    honoured(
        "ulimits",
        Named(&OrObject(Scalar::Number, ULIMIT)),
        "resource limits per process; one number sets both soft and hard",
    ),
    reported(
        "use_api_socket",
        Bool,
        "gives it the engine's socket and the user's registry logins",
        because(
            "containers are not given Docker's socket",
            "remove it, or mount `/var/run/docker.sock`, which gives control of the machine",
        ),
    ),
    honoured("user", Text, "user (and group) of the main process"),
    honoured(
        "userns_mode",
        Text,
        "user namespace: `host` or the daemon's",
    ),
    honoured("uts", Text, "UTS namespace: `host`"),
    noted(
        "volumes",
        Items(Short::Volume, VOLUME),
        "mounts: named volume, host path, tmpfs",
        "an absolute path is a path on the machine; a relative one travels with the deployment, see above",
    ),
    noted(
        "volumes_from",
        Distinct(&Text),
        "all mounts of another service or container",
        "of a service of the project; mounts without a name are reported, containers are refused",
    ),
    honoured("working_dir", Text, "directory the command starts in"),
    reported(
        "x-caddy",
        Any,
        "Uncloud: its part of the Caddy configuration",
        because(
            "there is no ingress yet",
            "run a reverse proxy as a service, and publish its ports with `ports`",
        ),
    ),
    honoured(
        "x-machines",
        TextOrList,
        "Uncloud: names or ids of the machines that may run it; list or comma list",
    ),
    noted(
        "x-ports",
        Set(&Text),
        "Uncloud: ports published by the ingress or by the machine",
        "`…@host` publishes on the machine; other forms are reported, because there is no ingress yet",
    ),
    noted(
        "x-pre_deploy",
        Any,
        "Uncloud: a command run once before the deployment",
        "runs on one machine before any replica changes",
    ),
    noted(
        "x-reschedule",
        Duration,
        "uc: how long a machine must be down before its replicas start on others; without it, never",
        "at least `10s`; for replicated services without data on the machine, in clusters of three machines or more",
    ),
];

const BLKIO: &[Key] = &[
    honoured(
        "device_read_bps",
        List(&Object(RATE)),
        "read limit of a device in bytes per second",
    ),
    honoured(
        "device_read_iops",
        List(&Object(RATE)),
        "read limit of a device in operations per second",
    ),
    honoured(
        "device_write_bps",
        List(&Object(RATE)),
        "write limit of a device in bytes per second",
    ),
    honoured(
        "device_write_iops",
        List(&Object(RATE)),
        "write limit of a device in operations per second",
    ),
    honoured("weight", Int, "weight against other containers"),
    honoured(
        "weight_device",
        List(&Object(WEIGHT)),
        "weight for one device",
    ),
];

const RATE: &[Key] = &[
    honoured("path", Text, "the device"),
    honoured("rate", Size, "bytes or operations per second"),
];

const WEIGHT: &[Key] = &[
    honoured("path", Text, "the device"),
    honoured("weight", Int, "its weight"),
];

const CREDENTIAL_SPEC: &[Key] = &[
    honoured("config", Text, "from a config"),
    honoured("file", Text, "from a file"),
    honoured("registry", Text, "from the registry"),
];

const DEPENDENCY: &[Key] = &[
    honoured(
        "condition",
        OneOf(&[
            "service_started",
            "service_healthy",
            "service_completed_successfully",
        ]),
        "state that the dependency must reach first; a list of names means `service_started`",
    ),
    honoured(
        "required",
        Bool,
        "with `false`, a missing dependency is not an error",
    ),
    noted(
        "restart",
        Bool,
        "restart this service when the dependency is updated",
        "its replicas are replaced when a deployment replaces those of the dependency",
    ),
];

const DEVICE: &[Key] = &[
    honoured("source", Text, "path on the host, or a CDI name"),
    honoured("target", Text, "path in the container"),
    honoured("permissions", Text, "some of `r`, `w`, `m`"),
];

const ENV_FILE: &[Key] = &[
    honoured("path", Path, "path, relative to the project's directory"),
    honoured("required", Bool, "with `false`, the file can be missing"),
    honoured(
        "format",
        OneOf(&["raw"]),
        "`raw` keeps quotes and `$` as they are",
    ),
];

const EXTENDS: &[Key] = &[
    honoured("service", Text, "the service to start from"),
    honoured("file", Path, "its compose file (this file)"),
];

const HEALTHCHECK: &[Key] = &[
    honoured(
        "test",
        Test,
        "command: list with `CMD`, `CMD-SHELL` or `NONE` first; a string is a shell command",
    ),
    honoured("interval", Duration, "time between checks (30 s)"),
    honoured("timeout", Duration, "time limit of a check (30 s)"),
    honoured(
        "retries",
        Number,
        "consecutive failures that make it unhealthy (3)",
    ),
    honoured(
        "start_period",
        Duration,
        "time after the start in which failures do not count",
    ),
    noted(
        "start_interval",
        Duration,
        "time between checks during the start period",
        "Docker before 25 uses `interval`",
    ),
    honoured(
        "disable",
        Bool,
        "like `test: [NONE]`, also turns off the check of the image",
    ),
];

const LOGGING: &[Key] = &[
    honoured("driver", Text, "name of the driver"),
    honoured("options", Options, "its options"),
];

const MODEL_USE: &[Key] = &[
    honoured("endpoint_var", Text, "variable for the endpoint"),
    honoured("model_var", Text, "variable for the model"),
];

const NETWORK_USE: &[Key] = &[
    noted(
        "aliases",
        Set(&Text),
        "more names on this network",
        "the whole project can use them",
    ),
    reported("ipv4_address", Text, "fixed address", ADDRESS),
    reported("ipv6_address", Text, "fixed address", ADDRESS),
    reported(
        "link_local_ips",
        Set(&Text),
        "link-local addresses",
        ADDRESS,
    ),
    honoured("mac_address", Text, "hardware address"),
    reported(
        "interface_name",
        Text,
        "name of the interface in the container",
        because("Docker on the machine names it", "remove it"),
    ),
    reported("driver_opts", Options, "options of the driver", NO_OPTIONS),
    no_effect(
        "priority",
        Number,
        "order of joining",
        "there is only one network",
    ),
    no_effect(
        "gw_priority",
        Number,
        "which network is the default gateway",
        "there is only one network",
    ),
];

const DEVELOP: &[Key] = &[honoured("watch", List(&Object(WATCH)), "what to watch")];

const WATCH: &[Key] = &[
    honoured("path", Path, "file or directory to watch"),
    honoured(
        "action",
        OneOf(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
        "what to do after a change",
    ),
    honoured("target", Text, "path in the container"),
    honoured("ignore", TextOrList, "what to ignore"),
    honoured("include", TextOrList, "what to watch, and nothing else"),
    honoured("exec", Object(HOOK_INSIDE), "what to run after syncing"),
    honoured("initial_sync", Bool, "sync at the start too"),
];

const HOOK_COMMAND: Key = honoured("command", Command, "command to run");
const HOOK_USER: Key = honoured("user", Text, "user to run it as");
const HOOK_PRIVILEGED: Key = honoured("privileged", Bool, "run it with all capabilities");
const HOOK_DIRECTORY: Key = honoured("working_dir", Text, "directory to run it in");
const HOOK_ENVIRONMENT: Key = honoured(
    "environment",
    Pairs(FromProcess),
    "variables of the command",
);

/// Keys of a hook that runs in the service's own container.
const HOOK_INSIDE: &[Key] = &[
    HOOK_COMMAND,
    HOOK_USER,
    HOOK_PRIVILEGED,
    HOOK_DIRECTORY,
    HOOK_ENVIRONMENT,
    refused(
        "image",
        Text,
        "image of a container to run it in",
        OWN_CONTAINER,
    ),
    refused(
        "per_replica",
        Bool,
        "run it once per container",
        OWN_CONTAINER,
    ),
];

/// Keys of a hook that runs in a container of its own.
const HOOK_BEFORE: &[Key] = &[
    HOOK_COMMAND,
    HOOK_USER,
    HOOK_PRIVILEGED,
    HOOK_DIRECTORY,
    HOOK_ENVIRONMENT,
    honoured("image", Text, "image of the container to run it in"),
    honoured("per_replica", Bool, "run it once per container"),
];

const PROVIDER: &[Key] = &[
    honoured("type", Text, "name of the plug-in"),
    honoured("options", Any, "options of the plug-in"),
];

const ULIMIT: &[Key] = &[
    honoured("soft", Int, "limit that the process can raise up to `hard`"),
    honoured("hard", Int, "limit that cannot be raised"),
];
