//! Where a service may go and where it is spread: constraints, platforms, labels, room.

use super::*;

#[track_caller]
fn check(what: &str, observed: &Observed, services: &[ServiceSpec], expected: &str) {
    assert_eq!(run(&deploy(services), observed), expected, "{what}");
}

fn zones() -> Observed {
    cluster(&["m1", "m2", "m3", "m4", "m5"])
        .labelled("m1", "zone", "a")
        .labelled("m2", "zone", "a")
        .labelled("m3", "zone", "a")
        .labelled("m4", "zone", "b")
}

#[test]
fn only_where_all_constraints_hold() {
    let web = |replicas| service("web", replicas).constraint("node.labels.zone==a");
    check(
        "by label",
        &zones(),
        &[web(2)],
        "create web on m1\ncreate web on m2",
    );
    check(
        "and by name",
        &zones(),
        &[web(2).constraint("node.hostname != m1")],
        "create web on m2\ncreate web on m3",
    );
    check(
        "what is elsewhere moves",
        &zones().with_replicas(&web(1), &["m4"]),
        &[web(1)],
        "replace web web-01 on m1",
    );
    check(
        "global: one on each that may run it",
        &zones(),
        &[global("agent").constraint("node.labels.zone!=a")],
        "create agent on m4\ncreate agent on m5",
    );
    check(
        "beside the allow list",
        &zones(),
        &[web(2).on(&["m3", "m4"])],
        "create web on m3\ncreate web on m3",
    );
    check(
        "what holds only where nobody answers is waited for",
        &zones().down("m4"),
        &[service("web", 1).constraint("node.labels.zone==b")],
        "warning: shop/web: 0 of 1 replicas placed: m4 cannot be reached",
    );
    check(
        "nowhere, with the reason of each",
        &cluster(&["m1", "m2"]).labelled("m2", "zone", "b"),
        &[web(1)],
        "error: no machine is allowed to run service `shop/web`: m1 (`node.labels.zone == a`, but it has no label `zone`); \
         m2 (`node.labels.zone == a`, but it is `b`)",
    );
    check(
        "nothing is needed for nothing",
        &cluster(&["m1"]),
        &[web(0)],
        "",
    );
    check(
        "not where its volume is",
        &zones().with_volume("data", &["m4"]),
        &[web(1).mount("data")],
        "error: no machine is allowed to run service `shop/web` and has its volumes: volume `data` is on m4; \
         m4 is excluded by `node.labels.zone == a`, but it is `b`",
    );
}

#[test]
fn constraints_are_in_no_container() {
    let old = service("web", 1);
    let observed = zones().with_replicas(&old, &["m1"]).with_service(&old);
    let plan = plan(&deploy(&[old.constraint("node.labels.zone==a")]), &observed).unwrap();
    assert!(plan.services[0].steps.is_empty());
}

#[test]
fn an_unknown_constraint_is_no_plan() {
    check(
        "refused",
        &zones(),
        &[service("web", 1).constraint("engine.labels.a==b")],
        "error: service `web`: placement constraint `engine.labels.a==b`: labels of the Docker engine are not available",
    );
}

#[test]
fn many_machines_are_not_all_named() {
    let names: Vec<String> = (10..40).map(|number| format!("m{number}")).collect();
    let observed = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let text = run(
        &deploy(&[service("web", 1).constraint("node.hostname==x")]),
        &observed,
    );
    assert!(
        text.contains("m17 (") && !text.contains("m18") && text.ends_with("; and 22 more machines"),
        "{text}"
    );
}

#[test]
fn an_image_of_one_architecture_goes_to_machines_of_it() {
    let mut observed = cluster(&["m1", "m2", "m3"]);
    observed.machine("m2").arch = "aarch64".into();
    let web = |platform: &str| ServiceSpec {
        platform: platform.into(),
        ..service("web", 2)
    };
    check(
        "arm64",
        &observed,
        &[web("linux/arm64")],
        "create web on m2\ncreate web on m2",
    );
    check(
        "amd64",
        &observed,
        &[web("linux/amd64/v2")],
        "create web on m1\ncreate web on m3",
    );
    let text = run(&deploy(&[web("windows/amd64")]), &observed);
    assert!(
        text.contains("m1 (platform `windows/amd64`, but it is linux on x86_64)"),
        "{text}"
    );
}

#[test]
fn replicas_are_spread_over_labels_first() {
    let web = |replicas| service("web", replicas).spread("node.labels.zone");
    check(
        "one in each zone; machines without one are a zone too",
        &zones(),
        &[web(3)],
        "create web on m1\ncreate web on m4\ncreate web on m5",
    );
    check(
        "even over the zones, then over the machines",
        &zones(),
        &[web(6)],
        "create web on m1\ncreate web on m2\ncreate web on m4\ncreate web on m4\ncreate web on m5\ncreate web on m5",
    );
    check(
        "what is there counts",
        &zones().with_replicas(&web(2), &["m4"]),
        &[web(2).constraint("node.hostname!=m5")],
        "create web on m1",
    );
    check(
        "of too many, those of the fullest zone go",
        &zones().with_replicas(&web(4), &["m1", "m2", "m4", "m5"]),
        &[web(3)],
        "remove web web-02 on m2",
    );
    let racks = zones()
        .labelled("m1", "rack", "x")
        .labelled("m2", "rack", "x")
        .labelled("m3", "rack", "y");
    check(
        "then over the next label",
        &racks,
        &[web(2)
            .spread("node.labels.rack")
            .constraint("node.labels.zone==a")],
        "create web on m1\ncreate web on m3",
    );
}

