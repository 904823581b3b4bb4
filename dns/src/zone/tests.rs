//! Lookups as a table, and what must hold for every zone.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

/// Three machines, the third of them down; `m1` answers.
fn input() -> ZoneInput {
    let machine = |number: u8, state| ZoneMachine {
        id: id(number),
        name: Some(format!("m{number}").parse().unwrap()),
        ipv4: Ipv4Addr::new(10, 210, number, 1),
        state,
    };
    ZoneInput {
        local_machine: Some(id(1)),
        machines: vec![
            machine(1, MachineState::Up),
            machine(2, MachineState::Up),
            machine(3, MachineState::Down),
        ],
        services: vec!["shop/idle".parse().unwrap(), "blog/db".parse().unwrap()],
        aliases: vec![
            alias("shop/web", "WWW"),
            alias("shop/web", "www"),
            alias("shop/web", "shop.example"),
            alias("shop/web", "db"),
            alias("shop/web", "two words"),
            alias("shop/idle", "lazy"),
            alias("shop/web", "both"),
            alias("shop/db", "both"),
            alias("gone/web", "ghost"),
        ],
        elsewhere: vec![Ipv4Addr::new(10, 210, 1, 10)],
        replicas: vec![
            replica("shop/web", 1, 10),
            replica("shop/web", 2, 11),
            replica("shop/web", 3, 12),
            ZoneReplica {
                health: ReplicaHealth::Unhealthy,
                ..replica("shop/web", 1, 13)
            },
            ZoneReplica {
                draining: true,
                ..replica("shop/web", 1, 14)
            },
            ZoneReplica {
                running: false,
                ..replica("shop/web", 1, 15)
            },
            replica("shop/db", 2, 20),
            replica("shop/lost", 3, 30),
            ZoneReplica {
                health: ReplicaHealth::Unhealthy,
                ..replica("shop/sick", 1, 40)
            },
            replica("my_blog-1/Api", 2, 50),
            replica("shop/nearest.cache", 1, 60),
            replica("shop/v1.api", 1, 61),
            replica("shop/api", 2, 62),
            replica("other/api", 2, 63),
            replica("m1/solo", 2, 70),
        ],
    }
}

fn id(number: u8) -> MachineId {
    MachineId::from_bytes([number; 16])
}

fn alias(service: &str, name: &str) -> ZoneAlias {
    ZoneAlias {
        service: service.parse().unwrap(),
        name: name.into(),
    }
}

fn replica(key: &str, machine: u8, host: u8) -> ZoneReplica {
    let ServiceKey { project, service } = key.parse().unwrap();
    ZoneReplica {
        project,
        service,
        machine_id: id(machine),
        ip: Ipv4Addr::new(10, 210, machine, host),
        running: true,
        health: ReplicaHealth::Healthy,
        draining: false,
    }
}

fn look(zone: &Zone, name: &str, kind: Kind, seed: u64) -> Lookup {
    zone.lookup(name, kind, &mut StdRng::seed_from_u64(seed))
}

/// Returns the addresses sorted and without their common first two bytes, or the other result as
/// text.
fn shown(lookup: Lookup) -> String {
    match lookup {
        Lookup::Addresses(mut addresses) => {
            addresses.sort();
            let parts = addresses.iter().map(|ip| {
                let [_, _, machine, host] = ip.octets();
                format!("{machine}.{host}")
            });
            parts.collect::<Vec<_>>().join(" ")
        }
        Lookup::Pointer(name) => name,
        Lookup::NoData => "no data".into(),
        Lookup::NxDomain => "no such name".into(),
        Lookup::NotOurs => "not ours".into(),
    }
}

