//! How the values of each kind of field are compared and shown: a method for each kind of
//! [`uc_api::service_fields!`], with the key and both values.

#![expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "the table hands on a reference to a field of any type"
)]

use std::collections::BTreeMap;

use uc_api::v1::{
    BlockIo, Dependency, DeviceRequest, DeviceSpec, FileSpec, Healthcheck, Hook, Logging,
    MountSpec, Placement, PortSpec, PreDeploy, Resources, StringList, Ulimit, UpdatePolicy,
};

use super::words::{number, short};
use super::{Changes, MASK, shown, words};

type Texts = BTreeMap<String, String>;

impl Changes {
    pub(super) fn text(&mut self, key: &str, old: &str, new: &str) {
        self.add(key, old, new);
    }

    pub(super) fn required(&mut self, key: &str, old: &str, new: &str) {
        self.add(key, old, new);
    }

    pub(super) fn texts(&mut self, key: &str, old: &[String], new: &[String]) {
        self.add(key, old.join(", "), new.join(", "));
    }

    pub(super) fn flag(&mut self, key: &str, old: &bool, new: &bool) {
        let on = |value: bool| if value { "true" } else { "" };
        self.add(key, on(*old), on(*new));
    }

    pub(super) fn map(&mut self, key: &str, old: &Texts, new: &Texts) {
        self.map_as(key, old, new, |name, value| shown(name, value));
    }

    pub(super) fn secrets(&mut self, key: &str, old: &Texts, new: &Texts) {
        self.map_as(key, old, new, |_, _| MASK.to_owned());
    }

    pub(super) fn milliseconds(&mut self, key: &str, old: &Option<u64>, new: &Option<u64>) {
        self.optional(key, old, new, |ms| words::milliseconds(*ms));
    }

    pub(super) fn bytes(&mut self, key: &str, old: &Option<u64>, new: &Option<u64>) {
        self.optional(key, old, new, |size| words::bytes(*size));
    }

    pub(super) fn command(
        &mut self,
        key: &str,
        old: &Option<StringList>,
        new: &Option<StringList>,
    ) {
        self.optional(key, old, new, words::command);
    }

    pub(super) fn healthcheck(
        &mut self,
        key: &str,
        old: &Option<Healthcheck>,
        new: &Option<Healthcheck>,
    ) {
        self.optional(key, old, new, words::healthcheck);
    }

    pub(super) fn ports(&mut self, key: &str, old: &[PortSpec], new: &[PortSpec]) {
        self.list(key, old, new, words::port);
    }

    pub(super) fn mounts(&mut self, key: &str, old: &[MountSpec], new: &[MountSpec]) {
        self.list(key, old, new, words::mount);
    }

    pub(super) fn dependencies(&mut self, key: &str, old: &[Dependency], new: &[Dependency]) {
        self.list(key, old, new, words::dependency);
    }

    pub(super) fn security(&mut self, key: &str, old: &[String], new: &[String]) {
        self.list(key, old, new, |option| words::security(option));
    }

    pub(super) fn devices(&mut self, key: &str, old: &[DeviceSpec], new: &[DeviceSpec]) {
        self.list(key, old, new, words::device);
    }

    pub(super) fn device_requests(
        &mut self,
        key: &str,
        old: &[DeviceRequest],
        new: &[DeviceRequest],
    ) {
        self.list(key, old, new, words::device_request);
    }

    /// Not a key of the file: the service it shares with got another revision.
    pub(super) fn revisions(&mut self, key: &str, old: &[String], new: &[String]) {
        self.list(key, old, new, |revision| short(revision).to_owned());
    }

    pub(super) fn hooks(&mut self, key: &str, old: &[Hook], new: &[Hook]) {
        self.list(key, old, new, words::hook);
    }

    pub(super) fn ulimits(
        &mut self,
        key: &str,
        old: &BTreeMap<String, Ulimit>,
        new: &BTreeMap<String, Ulimit>,
    ) {
        self.map_as(key, old, new, |_, limit| words::ulimit(limit));
    }

    pub(super) fn logging(&mut self, key: &str, old: &Option<Logging>, new: &Option<Logging>) {
        let empty = Logging::default();
        let (old, new) = set_or(old, new, &empty);
        self.add(&format!("{key}.driver"), &old.driver, &new.driver);
        self.map(&format!("{key}.options"), &old.options, &new.options);
    }

    /// How much of its machine it may have.
    pub(super) fn resources(
        &mut self,
        key: &str,
        old: &Option<Resources>,
        new: &Option<Resources>,
    ) {
        let empty = Resources::default();
        let (old, new) = set_or(old, new, &empty);
        let mut add =
            |name: &str, show: &dyn Fn(&Resources) -> String| self.add(name, show(old), show(new));
        let size = |bytes: Option<u64>| bytes.map_or_else(String::new, words::bytes);
        let cores = |nanos: Option<u64>| nanos.map_or_else(String::new, words::cores);
        add(&format!("{key}.limits.cpus"), &|of| cores(of.nano_cpus));
        add(&format!("{key}.limits.memory"), &|of| size(of.memory));
        add(&format!("{key}.limits.pids"), &|of| number(of.pids));
        add(&format!("{key}.reservations.cpus"), &|of| {
            cores(of.reserved_nano_cpus)
        });
        add(&format!("{key}.reservations.memory"), &|of| {
            size(of.reserved_memory)
        });
        add("memswap_limit", &|of| match of.memory_swap {
            Some(limit) => u64::try_from(limit).map_or_else(|_| limit.to_string(), words::bytes),
            None => String::new(),
        });
        add("mem_swappiness", &|of| number(of.memory_swappiness));
        add("cpu_period", &|of| number(of.cpu_period));
        add("cpu_quota", &|of| number(of.cpu_quota));
        add("cpu_rt_period", &|of| number(of.cpu_realtime_period));
        add("cpu_rt_runtime", &|of| number(of.cpu_realtime_runtime));
        add("cpu_shares", &|of| number(of.cpu_shares));
        add("cpuset", &|of| of.cpuset.clone());
        add("oom_kill_disable", &|of| number(of.oom_kill_disable));
        add("oom_score_adj", &|of| number(of.oom_score_adj));
        self.block_io(&old.block_io, &new.block_io);
    }