#[test]
fn at_most_so_many_on_one_machine() {
    let web = |replicas| {
        let mut web = service("web", replicas);
        web.placement
            .get_or_insert_default()
            .max_replicas_per_machine = 2;
        web
    };
    let two = || cluster(&["m1", "m2"]);
    check(
        "as many as may be",
        &two(),
        &[web(4)],
        "create web on m1\ncreate web on m1\ncreate web on m2\ncreate web on m2",
    );
    check(
        "no more",
        &two(),
        &[web(5)],
        "error: no machine has room for a replica of service `shop/web`: m1: 2 of at most 2 replicas are there; \
         m2: 2 of at most 2 replicas are there",
    );
    check(
        "too many there: one moves",
        &two().with_replicas(&web(3), &["m1", "m1", "m1"]),
        &[web(3)],
        "create web on m2\nremove web web-03 on m1",
    );
    let old = web(3).image("web:0");
    check(
        "of those to be replaced as well",
        &two().with_replicas(&old, &["m1", "m1", "m1"]),
        &[web(3)],
        "replace web web-01 on m1\nreplace web web-03 on m2\nreplace web web-02 on m1",
    );
    check(
        "one that is down may have place",
        &two().down("m2"),
        &[web(3)],
        "create web on m1\ncreate web on m1\nwarning: shop/web: 2 of 3 replicas placed: m2 cannot be reached",
    );
}

const GIB: u64 = 1 << 30;

#[test]
fn reservations_need_room() {
    let web = |replicas| service("web", replicas).reserve(0, GIB);
    let other = ServiceSpec {
        project: "blog".into(),
        ..service("x", 1)
    }
    .reserve(0, 3 * GIB);
    let two = || {
        cluster(&["m1", "m2"])
            .with_capacity("m1", 2, 4 * GIB)
            .with_capacity("m2", 8, 2 * GIB)
    };
    check(
        "as much as there is",
        &two().with_replicas(&other, &["m1"]),
        &[web(3)],
        "create web on m1\ncreate web on m2\ncreate web on m2",
    );
    check(
        "and no more, by machine",
        &two().with_replicas(&other, &["m1"]),
        &[web(4)],
        "error: no machine has room for a replica of service `shop/web`: \
         m1: needs 1 GiB, but 0 B of 4 GiB is free; m2: needs 1 GiB, but 0 B of 2 GiB is free",
    );
    check(
        "of CPUs too",
        &two(),
        &[service("web", 4).reserve(2_500_000_000, 0)],
        "error: no machine has room for a replica of service `shop/web`: \
         m1: needs 2.5 CPUs, but 2 CPUs of 2 CPUs is free; m2: needs 2.5 CPUs, but 0.5 CPUs of 8 CPUs is free",
    );
    check(
        "what goes leaves its room",
        &two().with_replicas(&web(2).image("web:0"), &["m2", "m2"]),
        &[web(2)],
        "replace web web-01 on m2\nreplace web web-02 on m2",
    );
    check(
        "what stays keeps it",
        &two().with_replicas(&web(2), &["m2", "m2"]),
        &[web(2), service("big", 1).reserve(0, GIB).on(&["m2"])],
        "error: no machine has room for a replica of service `shop/big`: m2: needs 1 GiB, but 0 B of 2 GiB is free",
    );
    check(
        "what is not known limits nothing",
        &cluster(&["m1"]),
        &[service("web", 1).reserve(64_000_000_000, 1 << 50)],
        "create web on m1",
    );
    check(
        "a global service has no choice",
        &two(),
        &[global("agent").reserve(0, 3 * GIB)],
        "error: no machine has room for a replica of service `shop/agent`: m2: needs 3 GiB, but 2 GiB of 2 GiB is free",
    );
    check(
        "a machine that is down may have it",
        &two().down("m1"),
        &[web(3)],
        "create web on m2\ncreate web on m2\nwarning: shop/web: 2 of 3 replicas placed: m1 cannot be reached",
    );
}

/// `uc ls` counts with this number, so it must be the one that a plan goes by.
#[test]
fn global_replicas_are_those_that_a_plan_creates() {
    let observed = cluster(&["m1", "m2", "m3", "!m4"])
        .labelled("m1", "disk", "ssd")
        .labelled("m3", "disk", "ssd")
        .labelled("m4", "disk", "ssd");
    let with_platform = ServiceSpec {
        platform: "linux/arm64".into(),
        ..global("web")
    };
    for (spec, expected) in [
        (global("web"), 3),
        (global("web").constraint("node.labels.disk==ssd"), 2),
        (
            global("web")
                .constraint("node.labels.disk==ssd")
                .on(&["m3", "m2"]),
            1,
        ),
        (global("web").on(&[&machine_id("m2").to_string()]), 1),
        (with_platform, 0),
        (global("web").constraint("nonsense"), 0),
    ] {
        assert_eq!(
            global_replicas(&spec, &observed.machines),
            expected,
            "{spec:?}"
        );
        if let Ok(plan) = plan(&deploy(std::slice::from_ref(&spec)), &observed) {
            assert_eq!(plan.services[0].steps.len(), expected, "{spec:?}");
        }
    }
}