#[test]
fn zone_lookup_of_names() {
    let zone = Zone::build(&input());
    let machine_id = id(2).to_string();
    for (name, expected) in [
        // Services: replicas that run, are healthy, not draining, and not on a machine that is
        // down.
        ("web.shop.internal", "1.10 2.11"),
        ("web.shop.internal.", "1.10 2.11"),
        ("WeB.sHoP.InTeRnAl", "1.10 2.11"),
        ("web.internal", "1.10 2.11"),
        ("rr.web.internal", "1.10 2.11"),
        ("rr.web.shop.internal", "1.10 2.11"),
        ("nearest.web.shop.internal", "1.10 2.11"),
        // If no other replica is left, those on machines that are down.
        ("lost.shop.internal", "3.30"),
        ("nearest.lost.shop.internal", "3.30"),
        // If no replica is healthy, those that run.
        ("sick.shop.internal", "1.40"),
        // The name exists, but no replica runs.
        ("idle.shop.internal", "no data"),
        ("idle.internal", "no data"),
        // Two projects have it, so only the long names answer. `blog/db` exists without a replica
        // and still counts.
        ("db.internal", "no data"),
        ("nearest.db.internal", "no data"),
        ("db.shop.internal", "2.20"),
        ("db.blog.internal", "no data"),
        ("api.other.internal", "2.63"),
        // Upper case in a service's name; `_` and `-` in a project's.
        ("api.my_blog-1.internal", "2.50"),
        // A dot in a service's name. An exact name takes precedence over a prefix.
        ("v1.api.internal", "1.61"),
        ("v1.api.shop.internal", "1.61"),
        ("nearest.cache.internal", "1.60"),
        // The replicas of one machine, by its name or id. A machine that is down has no others.
        ("m1.m.web.shop.internal", "1.10"),
        ("m2.m.web.internal", "2.11"),
        (&format!("{machine_id}.m.web.internal"), "2.11"),
        ("m3.m.web.shop.internal", "3.12"),
        ("rr.m2.m.web.shop.internal", "2.11"),
        ("m1.m.db.shop.internal", "no data"),
        ("m9.m.web.shop.internal", "no such name"),
        ("m.web.shop.internal", "no data"),
        // Aliases: only in their project, also with one machine. A service's own name takes
        // precedence; services that share an alias are answered together.
        ("www.shop.internal", "1.10 2.11"),
        ("Shop.Example.shop.internal", "1.10 2.11"),
        ("m1.m.www.shop.internal", "1.10"),
        ("nearest.www.shop.internal", "1.10 2.11"),
        ("both.shop.internal", "1.10 2.11 2.20"),
        ("lazy.shop.internal", "no data"),
        ("www.internal", "no such name"),
        ("ghost.gone.internal", "no such name"),
        // Machines.
        ("m1.machine.internal", "1.1"),
        ("m3.machine.internal", "3.1"),
        (&format!("{machine_id}.machine.internal"), "2.1"),
        ("m9.machine.internal", "no such name"),
        ("machine.internal", "no data"),
        // Names that only have names below them.
        ("shop.internal", "no data"),
        ("internal", "no data"),
        ("internal.", "no data"),
        // Names that do not exist.
        ("missing.internal", "no such name"),
        ("web.missing.internal", "no such name"),
        ("missing.web.shop.internal", "no such name"),
        ("rr.rr.web.internal", "no such name"),
        ("rr.nearest.web.shop.internal", "no such name"),
        (".internal", "no such name"),
        ("..internal", "no such name"),
        ("*.shop.internal", "no such name"),
        // Names outside the zone.
        ("", "not ours"),
        (".", "not ours"),
        ("web", "not ours"),
        ("example.org", "not ours"),
        ("notinternal", "not ours"),
        ("internal.example.org", "not ours"),
        // One of our reverse names has no address.
        ("1.1.210.10.in-addr.arpa", "no data"),
    ] {
        assert_eq!(shown(look(&zone, name, Kind::A, 1)), expected, "{name}");
    }
}

#[test]
fn machine_without_a_name_is_found_by_its_id() {
    let mut input = input();
    input.machines[1].name = None;
    let zone = Zone::build(&input);
    let by_id = format!("{}.machine.internal", id(2));
    assert_eq!(shown(look(&zone, &by_id, Kind::A, 1)), "2.1");
    assert_eq!(
        look(&zone, "m2.machine.internal", Kind::A, 1),
        Lookup::NxDomain
    );
    let pointer = look(&zone, "1.2.210.10.in-addr.arpa", Kind::Ptr, 1);
    assert_eq!(pointer, Lookup::Pointer(by_id));
}

