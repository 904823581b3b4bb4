//! Keys of `deploy`.

use super::Shape::{
    Count, Distinct, Duration, Int, Items, List, Number, Object, OneOf, Options, Pairs, Size, Text,
};
use super::Unset::Empty;
use super::{Key, Reason, Shape, Short, because, honoured, noted, reported};

const ROLLBACK: Reason = because(
    "a rollback restores all earlier replicas as fast as possible",
    "remove it; `update_config` sets the pace of a deployment",
);
const ENGINE: Reason = because(
    "Docker on the machine decides when to restart a container",
    "remove it; Docker waits longer before each restart, up to one minute",
);

/// Keys of `deploy`.
pub(crate) const DEPLOY: &[Key] = &[
    noted(
        "mode",
        OneOf(&["replicated", "global", "replicated-job", "global-job"]),
        "a number of replicas, or one replica on every machine",
        "jobs are refused, because a service runs until it is removed",
    ),
    noted(
        "endpoint_mode",
        OneOf(&["vip", "dnsrr"]),
        "how the service's name is resolved",
        "always to the addresses of the healthy replicas in random order, as `dnsrr` means; `vip` is reported, see above",
    ),
    honoured("replicas", Int, "number of replicas, in replicated mode"),
    honoured(
        "labels",
        Pairs(Empty),
        "metadata on the service, not on its containers",
    ),
    honoured("resources", Object(RESOURCES), "limits and reservations"),
    honoured(
        "restart_policy",
        Object(RESTART_POLICY),
        "when containers restart; overrides `restart`",
    ),
    honoured("placement", Object(PLACEMENT), "which machines can run it"),
    honoured("update_config", Object(UPDATE), "how replicas are replaced"),
    reported(
        "rollback_config",
        Object(ROLLBACK_CONFIG),
        "how a failed deployment is rolled back",
        ROLLBACK,
    ),
];

const RESOURCES: &[Key] = &[
    honoured("limits", Object(LIMIT), "upper bounds"),
    honoured(
        "reservations",
        Object(RESERVATION),
        "what a machine must have free",
    ),
];

const LIMIT: &[Key] = &[
    honoured("cpus", Number, "CPUs"),
    honoured("memory", Size, "memory"),
    honoured("pids", Int, "number of processes"),
];

const RESERVATION: &[Key] = &[
    honoured("cpus", Number, "CPU that must be free"),
    honoured("memory", Size, "memory that must be free"),
    reported(
        "generic_resources",
        List(&Object(GENERIC)),
        "user-defined resources that a machine must have",
        because(
            "machines report only CPUs and memory",
            "label machines (`uc machine label`), and name the label in `placement.constraints`",
        ),
    ),
    honoured(
        "devices",
        Items(Short::Request, GPU),
        "device requests: GPUs, TPUs",
    ),
];

const GENERIC: &[Key] = &[honoured(
    "discrete_resource_spec",
    Object(DISCRETE),
    "kind and number of the resource",
)];

const DISCRETE: &[Key] = &[
    honoured("kind", Text, "name of the resource"),
    honoured("value", Number, "number"),
];

/// Keys of a request for devices.
pub(crate) const GPU: &[Key] = &[
    honoured(
        "capabilities",
        Distinct(&Text),
        "what the devices must be able to do",
    ),
    honoured("count", Count, "number of devices, or `all`"),
    honoured("device_ids", Distinct(&Text), "ids of the devices"),
    honoured("driver", Text, "driver of the devices"),
    honoured("options", Options, "options of the driver"),
];

const RESTART_POLICY: &[Key] = &[
    honoured("condition", Text, "`none`, `on-failure`, `any` (default)"),
    reported("delay", Duration, "pause between restarts", ENGINE),
    noted(
        "max_attempts",
        Int,
        "restarts before Docker gives up",
        "with `condition: on-failure`; reported with another condition",
    ),
    reported(
        "window",
        Duration,
        "how long it must run to count as started",
        ENGINE,
    ),
];

const PLACEMENT: &[Key] = &[
    noted(
        "constraints",
        List(&Text),
        "rules such as `node.labels.x==y`, `node.hostname!=z`",
        "on `node.id`, `node.hostname`, `node.role` (each machine has both), `node.platform.os`, `node.platform.arch`, `node.labels.*` (`uc machine label`)",
    ),
    honoured(
        "preferences",
        List(&Shape::Object(PREFERENCE)),
        "spread replicas over the values of a label",
    ),
    honoured(
        "max_replicas_per_node",
        Int,
        "maximum number of replicas on one machine",
    ),
];

const PREFERENCE: &[Key] = &[honoured("spread", Text, "the label")];

const UPDATE: &[Key] = &[
    noted(
        "parallelism",
        Int,
        "number of replicas at a time; 0 is all",
        "default 1",
    ),
    honoured("delay", Duration, "pause between groups"),
    noted(
        "failure_action",
        Text,
        "`rollback`, `pause`, `continue`",
        "default `rollback`, which rolls back the whole deployment",
    ),
    noted(
        "monitor",
        Duration,
        "how long a new replica is watched",
        "default 2 s without a health check",
    ),
    honoured(
        "max_failure_ratio",
        Number,
        "share of replicas that can fail, 0 to 1",
    ),
    noted(
        "order",
        OneOf(&["start-first", "stop-first"]),
        "whether a new replica starts before the old one stops",
        "default `start-first` where ports and volumes allow it",
    ),
];

const ROLLBACK_CONFIG: &[Key] = &[
    honoured("parallelism", Int, "as in update_config"),
    honoured("delay", Duration, "as in update_config"),
    honoured("failure_action", Text, "`continue` or `pause`"),
    honoured("monitor", Duration, "as in update_config"),
    honoured("max_failure_ratio", Number, "as in update_config"),
    honoured(
        "order",
        OneOf(&["start-first", "stop-first"]),
        "as in update_config",
    ),
];
