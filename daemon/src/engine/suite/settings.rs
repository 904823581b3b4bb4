//! What a container is created with: its name, ports, network, labels and volumes.

use super::*;

pub(super) async fn create_refuses_taken_name(bench: Bench) {
    let spec = service("name", "true");
    let id = bench
        .engine
        .create("suite-name-aaaa", "", body(&spec, "suite-name-aaaa"))
        .await
        .unwrap();
    let taken = bench
        .engine
        .create("suite-name-aaaa", "", body(&spec, "suite-name-aaaa"))
        .await
        .unwrap_err();
    assert!(matches!(taken, EngineError::NameTaken { .. }), "{taken:?}");
    assert_eq!(
        bench
            .engine
            .inspect("suite-name-aaaa")
            .await
            .unwrap()
            .record
            .container_id,
        id
    );
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn start_refuses_taken_port(bench: Bench) {
    let mut spec = service("port", "sleep 1000");
    spec.ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: 18080,
        ..Default::default()
    }];
    let first = bench.run(&spec).await;
    let record = bench.engine.inspect(&first).await.unwrap().record;
    let port = v1::PortSpec {
        protocol: v1::Protocol::Tcp.into(),
        ..spec.ports[0].clone()
    };
    assert_eq!(record.ports, [port]);
    let holders = bench.engine.port_holders().await.unwrap();
    let holder = holders.iter().find(|holder| holder.port == 18080).unwrap();
    assert_eq!(
        (holder.container_id.as_str(), holder.service.as_str()),
        (first.as_str(), "port")
    );
    assert_eq!(holder.container_name, record.container_name);

    let second = bench.create(&spec).await;
    let taken = bench.engine.start(&second).await.unwrap_err();
    assert!(matches!(taken, EngineError::PortTaken { .. }), "{taken:?}");
    bench.engine.remove(&first).await.unwrap();
    bench.engine.start(&second).await.unwrap();
    bench.engine.remove(&second).await.unwrap();
}

pub(super) async fn start_chooses_free_port_of_a_range(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("range", "sleep 1000");
    spec.ports = vec![v1::PortSpec {
        container_port: 80,
        published_port: 18_080,
        published_last: 18_081,
        protocol: v1::Protocol::Tcp.into(),
        ..Default::default()
    }];
    let asked = spec.ports.clone();
    let first = bench.create(&spec).await;
    assert_eq!(
        engine.inspect(&first).await.unwrap().record.ports,
        asked,
        "not before it runs"
    );
    engine.start(&first).await.unwrap();
    let second = bench.run(&spec).await;
    let mut chosen = Vec::new();
    for id in [&first, &second] {
        let ports = engine.inspect(id).await.unwrap().record.ports;
        assert_eq!((ports.len(), ports[0].published_last), (1, 0), "{ports:?}");
        chosen.push(ports[0].published_port);
    }
    chosen.sort_unstable();
    assert_eq!(chosen, [18_080, 18_081]);
    let third = bench.create(&spec).await;
    assert!(matches!(
        engine.start(&third).await,
        Err(EngineError::PortTaken { .. })
    ));
    for id in [first, second, third] {
        engine.remove(&id).await.unwrap();
    }
}

pub(super) async fn container_can_join_network_of_machine_or_other_container(bench: Bench) {
    let engine = &bench.engine;
    let ip = async |id: &str| engine.inspect(id).await.unwrap().record.ip;
    let of = |mode: &str| v1::ServiceSpec {
        network_mode: mode.into(),
        ..service("net", "sleep 1000")
    };
    let host = bench.run(&of("host")).await;
    assert_eq!(ip(&host).await, "10.233.0.1", "the machine's address");
    engine.stop(&host, Duration::ZERO).await.unwrap();
    assert_eq!(ip(&host).await, "");
    let alone = bench.run(&of("none")).await;
    assert_eq!(ip(&alone).await, "");
    let base = bench.run(&of("")).await;
    let joined = bench.run(&of(&format!("container:{base}"))).await;
    assert_eq!(engine.inspect(&joined).await.unwrap().network_of, base);
    assert!(ip(&base).await.starts_with("10."));
    assert_eq!(ip(&joined).await, ip(&base).await);
    let listed = engine.containers().await.unwrap();
    let listed = listed
        .iter()
        .find(|container| container.record.container_id == joined)
        .unwrap();
    assert_eq!(listed.record.ip, ip(&base).await);
    engine.stop(&base, Duration::ZERO).await.unwrap();
    assert_eq!(ip(&joined).await, "", "removed with the other container");
    for id in [host, alone, joined, base] {
        engine.remove(&id).await.unwrap();
    }
}