#[test]
fn zone_has_only_addresses() {
    let zone = Zone::build(&input());
    for kind in [Kind::Ptr, Kind::Other] {
        assert_eq!(look(&zone, "web.shop.internal", kind, 1), Lookup::NoData);
        assert_eq!(look(&zone, "missing.internal", kind, 1), Lookup::NxDomain);
    }
    assert_eq!(
        shown(look(&zone, "web.shop.internal", Kind::Any, 1)),
        "1.10 2.11"
    );
}

#[test]
fn zone_lookup_of_pointers() {
    let zone = Zone::build(&input());
    for (name, expected) in [
        ("1.2.210.10.in-addr.arpa", "m2.machine.internal"),
        ("10.1.210.10.in-addr.arpa.", "web.shop.internal"),
        ("14.1.210.10.IN-ADDR.ARPA", "web.shop.internal"),
        ("50.2.210.10.in-addr.arpa", "api.my_blog-1.internal"),
        ("99.2.210.10.in-addr.arpa", "no such name"),
        ("1.9.210.10.in-addr.arpa", "not ours"),
        ("2.210.10.in-addr.arpa", "not ours"),
        ("7.1.2.210.10.in-addr.arpa", "not ours"),
        ("x.2.210.10.in-addr.arpa", "not ours"),
        ("256.2.210.10.in-addr.arpa", "not ours"),
        ("in-addr.arpa", "not ours"),
    ] {
        assert_eq!(shown(look(&zone, name, Kind::Ptr, 1)), expected, "{name}");
    }
}

#[test]
fn zone_without_names_still_owns_its_domain() {
    let zone = Zone::default();
    assert_eq!(look(&zone, "web.internal", Kind::A, 1), Lookup::NxDomain);
    assert_eq!(look(&zone, "internal", Kind::A, 1), Lookup::NoData);
    assert_eq!(look(&zone, "example.org", Kind::A, 1), Lookup::NotOurs);
}

#[test]
fn nearest_starts_with_own_machine_and_shuffles_the_rest() {
    let mut input = input();
    input.replicas = (1..=3)
        .flat_map(|machine| (0..4).map(move |host| replica("shop/web", machine, host)))
        .collect();
    input
        .machines
        .iter_mut()
        .for_each(|machine| machine.state = MachineState::Up);
    let zone = Zone::build(&input);
    let mut orders = HashSet::new();
    for seed in 0..50 {
        let Lookup::Addresses(addresses) = look(&zone, "nearest.web.shop.internal", Kind::A, seed)
        else {
            panic!()
        };
        assert_eq!(addresses.len(), 12);
        assert!(
            addresses[..4].iter().all(|ip| ip.octets()[2] == 1),
            "{addresses:?}"
        );
        orders.insert(addresses);
    }
    assert!(orders.len() > 25, "{}", orders.len());
}

#[test]
fn lookup_gives_each_replica_first_equally_often() {
    let mut input = input();
    input.replicas = (0..4).map(|host| replica("shop/web", 2, host)).collect();
    let zone = Zone::build(&input);
    let mut first = [0_u32; 4];
    for seed in 0..1_000 {
        let Lookup::Addresses(addresses) = look(&zone, "web.shop.internal", Kind::A, seed) else {
            panic!()
        };
        first[usize::from(addresses[0].octets()[3])] += 1;
    }
    assert!(
        first.iter().all(|count| (180..=320).contains(count)),
        "{first:?}"
    );
}

#[test]
fn lookup_chooses_among_too_many_addresses() {
    let mut input = input();
    input.replicas = (0..200).map(|host| replica("shop/web", 2, host)).collect();
    let zone = Zone::build(&input);
    let mut seen = HashSet::new();
    for seed in 0..40 {
        let Lookup::Addresses(addresses) = look(&zone, "web.shop.internal", Kind::A, seed) else {
            panic!()
        };
        assert_eq!(addresses.len(), MAX_ANSWERS);
        seen.extend(addresses);
    }
    assert_eq!(seen.len(), 200);
}

