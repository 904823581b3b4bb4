//! Where services with volumes go, as a table.

use uc_api::v1::VolumeSpec;

use super::*;

/// What, the cluster, the services, the volumes described, the plan.
type Case = (
    &'static str,
    Observed,
    Vec<ServiceSpec>,
    Vec<VolumeSpec>,
    &'static str,
);

#[test]
fn scheduling() {
    let three = || cluster(&["m1", "m2", "m3"]);
    let db = || service("db", 1).mount("data");
    let external = |name: &str| VolumeSpec {
        name: name.into(),
        external: true,
        ..VolumeSpec::default()
    };
    let nfs = VolumeSpec {
        name: "data".into(),
        driver: "nfs".into(),
        ..VolumeSpec::default()
    };
    let cases: Vec<Case> = vec![
        (
            "a missing volume is made where the replica goes",
            three(),
            vec![db()],
            vec![],
            "volume data on m1\ncreate db on m1",
        ),
        (
            "all replicas go to the one machine",
            three(),
            vec![service("db", 3).mount("data")],
            vec![],
            "volume data on m1\ncreate db on m1\ncreate db on m1\ncreate db on m1",
        ),
        (
            "an existing volume decides",
            three().with_volume("data", &["m2"]),
            vec![db()],
            vec![],
            "create db on m2",
        ),
        (
            "a volume on several machines: spread over these",
            three().with_volume("data", &["m2", "m3"]),
            vec![service("db", 2).mount("data")],
            vec![],
            "create db on m2\ncreate db on m3",
        ),
        (
            "several volumes: a machine that has all",
            three()
                .with_volume("data", &["m1", "m2"])
                .with_volume("logs", &["m2", "m3"]),
            vec![db().mount("logs")],
            vec![],
            "create db on m2",
        ),
        (
            "one of several is missing: it is made beside the other",
            three().with_volume("data", &["m3"]),
            vec![db().mount("logs")],
            vec![],
            "volume logs on m3\ncreate db on m3",
        ),
        (
            "two missing volumes of one service are made together",
            three(),
            vec![db().mount("logs")],
            vec![],
            "volume data on m1\nvolume logs on m1\ncreate db on m1",
        ),
        (
            "services that share a missing volume go together",
            three(),
            vec![db(), service("backup", 1).mount("data")],
            vec![],
            "volume data on m1\ncreate backup on m1\ncreate db on m1",
        ),
        (
            "sharing carries over: a-data, data-b",
            three(),
            vec![
                service("a", 1).mount("x"),
                service("b", 1).mount("x").mount("y"),
                service("c", 2).mount("y"),
            ],
            vec![],
            "volume x on m1\nvolume y on m1\ncreate a on m1\ncreate b on m1\ncreate c on m1\ncreate c on m1",
        ),
        (
            "an existing volume of one draws the others with it",
            three().with_volume("x", &["m3"]),
            vec![
                service("a", 1).mount("x").mount("y"),
                service("b", 1).mount("y"),
            ],
            vec![],
            "volume y on m3\ncreate a on m3\ncreate b on m3",
        ),
        (
            "services with volumes of their own are spread",
            three(),
            vec![db(), service("files", 1).mount("files")],
            vec![],
            "volume data on m1\nvolume files on m2\ncreate db on m1\ncreate files on m2",
        ),
        (
            "the allow list chooses the machine",
            three(),
            vec![db().on(&["m3"]), service("backup", 1).mount("data")],
            vec![],
            "volume data on m3\ncreate backup on m3\ncreate db on m3",
        ),
        (
            "the allow list is against the volume",
            three().with_volume("data", &["m1"]),
            vec![db().on(&["m2"])],
            vec![],
            "error: no machine is allowed to run service `shop/db` and has its volumes: volume `data` is on m1; x-machines allows m2",
        ),
        (
            "volumes on different machines",
            three()
                .with_volume("data", &["m1"])
                .with_volume("logs", &["m2"]),
            vec![db().mount("logs")],
            vec![],
            "error: no machine is allowed to run service `shop/db` and has its volumes: volume `data` is on m1; volume `logs` is on m2",
        ),
        (
            "allow lists that have nothing in common",
            three(),
            vec![
                db().on(&["m1"]),
                service("backup", 1).mount("data").on(&["m2"]),
            ],
            vec![],
            "error: services shop/backup and shop/db share volume `data`, but no machine is allowed to run all of them",
        ),
        (
            "only on a machine that is down: never a second one",
            three().with_volume("data", &["m2"]).down("m2"),
            vec![db()],
            vec![],
            "error: volume `data` of service `shop/db` is only on m2, which is unreachable",
        ),
        (
            "the same, but nobody asked about that service",
            three()
                .with_volume("data", &["m2"])
                .with_replicas(&db(), &["m2"])
                .with_service(&db())
                .down("m2"),
            vec![db(), service("web", 1)],
            vec![],
            "create web on m1\n\
             warning: shop/db: its volume `data` is on m2, which is unreachable; the service is not changed",
        ),
        (
            "only a container says that it is there",
            three().with_replicas(&db(), &["m3"]).down("m3"),
            vec![db().image("db:2")],
            vec![],
            "error: volume `data` of service `shop/db` is only on m3, which is unreachable",
        ),
        (
            "on a machine that is up and on one that is down: the one that is up",
            three().with_volume("data", &["m2", "m3"]).down("m2"),
            vec![db()],
            vec![],
            "create db on m3",
        ),
        (
            "external and there",
            three().with_volume("data", &["m2"]),
            vec![db()],
            vec![external("data")],
            "create db on m2",
        ),
        (
            "external and missing",
            three(),
            vec![db()],
            vec![external("data")],
            "error: volume `data` of service `shop/db` is external, but the machines do not have it",
        ),
        (
            "global: made on each",
            three(),
            vec![global("agent").mount("data")],
            vec![],
            "volume data on m1\nvolume data on m2\nvolume data on m3\ncreate agent on m1\ncreate agent on m2\ncreate agent on m3",
        ),
        (
            "global: made where it is missing, if the machine is up",
            three().with_volume("data", &["m1"]).down("m3"),
            vec![global("agent").mount("data")],
            vec![],
            "volume data on m2\ncreate agent on m1\ncreate agent on m2\n\
             warning: shop/agent: placed on 2 of 3 machines: m3 cannot be reached",
        ),
        (
            "global: external and missing somewhere",
            three().with_volume("data", &["m1"]),
            vec![global("agent").mount("data")],
            vec![external("data")],
            "error: volume `data` of service `shop/agent` is external, but m2 and m3 do not have it",
        ),
        (
            "global and replicated share",
            three(),
            vec![global("agent").mount("data"), db()],
            vec![],
            "error: volume `data` is shared by the global service `shop/agent` and the replicated service `shop/db`",
        ),
        (
            "another driver than it has",
            three().with_volume("data", &["m1"]),
            vec![db()],
            vec![nfs],
            "error: volume `data` of service `shop/db` exists on m1 with driver `local`, not `nfs`",
        ),
        (
            "nothing runs, nothing is made",
            three(),
            vec![service("db", 0).mount("data")],
            vec![],
            "",
        ),
        (
            "a volume is added to a running service: it is made where a replica is",
            three().with_replicas(&service("db", 1), &["m3"]),
            vec![db()],
            vec![],
            "volume data on m3\nreplace db db-01 on m3",
        ),
        (
            "the volume is elsewhere: the replica moves there",
            three()
                .with_replicas(&service("db", 1), &["m3"])
                .with_volume("data", &["m2"]),
            vec![db()],
            vec![],
            "replace db db-01 on m2",
        ),
        (
            "a machine whose port is taken is avoided",
            three().with_replicas(
                &ServiceSpec {
                    project: "other".into(),
                    ..service("pg", 1).port(5432)
                },
                &["m1"],
            ),
            vec![db().port(5432)],
            vec![],
            "volume data on m2\ncreate db on m2",
        ),
    ];
    for (what, observed, services, volumes, expected) in cases {
        let desired = Change::Deploy(DesiredServices {
            project: "shop".into(),
            services,
            volumes,
            recreate: false,
            ..Default::default()
        });
        assert_eq!(run(&desired, &observed), expected, "{what}");
    }
}