pub(super) async fn inspect_restores_spec_values_from_labels(bench: Bench) {
    let hook = |program: &str| v1::Hook {
        command: vec![program.to_owned(), "a \"b\" 'c'".to_owned()],
        privileged: true,
        environment: [("A".to_owned(), "b=c, d".to_owned())].into(),
        ..Default::default()
    };
    let mut spec = service("labels", "true");
    spec.post_start = vec![hook("warm")];
    spec.pre_stop = vec![hook("drain"), hook("wait")];
    spec.resources = Some(v1::Resources {
        reserved_nano_cpus: Some(250_000_000),
        reserved_memory: Some(64 << 20),
        ..Default::default()
    });
    let id = bench.create(&spec).await;
    let container = bench.engine.inspect(&id).await.unwrap();
    assert_eq!(
        (container.post_start, container.pre_stop),
        (spec.post_start, spec.pre_stop)
    );
    let record = container.record;
    assert_eq!(
        (record.reserved_nano_cpus, record.reserved_memory),
        (250_000_000, 64 << 20)
    );
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn remove_keeps_named_and_removes_anonymous_volumes(bench: Bench) {
    let engine = &bench.engine;
    let wanted = v1::VolumeSpec {
        project: "suite".into(),
        name: "suite_data".into(),
        ..Default::default()
    };
    let labels = spec::volume_labels(&wanted, "c1", "m1");
    engine.create_volume(&wanted, labels.clone()).await.unwrap();
    engine.create_volume(&wanted, labels).await.unwrap();
    let named = v1::VolumeRecord {
        name: "suite_data".into(),
        driver: "local".into(),
        project: "suite".into(),
    };
    let of = |volumes: Vec<Volume>| {
        volumes
            .into_iter()
            .map(|volume| volume.record)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(engine.volumes().await.unwrap()),
        std::slice::from_ref(&named)
    );

    let mut spec = service("volume", "sleep 1000");
    let mount = |source: &str, target: &str, read_only| v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        source: source.into(),
        target: target.into(),
        read_only,
        ..Default::default()
    };
    spec.mounts = vec![
        mount("suite_data", "/data", true),
        mount("", "/scratch", false),
    ];
    let id = bench.run(&spec).await;
    let mounts = engine.inspect(&id).await.unwrap().record.mounts;
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    assert_eq!(mounts[0], spec.mounts[0]);
    assert_eq!(
        of(engine.volumes().await.unwrap()),
        std::slice::from_ref(&named)
    );
    engine.remove(&id).await.unwrap();
    assert_eq!(of(engine.volumes().await.unwrap()), [named]);
}

/// What `VOLUME` in an image does, a create request can do as well.
pub(super) async fn anonymous_volumes_are_handed_on(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("keeps", "sleep 1000");
    let unnamed = |target: &str| v1::MountSpec {
        kind: v1::MountKind::Volume.into(),
        target: target.into(),
        ..Default::default()
    };
    spec.mounts = vec![unnamed("/scratch"), unnamed("/dropped")];
    let create = async |spec: &v1::ServiceSpec, handed_on: &[AnonymousVolume]| {
        let name = spec::container_name(spec, rand::random());
        let mut body = body_with(spec, &name, handed_on);
        body.volumes = Some(vec!["/image".to_owned()]);
        let id = engine.create(&name, "", body).await.unwrap();
        engine.inspect(&id).await.unwrap()
    };
    let named = |container: &Container, target: &str| {
        let mut volumes = container.anonymous_volumes.iter();
        let volume = volumes.find(|volume| volume.target == target);
        volume.map(|volume| volume.name.clone())
    };
    let first = create(&spec, &[]).await;
    let targets: Vec<&str> = first
        .anonymous_volumes
        .iter()
        .map(|volume| volume.target.as_str())
        .collect();
    assert_eq!(targets, ["/dropped", "/image", "/scratch"]);
    assert!(
        first
            .record
            .mounts
            .iter()
            .all(|mount| uc_api::volumes::is_anonymous(&mount.source))
    );

    spec.mounts = vec![unnamed("/scratch")];
    spec.mounts.push(v1::MountSpec {
        kind: v1::MountKind::Tmpfs.into(),
        target: "/dropped".into(),
        ..Default::default()
    });
    let second = create(&spec, &first.hands_on_to(&spec)).await;
    assert_eq!(named(&second, "/image"), named(&first, "/image"));
    assert_eq!(named(&second, "/scratch"), named(&first, "/scratch"));
    assert_eq!(named(&second, "/dropped"), None);

    // The first one takes away only what the second one does not use.
    let first_id = &first.record.container_id;
    engine.remove(first_id).await.unwrap();
    let third = create(&spec, &second.hands_on_to(&spec)).await;
    engine.remove(&second.record.container_id).await.unwrap();
    let third_id = &third.record.container_id;
    engine.start(third_id).await.unwrap();
    let third = engine.inspect(third_id).await.unwrap();
    assert_eq!(named(&third, "/image"), named(&first, "/image"));
    engine.remove(third_id).await.unwrap();
    // With the last container the volumes go: the suite must leave none.
}