proptest! {
    #[test]
    fn lookup_accepts_any_text(name in ".{0,80}", suffix in "(\\.internal|\\.in-addr\\.arpa|)\\.?") {
        let zone = Zone::build(&input());
        for kind in [Kind::A, Kind::Ptr, Kind::Any, Kind::Other] {
            let lookup = look(&zone, &format!("{name}{suffix}"), kind, 1);
            if suffix.starts_with(".internal") {
                prop_assert_ne!(lookup, Lookup::NotOurs);
            }
        }
    }

    /// A name has an address exactly if a replica runs. All addresses of an answer are of one rank,
    /// and no replica of a better rank is left out.
    #[test]
    fn lookup_returns_all_replicas_of_the_best_rank(
        states in proptest::collection::vec((1_u8..=3, any::<bool>(), health(), any::<bool>()), 0..12),
        machines in proptest::collection::vec(machine_state(), 3),
    ) {
        let mut input = input();
        input.machines.iter_mut().zip(&machines).for_each(|(machine, state)| machine.state = *state);
        input.services = vec!["shop/web".parse().unwrap()];
        input.replicas = states.iter().enumerate().map(|(host, (machine, running, health, draining))| ZoneReplica {
            running: *running, health: *health, draining: *draining,
            ..replica("shop/web", *machine, host as u8)
        }).collect();
        // What a user would say, the most wanted first.
        let reachable = [true, false].into_iter().flat_map(|healthy| {
            let states = [(MachineState::Up, healthy), (MachineState::EngineAway, healthy)];
            states.into_iter().flat_map(|(state, healthy)| {
                [false, true].map(|draining| (state, healthy, draining))
            })
        });
        let down = [(true, false), (true, true), (false, false), (false, true)];
        let down = down.map(|(healthy, draining)| (MachineState::Down, healthy, draining));
        let wanted = reachable.chain(down);
        let is = |one: &ZoneReplica| {
            let machine = machines[usize::from(one.machine_id.as_bytes()[0]) - 1];
            (machine, one.health == ReplicaHealth::Healthy, one.draining)
        };
        let running: Vec<&ZoneReplica> = input.replicas.iter().filter(|one| one.running).collect();
        let expected = wanted.into_iter().find_map(|wanted| {
            let ips: HashSet<Ipv4Addr> =
                running.iter().filter(|one| is(one) == wanted).map(|one| one.ip).collect();
            (!ips.is_empty()).then_some(ips)
        });
        prop_assert_eq!(expected.is_some(), !running.is_empty());
        match look(&Zone::build(&input), "web.shop.internal", Kind::A, 1) {
            Lookup::Addresses(found) => {
                prop_assert_eq!(Some(found.into_iter().collect::<HashSet<_>>()), expected);
            }
            other => {
                prop_assert_eq!(other, Lookup::NoData);
                prop_assert!(expected.is_none());
            }
        }
    }

    /// Of replicas on machines that are up, an unhealthy one is in no answer while a healthy one
    /// runs, whether or not that one is draining.
    #[test]
    fn lookup_prefers_a_healthy_replica_to_all_that_do_not_serve(
        others in proptest::collection::vec((1_u8..=3, health(), any::<bool>()), 0..8),
        draining in any::<bool>(),
    ) {
        let mut input = input();
        let sick = |health| if health == ReplicaHealth::Healthy { ReplicaHealth::Starting } else { health };
        input.replicas = others.iter().enumerate().map(|(host, (machine, health, draining))| ZoneReplica {
            health: sick(*health), draining: *draining,
            ..replica("shop/web", *machine, host as u8)
        }).collect();
        input.replicas.push(ZoneReplica { draining, ..replica("shop/web", 2, 99) });
        let found = look(&Zone::build(&input), "web.shop.internal", Kind::A, 1);
        prop_assert_eq!(found, Lookup::Addresses(vec![Ipv4Addr::new(10, 210, 2, 99)]));
    }
}

