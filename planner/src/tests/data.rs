//! Data that replicas write: the order of an update, and what stays behind on another machine.

use uc_api::v1::ScaleService;

use super::*;

/// As the engine names an anonymous volume.
const ANONYMOUS: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn anonymous_volume(target: &str) -> MountSpec {
    MountSpec {
        kind: MountKind::Volume.into(),
        source: ANONYMOUS.into(),
        target: target.into(),
        ..Default::default()
    }
}

/// The order in which a replica of `old` is replaced by one of `new`.
fn order(old: &ServiceSpec, new: ServiceSpec, of_old: Vec<MountSpec>) -> UpdateOrder {
    let mut observed = cluster(&["m1"])
        .with_replicas(old, &["m1"])
        .with_service(old);
    observed.machine("m1").replicas[0].mounts.extend(of_old);
    let plan = plan(&deploy(&[new.image("web:2")]), &observed).unwrap();
    let mut steps = plan.services[0].steps.iter();
    let step = steps.find(|step| step.action() == ReplicaAction::Replace);
    step.unwrap().order()
}

#[test]
fn lone_replica_that_writes_to_its_machine_is_stopped_first() {
    use UpdateOrder::{StartFirst, StopFirst};
    for (path, expected) in [
        ("/srv/db", StopFirst),
        ("/", StopFirst),
        ("/etc/app", StopFirst),
        ("/runtime", StopFirst),
        ("/var/run/docker.sock", StartFirst),
        ("/srv/php/fpm.sock", StartFirst),
        ("/run", StartFirst),
        ("/dev/snd", StartFirst),
        ("/sys/fs/cgroup", StartFirst),
        ("/lib/modules/", StartFirst),
        ("/etc/localtime", StartFirst),
    ] {
        let web = service("web", 1).bind(path);
        assert_eq!(order(&web, web.clone(), vec![]), expected, "{path}");
        let mut read_only = web.clone();
        read_only.mounts[0].read_only = true;
        assert_eq!(order(&web, read_only, vec![]), StartFirst, "{path} read");
        let mut asked = web.clone();
        asked.set_update_order(StartFirst);
        assert_eq!(order(&web, asked, vec![]), StartFirst, "{path}, as asked");
    }
    let two = service("web", 2).bind("/srv/db");
    assert_eq!(order(&two, two.clone(), vec![]), StartFirst);
    let everywhere = global("web").bind("/srv/db");
    assert_eq!(order(&everywhere, everywhere.clone(), vec![]), StopFirst);
}

#[test]
fn anonymous_volume_that_is_handed_on_is_not_written_by_two() {
    use UpdateOrder::{StartFirst, StopFirst};
    let web = service("web", 1);
    let of_old = || vec![anonymous_volume("/data")];
    assert_eq!(order(&web, web.clone(), of_old()), StopFirst);
    let mut mounts_otherwise = web.clone();
    mounts_otherwise.mounts = vec![MountSpec {
        kind: MountKind::Tmpfs.into(),
        target: "/data".into(),
        ..Default::default()
    }];
    assert_eq!(order(&web, mounts_otherwise, of_old()), StartFirst);
    // Each replica has its own, so it is not about how many there are.
    let two = service("web", 2);
    assert_eq!(order(&two, two.clone(), of_old()), StopFirst);
}

#[test]
fn plan_warns_about_paths_of_another_machine() {
    let warnings = |change: &Change, observed: &Observed| plan(change, observed).unwrap().warnings;
    let db = service("db", 1).bind("/srv/db");
    let observed = cluster(&["m1", "m2"])
        .with_replicas(&db, &["m1"])
        .with_service(&db);
    let scale = |replicas| {
        Change::Scale(ScaleService {
            service: "shop/db".into(),
            replicas,
        })
    };
    assert_eq!(
        warnings(&scale(2), &observed),
        ["shop/db: `/srv/db` on m2 is not that of m1; its content is not copied"]
    );
    assert_eq!(
        warnings(&deploy(&[db.clone().on(&["m2"])]), &observed),
        ["shop/db: `/srv/db` on m2 is not that of m1; its content is not copied"]
    );
    assert!(warnings(&deploy(&[db.clone().image("db:2")]), &observed).is_empty());
    let first = deploy(std::slice::from_ref(&db));
    assert!(warnings(&first, &cluster(&["m1", "m2"])).is_empty());
    let socket = service("db", 1).bind("/var/run/docker.sock");
    let observed = cluster(&["m1", "m2"])
        .with_replicas(&socket, &["m1"])
        .with_service(&socket);
    assert!(warnings(&scale(2), &observed).is_empty());
}

#[test]
fn plan_warns_about_anonymous_volumes_that_stay_behind() {
    let db = service("db", 1);
    let mut observed = cluster(&["m1", "m2"])
        .with_replicas(&db, &["m1"])
        .with_service(&db);
    observed.machine("m1").replicas[0]
        .mounts
        .push(anonymous_volume("/data"));
    assert_eq!(
        plan(&deploy(&[db.on(&["m2"])]), &observed)
            .unwrap()
            .warnings,
        [
            "shop/db: the data in `/data` stays on m1, in an anonymous volume that is removed with the old replica"
        ]
    );
}

#[test]
fn rescheduling_has_no_effect_on_what_stays() {
    let asks = || ServiceSpec {
        reschedule_after_ms: Some(60_000),
        ..service("web", 1)
    };
    let warnings = |spec: ServiceSpec, machines: &[&str]| {
        let plan = plan(&deploy(&[spec]), &cluster(machines)).unwrap();
        plan.warnings
    };
    let all = ["m1", "m2", "m3"];
    assert_eq!(warnings(asks(), &all), [""; 0]);
    assert_eq!(warnings(service("web", 1), &["m1"]), [""; 0]);
    let mut with_data = asks();
    with_data.mounts.push(anonymous_volume("/data"));
    with_data.mounts[0].source.clear();
    let global = ServiceSpec {
        mode: ServiceMode::Global.into(),
        ..asks()
    };
    for (spec, machines, why) in [
        (with_data, &all[..], "its data in `/data` is on the machine"),
        (global, &all, "it runs on every machine already"),
        (
            asks(),
            &all[..2],
            "more than half of the machines must see that one is down, so it takes three",
        ),
    ] {
        assert_eq!(
            warnings(spec, machines),
            [format!("shop/web: `x-reschedule` has no effect: {why}")]
        );
    }
}

#[test]
fn only_volumes_of_servers_have_the_same_data_on_every_machine() {
    let volume = |driver: &str, options: &[(&str, &str)], external| v1::VolumeSpec {
        name: "data".into(),
        driver: driver.into(),
        driver_opts: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        external,
        ..v1::VolumeSpec::default()
    };
    let bind = [("type", "none"), ("o", "bind"), ("device", "/srv/pg")];
    for (volume, outside) in [
        (volume("", &[], false), false),
        (volume("local", &bind, false), false),
        (
            volume("local", &[("type", "ext4"), ("device", "/dev/sdb1")], false),
            false,
        ),
        (volume("", &[("type", "tmpfs")], false), false),
        (
            volume("local", &[("type", "nfs"), ("device", ":/srv")], false),
            true,
        ),
        (volume("", &[("type", "cifs")], false), true),
        (volume("rexray", &[], false), true),
        (volume("", &[], true), false),
    ] {
        assert_eq!(
            crate::data::keeps_data_outside(&volume),
            outside,
            "{volume:?}"
        );
    }
}
