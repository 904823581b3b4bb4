//! The table of a service's fields.

/// Calls a macro with one row for each field of [`ServiceSpec`](crate::v1::ServiceSpec), in the
/// order in which differences are shown: `PLACE FIELD: KIND(KEY);`.
///
/// - `PLACE` is `identity` (another value is another service), `container` (a change needs a new
///   container) or `service` (it does not).
/// - `FIELD` is the name in the protocol and in JSON.
/// - `KIND` says how its values are compared, shown and printed. A kind of several fields is a
///   plain one (`text`, `texts`, `flag`, `map`); the others belong to one message.
/// - `KEY` is the key of the compose file that plans and reasons name.
///
/// The revision, a plan's differences and reasons, and the JSON of a spec are made from it. Each of
/// them uses the fields by name, so a row for a field that does not exist, and a field without a
/// row, do not compile.
#[macro_export]
macro_rules! service_fields {
    ($then:ident) => {
        $then! {
            identity project: identity("project");
            identity name: identity("name");
            container image: required("image");
            container image_digest: digest("image digest");
            container built: flag("build");
            container platform: text("platform");
            container command: command("command");
            container entrypoint: command("entrypoint");
            container environment: map("environment");
            container secret_environment: secrets("environment");
            container ports: ports("ports");
            container mounts: mounts("volumes");
            container healthcheck: healthcheck("healthcheck");
            service depends_on: dependencies("depends_on");
            service mode: enumeration("deploy.mode");
            service replicas: replicas("deploy.replicas");
            container user: text("user");
            container working_dir: text("working_dir");
            container labels: map("labels");
            container annotations: map("annotations");
            container stop_grace_period_ms: milliseconds("stop_grace_period");
            container stop_signal: text("stop_signal");
            container restart: enumeration("restart");
            container restart_attempts: restart_attempts("restart");
            container init: flag("init");
            container read_only: flag("read_only");
            container tty: flag("tty");
            container stdin_open: flag("stdin_open");
            container runtime: text("runtime");
            container logging: logging("logging");
            service pull_policy: enumeration("pull_policy");
            container cap_add: texts("cap_add");
            container cap_drop: texts("cap_drop");
            container privileged: flag("privileged");
            container group_add: texts("group_add");
            container security_opt: security("security_opt");
            container device_cgroup_rules: texts("device_cgroup_rules");
            container devices: devices("devices");
            container device_requests: device_requests("deploy.resources.reservations.devices");
            container sysctls: map("sysctls");
            container storage_opt: map("storage_opt");
            container network_mode: text("network_mode");
            container hostname: text("hostname");
            container domainname: text("domainname");
            container mac_address: text("mac_address");
            container extra_hosts: texts("extra_hosts");
            container dns: texts("dns");
            container dns_search: texts("dns_search");
            container dns_options: texts("dns_opt");
            service aliases: texts("networks.aliases");
            container ipc: text("ipc");
            container pid: text("pid");
            container uts: text("uts");
            container userns: text("userns_mode");
            container cgroup: text("cgroup");
            container cgroup_parent: text("cgroup_parent");
            container shared_revisions: revisions("shared service");
            container shm_size: bytes("shm_size");
            container ulimits: ulimits("ulimits");
            container resources: resources("deploy.resources");
            container files: contents("configs, secrets and volumes");
            container post_start: hooks("post_start");
            container pre_stop: hooks("pre_stop");
            service pre_deploy: pre_deploy("x-pre_deploy");
            service update_order: enumeration("deploy.update_config.order");
            service update: update("deploy.update_config");
            service placement: placement("deploy.placement");
            service service_labels: map("deploy.labels");
            service machines: texts("x-machines");
            service reschedule_after_ms: milliseconds("x-reschedule");
        }
    };
}
