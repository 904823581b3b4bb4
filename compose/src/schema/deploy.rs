//! Keys of `deploy`.

use super::Shape::{
    Count, Distinct, Duration, Int, Items, List, Number, Object, OneOf, Options, Pairs, Size, Text,
};
use super::Unset::Empty;
use super::{Key, Shape, Short, honoured, noted, reported};

const ROLLBACK: &str = "going back starts what ran before as fast as it can be";
const ENGINE: &str = "the engine decides when it starts a container again";

/// `deploy`.
pub(crate) const DEPLOY: &[Key] = &[
    noted(
        "mode",
        OneOf(&["replicated", "global", "replicated-job", "global-job"]),
        "a number of replicas, or one on every machine",
        "jobs are refused: a service runs until it is removed",
    ),
    noted(
        "endpoint_mode",
        OneOf(&["vip", "dnsrr"]),
        "how the name is answered",
        "both: the name gives the addresses of the replicas that serve, in random order",
    ),
    honoured("replicas", Int, "how many containers, in replicated mode"),
    honoured(
        "labels",
        Pairs(Empty),
        "metadata on the service, not on its containers",
    ),
    honoured("resources", Object(RESOURCES), "limits and reservations"),
    honoured(
        "restart_policy",
        Object(RESTART_POLICY),
        "restarts, in place of `restart`",
    ),
    honoured("placement", Object(PLACEMENT), "which machines"),
    honoured(
        "update_config",
        Object(UPDATE),
        "how a change is rolled out",
    ),
    reported(
        "rollback_config",
        Object(ROLLBACK_CONFIG),
        "how a failed change is taken back",
        ROLLBACK,
    ),
];

const RESOURCES: &[Key] = &[
    honoured("limits", Object(LIMIT), "no more than this"),
    honoured(
        "reservations",
        Object(RESERVATION),
        "must be free to be placed",
    ),
];

const LIMIT: &[Key] = &[
    honoured("cpus", Number, "most CPU"),
    honoured("memory", Size, "most memory"),
    honoured("pids", Int, "most processes"),
];

const RESERVATION: &[Key] = &[
    honoured("cpus", Number, "CPU that must be free"),
    honoured("memory", Size, "memory that must be free"),
    reported(
        "generic_resources",
        List(&Object(GENERIC)),
        "user-defined resources that must be there",
        "machines do not say what they have beyond CPUs and memory: use `placement.constraints`",
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
    "kind and number",
)];

const DISCRETE: &[Key] = &[
    honoured("kind", Text, "which"),
    honoured("value", Number, "how many"),
];

/// A request for devices.
pub(crate) const GPU: &[Key] = &[
    honoured(
        "capabilities",
        Distinct(&Text),
        "what they must be able to do",
    ),
    honoured("count", Count, "how many, or `all`"),
    honoured("device_ids", Distinct(&Text), "which"),
    honoured("driver", Text, "of which driver"),
    honoured("options", Options, "what the driver is told"),
];

const RESTART_POLICY: &[Key] = &[
    honoured("condition", Text, "`none`, `on-failure`, `any` (default)"),
    reported("delay", Duration, "wait between attempts", ENGINE),
    honoured("max_attempts", Int, "attempts before giving up"),
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
        "must hold: `node.labels.x==y`, `node.hostname!=z`",
        "`node.id`, `node.hostname`, `node.role` (each machine is both), `node.platform.os`, `node.platform.arch`, `node.labels.*` (`uc machine label`)",
    ),
    honoured(
        "preferences",
        List(&Shape::Object(PREFERENCE)),
        "spread over the values of a label",
    ),
    honoured("max_replicas_per_node", Int, "most replicas on one machine"),
];

const PREFERENCE: &[Key] = &[honoured("spread", Text, "the label")];

const UPDATE: &[Key] = &[
    noted(
        "parallelism",
        Int,
        "how many at a time; 0 is all",
        "one when nothing is said",
    ),
    honoured("delay", Duration, "wait between groups"),
    noted(
        "failure_action",
        Text,
        "`rollback`, `pause`, `continue`",
        "`rollback` when nothing is said: the whole deployment goes back",
    ),
    noted(
        "monitor",
        Duration,
        "how long a new one is watched",
        "2 s without a health check when nothing is said",
    ),
    honoured(
        "max_failure_ratio",
        Number,
        "share of failures that is tolerated",
    ),
    noted(
        "order",
        OneOf(&["start-first", "stop-first"]),
        "whether the new one starts before the old one stops",
        "when nothing is said: `start-first` where ports and volumes allow it",
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