fn machine_state() -> impl Strategy<Value = MachineState> {
    prop_oneof![
        Just(MachineState::Up),
        Just(MachineState::EngineAway),
        Just(MachineState::Down),
    ]
}

fn health() -> impl Strategy<Value = ReplicaHealth> {
    prop_oneof![
        Just(ReplicaHealth::Healthy),
        Just(ReplicaHealth::Starting),
        Just(ReplicaHealth::Unhealthy),
    ]
}

/// Cluster software that becomes healthy only when it has found its peers by name (MinIO,
/// Hazelcast, Galera) has to find those that are starting.
#[test]
fn starting_replicas_have_a_name_while_none_is_healthy() {
    let mut input = input();
    let starting = |host| ZoneReplica {
        health: ReplicaHealth::Starting,
        ..replica("shop/peer", 1, host)
    };
    input.replicas = vec![starting(10), starting(11)];
    let found = |input: &ZoneInput| shown(look(&Zone::build(input), "peer.internal", Kind::A, 1));
    assert_eq!(found(&input), "1.10 1.11");
    input.replicas[0].health = ReplicaHealth::Healthy;
    assert_eq!(found(&input), "1.10");
}

#[test]
fn last_replica_keeps_its_name_when_it_is_unhealthy() {
    let mut input = input();
    input.replicas = vec![replica("shop/web", 1, 10)];
    input.replicas[0].health = ReplicaHealth::Unhealthy;
    let found = |input: &ZoneInput| shown(look(&Zone::build(input), "web.internal", Kind::A, 1));
    assert_eq!(found(&input), "1.10");
    input.replicas[0].draining = true;
    assert_eq!(found(&input), "1.10", "nothing else runs");
}

#[test]
fn replicas_of_an_engine_that_is_away_rank_between_those_that_serve_and_those_that_do_not() {
    let mut input = input();
    input.machines[1].state = MachineState::EngineAway;
    input.machines[2].state = MachineState::Down;
    let sick = ZoneReplica {
        health: ReplicaHealth::Unhealthy,
        ..replica("shop/web", 1, 10)
    };
    let down = replica("shop/web", 3, 12);
    input.replicas = vec![
        replica("shop/web", 1, 9),
        sick,
        replica("shop/web", 2, 11),
        down,
    ];
    let found = |input: &ZoneInput| shown(look(&Zone::build(input), "web.internal", Kind::A, 1));
    for expected in ["1.9", "2.11", "1.10", "3.12"] {
        assert_eq!(found(&input), expected);
        let host: u8 = expected.rsplit('.').next().unwrap().parse().unwrap();
        input.replicas.retain(|one| one.ip.octets()[3] != host);
    }
}

/// The order of a start-first update as other machines see it, also if the mark of the old replica
/// arrives before the health of the new one.
#[test]
fn name_has_an_address_at_every_moment_of_an_update() {
    let (old, new) = (replica("shop/web", 1, 10), replica("shop/web", 2, 11));
    let starting = ZoneReplica {
        health: ReplicaHealth::Starting,
        ..new.clone()
    };
    let draining = ZoneReplica {
        draining: true,
        ..old.clone()
    };
    for (replicas, expected) in [
        (vec![old.clone()], "1.10"),
        (vec![old.clone(), starting.clone()], "1.10"),
        (vec![draining.clone(), starting], "1.10"),
        (vec![old, new.clone()], "1.10 2.11"),
        (vec![draining, new.clone()], "2.11"),
        (vec![new], "2.11"),
    ] {
        let input = ZoneInput {
            replicas,
            ..input()
        };
        let found = shown(look(&Zone::build(&input), "web.internal", Kind::A, 1));
        assert_eq!(found, expected);
    }
}

#[test]
fn asks_elsewhere_for_replicas_with_own_resolvers() {
    let zone = Zone::build(&input());
    let asks = |client: &str| zone.asks_elsewhere(client.parse().unwrap());
    assert!(asks("10.210.1.10") && asks("::ffff:10.210.1.10"));
    assert!(!asks("10.210.1.11") && !asks("::1"));
}
