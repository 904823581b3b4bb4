//! Containers from their creation to their removal.

use super::*;

pub(super) async fn container_is_created_started_stopped_and_removed(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("life", "sleep 1000");
    spec.stop_grace_period_ms = Some(1500);
    let id = bench.create(&spec).await;
    let created = engine.inspect(&id).await.unwrap();
    assert_eq!(created.record.state(), v1::ReplicaState::Created);
    assert_eq!((created.record.exit_code, created.managed), (None, true));
    assert_eq!(created.stop_grace, Duration::from_secs(2));
    assert_eq!(
        (
            created.record.revision.as_str(),
            created.record.image.as_str()
        ),
        ("r1", IMAGE)
    );
    assert!(created.record.created_at_ms > 0);

    engine.start(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    let running = engine.inspect(&id[..12]).await.unwrap();
    assert_eq!(running.record.state(), v1::ReplicaState::Running);
    assert!(running.record.ip.starts_with("10."), "{:?}", running.record);
    assert_eq!(running.record.health(), v1::Health::None);
    assert!(engine.containers().await.unwrap().contains(&running));

    engine.stop(&id, Duration::ZERO).await.unwrap();
    engine.stop(&id, Duration::ZERO).await.unwrap();
    let stopped = engine.inspect(&id).await.unwrap();
    assert_eq!(stopped.record.state(), v1::ReplicaState::Exited);
    assert_eq!(
        (stopped.record.exit_code, stopped.record.ip.as_str()),
        (Some(137), "")
    );

    engine.start(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    assert!(matches!(
        engine.inspect(&id).await,
        Err(EngineError::NotFound { .. })
    ));
    assert!(matches!(
        engine.start(&id).await,
        Err(EngineError::NotFound { .. })
    ));
    assert!(matches!(
        engine.logs(&id, LogOptions::default()).await,
        Err(EngineError::NotFound { .. })
    ));
}

pub(super) async fn containers_lists_only_ours(bench: Bench) {
    let spec = service("other", "true");
    let mut of_others = body(&spec, "others");
    of_others.labels = None;
    let id = bench.engine.create("others", "", of_others).await.unwrap();
    assert!(!bench.engine.inspect(&id).await.unwrap().managed);
    let listed = bench.engine.containers().await.unwrap();
    assert!(
        listed
            .iter()
            .all(|container| container.record.container_id != id)
    );
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn exited_container_keeps_code_and_log(bench: Bench) {
    let id = bench
        .run(&service(
            "exit",
            "echo one; sleep 0.2; echo two >&2; sleep 0.2; exit 3",
        ))
        .await;
    let exited = bench.exited(&id).await;
    assert_eq!(exited.record.exit_code, Some(3));
    let lines = bench.lines(&id, LogOptions::default()).await;
    assert_eq!(texts(&lines), ["out one", "err two"]);
    assert!(lines[0].time_ns < lines[1].time_ns);
    assert_eq!(logs::tail(&*bench.engine, &id, 1).await, ["two"]);
    assert_eq!(logs::tail(&*bench.engine, &id, 10).await, ["one", "two"]);
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn inspect_reports_health(bench: Bench) {
    for (probe, health) in [
        ("true", v1::Health::Healthy),
        ("false", v1::Health::Unhealthy),
    ] {
        let mut spec = service("health", "sleep 1000");
        spec.healthcheck = Some(v1::Healthcheck {
            test: vec!["CMD".into(), probe.into()],
            interval_ms: Some(200),
            timeout_ms: Some(10_000),
            start_period_ms: None,
            retries: Some(2),
            ..Default::default()
        });
        let id = bench.run(&spec).await;
        let container = bench.engine.inspect(&id).await.unwrap();
        let limits = container.healthcheck.unwrap();
        assert_eq!(
            (limits.interval, limits.retries),
            (Duration::from_millis(200), 2)
        );
        assert_eq!(container.record.health(), v1::Health::Starting);
        bench
            .until(&id, "probed", |container| {
                container.record.health() == health
            })
            .await;
        bench.engine.remove(&id).await.unwrap();
    }
}

pub(super) async fn engine_restarts_exited_container(bench: Bench) {
    let mut spec = service("again", "sleep 0.1; exit 1");
    spec.restart = v1::RestartPolicy::Unspecified.into();
    let id = bench.run(&spec).await;
    let again = bench
        .until(&id, "restarted", |container| {
            container.record.restart_count > 0
        })
        .await;
    assert_eq!(again.restart, v1::RestartPolicy::OnFailure);
    assert!(again.restart_by_default && !again.record.finished);
    bench.engine.remove(&id).await.unwrap();

    let mut job = service("job", "true");
    job.restart = v1::RestartPolicy::Unspecified.into();
    let id = bench.run(&job).await;
    let done = bench.exited(&id).await;
    assert!(done.record.finished);
    assert_eq!(done.record.restart_count, 0);
    bench.engine.remove(&id).await.unwrap();
}

pub(super) async fn set_restart_applies_to_a_running_container(bench: Bench) {
    let engine = &bench.engine;
    let mut spec = service("policy", "sleep 1; exit 4");
    spec.restart = v1::RestartPolicy::UnlessStopped.into();
    let id = bench.run(&spec).await;
    let set = async |policy, attempts| {
        engine.set_restart(&id, policy, attempts).await.unwrap();
        engine.inspect(&id).await.unwrap().restart
    };
    assert_eq!(
        set(v1::RestartPolicy::Always, 0).await,
        v1::RestartPolicy::Always
    );
    assert_eq!(
        set(v1::RestartPolicy::OnFailure, 3).await,
        v1::RestartPolicy::OnFailure
    );
    assert_eq!(set(v1::RestartPolicy::No, 0).await, v1::RestartPolicy::No);
    let ended = bench.exited(&id).await;
    assert_eq!(
        (ended.record.restart_count, ended.record.exit_code),
        (0, Some(4))
    );
    assert_eq!(
        set(v1::RestartPolicy::UnlessStopped, 0).await,
        v1::RestartPolicy::UnlessStopped
    );
    engine.remove(&id).await.unwrap();
    let missing = engine.set_restart(&id, v1::RestartPolicy::No, 0).await;
    assert!(
        matches!(missing, Err(EngineError::NotFound { .. })),
        "{missing:?}"
    );
}

pub(super) async fn events_report_changes(bench: Bench) {
    let mut events = bench.engine.events().await.unwrap();
    let id = bench.run(&service("events", "sleep 1000")).await;
    let mut seen = async |wanted: EngineEvent| {
        let find = async {
            while let Some(event) = events.next().await {
                if event.unwrap() == wanted {
                    return;
                }
            }
            panic!("the events ended");
        };
        timeout(SOON, find)
            .await
            .unwrap_or_else(|_| panic!("no event in time"));
    };
    seen(EngineEvent::Container(id.clone())).await;
    let wanted = v1::VolumeSpec {
        project: "suite".into(),
        name: "suite_events".into(),
        ..Default::default()
    };
    bench
        .engine
        .create_volume(&wanted, Vec::new())
        .await
        .unwrap();
    seen(EngineEvent::Volume).await;
    bench.engine.remove(&id).await.unwrap();
    seen(EngineEvent::Container(id)).await;
}