#[test]
fn a_volume_step_carries_its_spec() {
    let spec = VolumeSpec {
        project: "shop".into(),
        name: "data".into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..VolumeSpec::default()
    };
    let deploy = DesiredServices {
        project: "shop".into(),
        services: vec![service("db", 1).mount("data")],
        volumes: vec![spec.clone()],
        recreate: false,
        ..Default::default()
    };
    let plan = plan(&Change::Deploy(deploy), &cluster(&["m1"])).unwrap();
    assert_eq!(plan.volumes[0].volume, Some(spec));
    assert_eq!(plan.volumes[0].id, "volume/data/m1");
}

#[test]
fn volume_that_two_machines_have_has_one_home() {
    let db = || service("db", 1).mount("data");
    let two = || {
        let mut observed = cluster(&["m1", "m2", "m3"]).with_volume("data", &["m2", "m3"]);
        for (machine, since) in [("m2", 2), ("m3", 1)] {
            let homes = &mut observed.machine(machine).volume_homes;
            homes.insert("data".into(), since);
        }
        observed
    };
    let used = |machine: &str| {
        format!("warning: shop/db: volume `data` is on m2 and m3; the one on {machine} is used")
    };
    let found = |observed: &Observed| run(&deploy(&[db()]), observed);
    let oldest = format!("create db on m3\n{}", used("m3"));
    assert_eq!(found(&two()), oldest);
    let there = two().with_replicas(&db(), &["m2"]);
    assert_eq!(found(&there), used("m2"), "its data is where it runs");
    let mut by_hand = two();
    by_hand.machine("m3").volume_homes.clear();
    assert_eq!(found(&by_hand), "create db on m2");
    // Its data are on m3. The other volume is not a substitute.
    let refused = "error: volume `data` of service `shop/db` is only on m3, which is unreachable";
    assert_eq!(found(&two().down("m3")), refused);
    assert_eq!(found(&two().down("m2")), oldest);
}