    fn block_io(&mut self, old: &Option<BlockIo>, new: &Option<BlockIo>) {
        let empty = BlockIo::default();
        let (old, new) = set_or(old, new, &empty);
        self.add(
            "blkio_config.weight",
            number(old.weight),
            number(new.weight),
        );
        for (name, of) in [
            (
                "weight_device",
                (|io| &io.weight_devices) as fn(&BlockIo) -> &Vec<_>,
            ),
            ("device_read_bps", |io| &io.read_bps),
            ("device_write_bps", |io| &io.write_bps),
            ("device_read_iops", |io| &io.read_iops),
            ("device_write_iops", |io| &io.write_iops),
        ] {
            let key = format!("blkio_config.{name}");
            self.list(&key, of(old), of(new), words::device_value);
        }
    }

    /// What travels with the deployment, each under the key of the file that it comes from.
    pub(super) fn contents(&mut self, _keys: &str, old: &[FileSpec], new: &[FileSpec]) {
        for (key, prefix) in [
            ("configs", "config "),
            ("secrets", "secret "),
            ("volumes", ""),
        ] {
            // The same content may be at several places.
            let by_name = |files: &[FileSpec]| {
                let mut named: BTreeMap<String, Vec<FileSpec>> = BTreeMap::new();
                for file in files.iter().filter(|file| key_of(file) == key) {
                    let name = file.name.strip_prefix(prefix).unwrap_or(&file.name);
                    named.entry(name.to_owned()).or_default().push(file.clone());
                }
                named
            };
            self.map_as(key, &by_name(old), &by_name(new), |_, files| {
                files.iter().map(words::file).collect::<Vec<_>>().join(", ")
            });
        }
    }

    pub(super) fn pre_deploy(
        &mut self,
        key: &str,
        old: &Option<PreDeploy>,
        new: &Option<PreDeploy>,
    ) {
        self.optional(key, old, new, words::run_before);
        let empty = PreDeploy::default();
        let (old, new) = set_or(old, new, &empty);
        let key = format!("{key}.environment");
        self.map(&key, &old.environment, &new.environment);
    }

    pub(super) fn update(
        &mut self,
        key: &str,
        old: &Option<UpdatePolicy>,
        new: &Option<UpdatePolicy>,
    ) {
        let empty = UpdatePolicy::default();
        let (old, new) = set_or(old, new, &empty);
        let mut add = |name: &str, show: &dyn Fn(&UpdatePolicy) -> String| {
            self.add(&format!("{key}.{name}"), show(old), show(new));
        };
        add("parallelism", &|of| number(of.parallelism));
        add("delay", &|of| words::unless_zero(of.delay_ms));
        add("monitor", &|of| {
            of.monitor_ms.map_or_else(String::new, words::milliseconds)
        });
        add("failure_action", &words::failure_action);
        add("max_failure_ratio", &|of| match of.max_failure_ratio {
            0.0 => String::new(),
            ratio => ratio.to_string(),
        });
    }

    pub(super) fn placement(
        &mut self,
        key: &str,
        old: &Option<Placement>,
        new: &Option<Placement>,
    ) {
        let empty = Placement::default();
        let (old, new) = set_or(old, new, &empty);
        let constraints = format!("{key}.constraints");
        self.texts(&constraints, &old.constraints, &new.constraints);
        self.texts(&format!("{key}.preferences"), &old.spread, &new.spread);
        let most = |placement: &Placement| match placement.max_replicas_per_machine {
            0 => String::new(),
            most => most.to_string(),
        };
        let per_node = format!("{key}.max_replicas_per_node");
        self.add(&per_node, most(old), most(new));
    }

    /// One text for the whole value; empty where it is not set.
    fn optional<T>(
        &mut self,
        key: &str,
        old: &Option<T>,
        new: &Option<T>,
        show: impl Fn(&T) -> String,
    ) {
        let show = |value: &Option<T>| value.as_ref().map_or_else(String::new, &show);
        self.add(key, show(old), show(new));
    }
}

/// A message that is not set has the fields of an empty one.
fn set_or<'a, T>(old: &'a Option<T>, new: &'a Option<T>, empty: &'a T) -> (&'a T, &'a T) {
    (old.as_ref().unwrap_or(empty), new.as_ref().unwrap_or(empty))
}

fn key_of(file: &FileSpec) -> &'static str {
    match file.name.split_once(' ') {
        Some(("config", _)) => "configs",
        Some(("secret", _)) => "secrets",
        _ => "volumes",
    }
}
