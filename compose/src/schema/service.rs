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
use super::{Key, Names, Scalar, Shape, Short, honoured, noted, refused, reported};

const WINDOWS: &str = "it is for Windows containers; machines run Linux";
const HOOK: &str = "there are no containers that run before a service's own; `x-pre_deploy` runs a command before a deployment";
const ADDRESS: &str = "each machine gives the addresses of its own subnet; names are what stays";

/// Everything a service may say.
pub(crate) const SERVICE: &[Key] = &[
    honoured(
        "annotations",
        Pairs(Empty),
        "OCI annotations on the container",
    ),
    noted(
        "attach",
        Bool,
        "whether `up` shows its logs",
        "without effect: `uc deploy` attaches to nothing",
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
    honoured("cap_drop", Set(&Text), "capabilities to take away"),
    honoured("cgroup", OneOf(&["host", "private"]), "cgroup namespace"),
    honoured("cgroup_parent", Text, "cgroup to be placed under"),
    honoured(
        "command",
        Command,
        "replaces the image's CMD; `null` keeps it, `[]` clears it",
    ),
    noted(
        "configs",
        Items(Short::Config, GRANT),
        "grants configs as read-only files",
        "contents of at most 16 MiB travel with the deployment; external ones are refused",
    ),
    noted(
        "container_name",
        Text,
        "fixed name of the container",
        "a name under which the project's services find it; the container itself has a name of its own, so that one can replace another",
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
    honoured("cpus", Number, "CPUs it may use, fractions allowed"),
    honoured("cpuset", Text, "which CPUs, `0-3,5`"),
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
        "conditions are waited for across machines",
    ),
    noted(
        "deploy",
        Object(DEPLOY),
        "how many, where, how updated, with what resources",
        "key by key, see below",
    ),
    noted(
        "develop",
        Object(DEVELOP),
        "what `watch` does when files change",
        "without effect on a deployment: it is for `docker compose watch`",
    ),
    honoured(
        "device_cgroup_rules",
        Distinct(&Text),
        "rules for the device cgroup, such as `c 1:3 mr`",
    ),
    noted(
        "devices",
        Items(Short::Device, DEVICE),
        "host devices passed in",
        "devices of the machine that runs the replica",
    ),
    noted(
        "dns",
        TextOrList,
        "DNS servers of the container",
        "asked for every name that is not the cluster's; services are found all the same",
    ),
    honoured("dns_opt", Set(&Text), "resolver options in `resolv.conf`"),
    noted(
        "dns_search",
        TextOrList,
        "search domains in `resolv.conf`",
        "before the cluster's own domains",
    ),
    honoured("domainname", Text, "domain the container sees as its own"),
    honoured(
        "entrypoint",
        Command,
        "replaces the image's ENTRYPOINT and drops its CMD; `null` keeps it, `[]` clears it",
    ),
    honoured(
        "env_file",
        Items(Short::EnvFile, ENV_FILE),
        "files of variables, below `environment` in rank",
    ),
    honoured(
        "environment",
        Pairs(FromEnvironment),
        "variables for the container; a name without a value is taken from where `uc` runs",
    ),
    noted(
        "expose",
        Set(&NumberOrText),
        "ports meant for other services only",
        "information only, as in Docker Compose: services reach each other on all ports",
    ),
    honoured(
        "extends",
        OrObject(Scalar::Key("service"), EXTENDS),
        "takes over another service's definition",
    ),
    reported(
        "external_links",
        Distinct(&Text),
        "links to containers outside the project",
        "services of other projects are found as `service.project`, containers outside the cluster not at all",
    ),
    honoured("extra_hosts", Hosts, "extra `/etc/hosts` lines"),
    honoured("gpus", OrObject(Scalar::All, GPU), "GPUs to pass in"),
    honoured(
        "group_add",
        Distinct(&NumberOrText),
        "further groups of the user",
    ),
    honoured(
        "healthcheck",
        Object(HEALTHCHECK),
        "command that tells whether the container works, and its pace",
    ),
    honoured("hostname", Text, "name the container sees as its own"),
    honoured("image", Text, "name to pull, or to give to what is built"),
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
        "files of labels, below `labels` in rank",
    ),
    honoured("labels", Pairs(Empty), "metadata on the container"),
    noted(
        "links",
        Set(&Text),
        "old way to name another service, with an alias",
        "an alias is known to the whole project",
    ),
    noted(
        "logging",
        Object(LOGGING),
        "log driver and its options",
        "`local` when nothing is said, `json-file` where the options need it",
    ),
    noted(
        "mac_address",
        Text,
        "hardware address of the container",
        "the same for each replica",
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
        "memory and swap together; -1 is no limit",
    ),
    reported(
        "models",
        Shape::Names(Names::Bare, MODEL_USE),
        "AI models it uses, by top-level name",
        "there is no model runner on the machines",
    ),
    noted(
        "network_mode",
        Text,
        "`none`, `host`, `service:x`, `container:x` or a driver",
        "`service:x` brings a replica to a machine that runs `x`; `container:x` is a container of the machine; networks of one engine are refused",
    ),
    noted(
        "networks",
        Shape::Names(Names::Bare, NETWORK_USE),
        "networks to join, with aliases and fixed addresses",
        "every service joins the cluster's one network; where a file keeps services apart, that is reported",
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
    honoured("pids_limit", Int, "number of processes; -1 is no limit"),
    noted(
        "platform",
        Text,
        "`os[/arch[/variant]]` to run, and to build when nothing else is said",
        "only machines of that architecture run it",
    ),
    honoured(
        "ports",
        Items(Short::Port, PORT),
        "publishes container ports on every machine that runs a replica",
    ),
    honoured(
        "post_start",
        List(&Object(HOOKS)),
        "commands run inside after the start",
    ),
    refused(
        "pre_start",
        List(&Object(HOOKS)),
        "commands run before the start",
        HOOK,
    ),
    noted(
        "pre_stop",
        List(&Object(HOOKS)),
        "commands run inside before the stop",
        "a failing one is told and does not keep the container from stopping",
    ),
    honoured("privileged", Bool, "all capabilities and devices"),
    honoured(
        "profiles",
        Set(&Text),
        "the service counts only when one of these is active",
    ),
    refused(
        "provider",
        Object(PROVIDER),
        "service run by a plug-in instead of a container",
        "machines run containers only",
    ),
    noted(
        "pull_policy",
        Text,
        "`always`, `never`, `missing`, `build`, `daily`, `weekly`, `every_<duration>`",
        "`daily`, `weekly` and `every_…` pull with each deployment",
    ),
    reported(
        "pull_refresh_after",
        Text,
        "age at which a pulled image is looked up again",
        "ages of images are not looked at",
    ),
    honoured("read_only", Bool, "root file system read only"),
    noted(
        "restart",
        Text,
        "when Docker restarts it: `no`, `always`, `on-failure[:max]`, `unless-stopped`",
        "`unless-stopped` when nothing is said: a service on several machines comes back by itself",
    ),
    honoured("runtime", Text, "OCI runtime, such as `runc` or `nvidia`"),
    honoured(
        "scale",
        Int,
        "default number of containers; must agree with `deploy.replicas`",
    ),
    noted(
        "secrets",
        Items(Short::Secret, GRANT),
        "grants secrets as files",
        "contents travel with the deployment, and lie on the machines readable by root only; external ones are refused",
    ),
    noted(
        "security_opt",
        Distinct(&Text),
        "seccomp, AppArmor, SELinux, no-new-privileges",
        "a seccomp profile in a file is refused: put its JSON there",
    ),
    honoured("shm_size", Size, "size of `/dev/shm`"),
    honoured("stdin_open", Bool, "keep standard input open"),
    honoured(
        "stop_grace_period",
        Duration,
        "how long until SIGKILL (10 s)",
    ),
    honoured("stop_signal", Text, "signal that asks it to stop (SIGTERM)"),
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
    honoured("tty", Bool, "give it a terminal"),
    honoured(
        "ulimits",
        Named(&OrObject(Scalar::Number, ULIMIT)),
        "resource limits per process; one number is soft and hard",
    ),
    reported(
        "use_api_socket",
        Bool,
        "gives it the engine's socket and the user's registry logins",
        "the engine's socket is not handed out",
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
        "an absolute path is the machine's own; a relative one travels with the deployment, see above",
    ),
    noted(
        "volumes_from",
        Distinct(&Text),
        "all mounts of another service or container",
        "mounts of a service of the project; those without a name are reported, containers are refused",
    ),
    honoured("working_dir", Text, "directory the command starts in"),
    reported(
        "x-caddy",
        Any,
        "Uncloud: its part of the Caddy configuration",
        "there is no ingress yet",
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
        "`…@host` publishes on the machine; the other forms are reported: there is no ingress yet",
    ),
    noted(
        "x-pre_deploy",
        Any,
        "Uncloud: a command run once before the deployment",
        "on one machine, before any replica changes",
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
        "what must hold before this service starts",
    ),
    honoured(
        "required",
        Bool,
        "`false`: a dependency that is not there is no error",
    ),
    noted(
        "restart",
        Bool,
        "restart this service when the dependency is updated",
        "its replicas are replaced when a deployment replaces those of the dependency",
    ),
];

const DEVICE: &[Key] = &[
    honoured("source", Text, "on the host, or a CDI name"),
    honoured("target", Text, "in the container"),
    honoured("permissions", Text, "of `r`, `w`, `m`"),
];

const ENV_FILE: &[Key] = &[
    honoured("path", Path, "the file, from the project's directory"),
    honoured("required", Bool, "`false` allows absence"),
    honoured(
        "format",
        OneOf(&["raw"]),
        "`raw` turns off quotes and variables",
    ),
];

const EXTENDS: &[Key] = &[
    honoured("service", Text, "which service"),
    honoured("file", Path, "of which file; absent: this one"),
];

const HEALTHCHECK: &[Key] = &[
    honoured(
        "test",
        Test,
        "command: list with `CMD`, `CMD-SHELL` or `NONE` first; a string is a shell command",
    ),
    honoured("interval", Duration, "between checks (30 s)"),
    honoured("timeout", Duration, "per check (30 s)"),
    honoured(
        "retries",
        Number,
        "failures in a row before it is unhealthy (3)",
    ),
    honoured(
        "start_period",
        Duration,
        "failures in this time after the start do not count",
    ),
    noted(
        "start_interval",
        Duration,
        "between checks during the start period",
        "Docker before 25 has none: the usual interval is used there",
    ),
    honoured(
        "disable",
        Bool,
        "as `test: [NONE]`: no check, not even the image's",
    ),
];

const LOGGING: &[Key] = &[
    honoured("driver", Text, "the driver"),
    honoured("options", Options, "its options"),
];

const MODEL_USE: &[Key] = &[
    honoured("endpoint_var", Text, "variable that gets the endpoint"),
    honoured("model_var", Text, "variable that gets the model"),
];

const NETWORK_USE: &[Key] = &[
    noted(
        "aliases",
        Set(&Text),
        "further names on this network",
        "known to the whole project",
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
        "the engine names it",
    ),
    reported(
        "driver_opts",
        Options,
        "options of the driver",
        "the cluster's network has no options of its own",
    ),
    noted(
        "priority",
        Number,
        "order of joining",
        "without effect: there is one network",
    ),
    noted(
        "gw_priority",
        Number,
        "which network is the default gateway",
        "without effect: there is one network",
    ),
];

const DEVELOP: &[Key] = &[honoured("watch", List(&Object(WATCH)), "what is watched")];

const WATCH: &[Key] = &[
    honoured("path", Path, "file or directory to watch"),
    honoured(
        "action",
        OneOf(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
        "what a change leads to",
    ),
    honoured("target", Text, "where it goes in the container"),
    honoured("ignore", TextOrList, "what is left out"),
    honoured("include", TextOrList, "what alone counts"),
    honoured("exec", Object(HOOKS), "what to run after syncing"),
    honoured("initial_sync", Bool, "sync at the start, too"),
];

const HOOKS: &[Key] = &[
    honoured("command", Command, "what to run"),
    honoured("user", Text, "as whom"),
    honoured("privileged", Bool, "with all capabilities"),
    honoured("working_dir", Text, "where"),
    honoured("environment", Pairs(FromProcess), "with which variables"),
    honoured("image", Text, "in a container of this image"),
    honoured("per_replica", Bool, "once for each container"),
];

const PROVIDER: &[Key] = &[
    honoured("type", Text, "the plug-in"),
    honoured("options", Any, "what it is told"),
];

const ULIMIT: &[Key] = &[
    honoured("soft", Int, "may be raised up to `hard`"),
    honoured("hard", Int, "cannot be raised"),
];
