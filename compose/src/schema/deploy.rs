//! Keys of `deploy`.

use super::Shape::{
    Count, Duration, Int, Items, List, Number, Object, OneOf, Options, Pairs, Set, Size, Text,
};
use super::Short;
use super::Unset::Empty;
use super::{Key, Shape, honoured, noted, reported};

const LIMITS: &str =
    "resources are neither limited nor reserved yet: the container may use the whole machine";
const PACE: &str = "the pace of an update is not configurable yet: one replica after another";
const ROLLBACK: &str = "a failed deployment always goes back to what ran before";

/// `deploy`.
pub(crate) const DEPLOY: &[Key] = &[
    noted(
        "mode",
        OneOf(&["replicated", "global", "replicated-job", "global-job"]),
        "a number of replicas, or one on every machine",
        "jobs are refused",
    ),
    reported(
        "endpoint_mode",
        OneOf(&["vip", "dnsrr"]),
        "how the name is answered",
        "a service's name gives the addresses of its replicas",
    ),
    honoured("replicas", Int, "how many containers, in replicated mode"),
    reported(
        "labels",
        Pairs(Empty),
        "metadata on the service, not on its containers",
        "a service has no labels of its own: use `labels`",
    ),
    reported("resources", Object(RESOURCES), "limits and reservations", LIMITS),
    reported("restart_policy", Object(RESTART_POLICY), "restarts, in place of `restart`", "use `restart`"),
    reported(
        "placement",
        Object(PLACEMENT),
        "which machines",
        "constraints are not read yet: use `x-machines`",
    ),
    honoured("update_config", Object(UPDATE), "how a change is rolled out"),
    reported("rollback_config", Object(ROLLBACK_CONFIG), "how a failed change is taken back", ROLLBACK),
];

const RESOURCES: &[Key] = &[
    honoured("limits", Object(LIMIT), "no more than this"),
    honoured("reservations", Object(RESERVATION), "must be free to be placed"),
];

const LIMIT: &[Key] = &[
    honoured("cpus", Number, "most CPU"),
    honoured("memory", Size, "most memory"),
    honoured("pids", Int, "most processes"),
];

const RESERVATION: &[Key] = &[
    honoured("cpus", Number, "CPU that must be free"),
    honoured("memory", Size, "memory that must be free"),
    honoured("generic_resources", List(&Object(GENERIC)), "user-defined resources that must be there"),
    honoured("devices", Items(Short::None, GPU), "device requests: GPUs, TPUs"),
];

const GENERIC: &[Key] = &[honoured("discrete_resource_spec", Object(DISCRETE), "kind and number")];

const DISCRETE: &[Key] = &[honoured("kind", Text, "which"), honoured("value", Number, "how many")];

/// A request for devices.
pub(crate) const GPU: &[Key] = &[
    honoured("capabilities", Set(&Text), "what they must be able to do"),
    honoured("count", Count, "how many, or `all`"),
    honoured("device_ids", Set(&Text), "which"),
    honoured("driver", Text, "of which driver"),
    honoured("options", Options, "what the driver is told"),
];

const RESTART_POLICY: &[Key] = &[
    honoured("condition", Text, "`none`, `on-failure`, `any` (default)"),
    honoured("delay", Duration, "wait between attempts"),
    honoured("max_attempts", Int, "attempts before giving up"),
    honoured("window", Duration, "how long it must run to count as started"),
];

const PLACEMENT: &[Key] = &[
    honoured("constraints", Set(&Text), "must hold: `node.labels.x==y`, `node.hostname!=z`"),
    honoured("preferences", List(&Shape::Object(PREFERENCE)), "spread over the values of a label"),
    honoured("max_replicas_per_node", Int, "most replicas on one machine"),
];

const PREFERENCE: &[Key] = &[honoured("spread", Text, "the label")];

const UPDATE: &[Key] = &[
    reported("parallelism", Int, "how many at a time; 0 is all", PACE),
    reported("delay", Duration, "wait between groups", PACE),
    reported("failure_action", Text, "`continue`, `rollback`, `pause`", ROLLBACK),
    reported(
        "monitor",
        Duration,
        "how long a new one is watched",
        "a new replica is watched for a fixed time",
    ),
    reported("max_failure_ratio", Number, "share of failures that is tolerated", "no failure is tolerated"),
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
    honoured("order", OneOf(&["start-first", "stop-first"]), "as in update_config"),
];
