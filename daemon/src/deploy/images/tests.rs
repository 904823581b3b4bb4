use uc_api::v1::{DesiredServices, ResolveImageRequest};

use super::*;
use crate::node::tests::{Bench, bench};

const APP: &str = "app:latest";

/// Machines whose ids are their numbers, and those of them that do not answer.
struct Benches(Vec<Bench>, BTreeSet<usize>);

#[async_trait]
impl Machines for Benches {
    fn that_can_run(&self, _: &ServiceSpec) -> Vec<MachineId> {
        let numbers = (0..).take(self.0.len());
        numbers
            .map(|number| MachineId::from_bytes([number; 16]))
            .collect()
    }

    async fn ask(
        &self,
        machine: MachineId,
        image: &str,
        registry: bool,
    ) -> Result<ResolveImageResponse, Failure> {
        let number = usize::from(machine.as_bytes()[0]);
        if self.1.contains(&number) {
            std::future::pending::<()>().await;
        }
        let request = ResolveImageRequest {
            image: image.into(),
            ask_registry: registry,
        };
        self.0[number].node.resolve_image(&request).await
    }
}

impl Benches {
    fn new(count: usize) -> Self {
        let benches = std::iter::repeat_with(bench).take(count);
        Self(benches.collect(), BTreeSet::new())
    }

    fn push(&self, digest: &str) {
        for bench in &self.0 {
            bench.engine.push_to_registry(APP, digest);
        }
    }

    /// Pulls what the registry has now.
    async fn pull(&self, machine: usize) {
        use futures_util::StreamExt as _;
        let engine: &dyn crate::engine::Engine = &self.0[machine].engine;
        let lines = engine.pull(APP, "").await.unwrap();
        assert!(lines.all(|line| async move { line.is_ok() }).await);
    }

    /// The digest that a deployment of this spec gets, and the warnings.
    async fn resolve(
        &self,
        spec: &ServiceSpec,
        old: Option<&ServiceSpec>,
    ) -> (String, Vec<String>) {
        self.resolve_with(spec, old, false).await
    }

    async fn resolve_with(
        &self,
        spec: &ServiceSpec,
        old: Option<&ServiceSpec>,
        recreate: bool,
    ) -> (String, Vec<String>) {
        let request = PlanRequest {
            change: Some(Change::Deploy(DesiredServices {
                project: "shop".into(),
                services: vec![spec.clone()],
                recreate,
                ..DesiredServices::default()
            })),
        };
        let record = |key: &ServiceKey| {
            assert_eq!(key.to_string(), "shop/web");
            old.map(|old| ServiceRecord {
                spec: Some(old.clone()),
                ..ServiceRecord::default()
            })
        };
        let (resolved, warnings) = resolve(self, record, request).await;
        let Some(Change::Deploy(desired)) = resolved.change else {
            panic!("it is another change")
        };
        assert!(desired.images_resolved);
        (desired.services[0].image_digest.clone(), warnings)
    }
}

fn spec(policy: PullPolicy, digest: &str) -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        image: APP.into(),
        pull_policy: policy.into(),
        image_digest: digest.into(),
        ..ServiceSpec::default()
    }
}

#[tokio::test]
async fn policy_always_takes_the_digest_that_the_registry_has_now() {
    let machines = Benches::new(2);
    machines.push("sha256:a");
    machines.pull(0).await;
    let always = spec(PullPolicy::Always, "");
    let (first, _) = machines.resolve(&always, None).await;
    assert_eq!(first, "sha256:a");
    machines.push("sha256:b");
    let old = spec(PullPolicy::Always, "sha256:a");
    assert_eq!(
        machines.resolve(&always, Some(&old)).await,
        ("sha256:b".into(), Vec::new())
    );
}

#[tokio::test]
async fn registry_that_is_down_gives_a_warning_and_no_other_digest() {
    let machines = Benches::new(2);
    let old = spec(PullPolicy::Always, "sha256:a");
    let (digest, warnings) = machines
        .resolve(&spec(PullPolicy::Always, ""), Some(&old))
        .await;
    assert_eq!(digest, "sha256:a");
    assert_eq!(
        warnings,
        [
            "cannot look up `app:latest` in its registry: dial tcp: connection refused; no replica is replaced for a newer image"
        ]
    );
    let missing = spec(PullPolicy::Missing, "");
    let (digest, warnings) = machines.resolve(&missing, None).await;
    assert_eq!(digest, "");
    assert_eq!(
        warnings,
        [
            "cannot look up `app:latest` in its registry: dial tcp: connection refused; the image is not pinned, and machines can run different content of it"
        ]
    );
}

/// The first machines hang: only the last one asks the registry in time.
#[tokio::test(start_paused = true)]
async fn machines_that_do_not_answer_are_asked_last() {
    let mut machines = Benches::new(5);
    machines.push("sha256:a");
    machines.1 = (0..4).collect();
    for policy in [PullPolicy::Always, PullPolicy::Missing] {
        let (digest, warnings) = machines.resolve(&spec(policy, ""), None).await;
        assert_eq!((digest.as_str(), warnings.len()), ("sha256:a", 0));
    }
    // No machine answers.
    machines.1 = (0..5).collect();
    let (digest, warnings) = machines.resolve(&spec(PullPolicy::Always, ""), None).await;
    assert_eq!((digest.as_str(), warnings.len()), ("", 1));
}

#[tokio::test]
async fn recreate_and_another_pull_policy_ask_again() {
    let machines = Benches::new(1);
    machines.push("sha256:b");
    let missing = spec(PullPolicy::Missing, "");
    let old = spec(PullPolicy::Unspecified, "sha256:a");
    let (digest, _) = machines.resolve_with(&missing, Some(&old), true).await;
    assert_eq!(digest, "sha256:b");
    assert_eq!(machines.resolve(&missing, Some(&old)).await.0, "sha256:a");
    let never = spec(PullPolicy::Never, "sha256:a");
    assert_eq!(machines.resolve(&missing, Some(&never)).await.0, "sha256:b");
    // Nothing is replaced because the registry does not answer.
    machines.0[0].engine.lose_registry();
    let (digest, warnings) = machines.resolve_with(&missing, Some(&old), true).await;
    assert_eq!((digest.as_str(), warnings.len()), ("sha256:a", 1));
}

#[tokio::test]
async fn policy_never_takes_what_the_machines_have() {
    let machines = Benches::new(2);
    machines.push("sha256:a");
    machines.pull(0).await;
    machines.pull(1).await;
    let never = spec(PullPolicy::Never, "");
    let old = spec(PullPolicy::Never, "sha256:a");
    let digest = async || machines.resolve(&never, Some(&old)).await;
    assert_eq!(digest().await, ("sha256:a".into(), Vec::new()));
    machines.0[1].engine.build_image(APP, "sha256:c");
    assert_eq!(digest().await, (String::new(), Vec::new()));
    assert_eq!(machines.resolve(&never, None).await.0, "");
}

/// With the containerd image store, an image that was built on the machine has a digest.
#[tokio::test]
async fn digest_that_no_registry_has_is_not_pinned() {
    let machines = Benches::new(1);
    machines.0[0].engine.push_to_registry("other:1", "sha256:o");
    machines.0[0].engine.build_image(APP, "sha256:c");
    let missing = spec(PullPolicy::Missing, "");
    let unpinned = (String::new(), Vec::new());
    assert_eq!(machines.resolve(&missing, None).await, unpinned);
    // Its registry does not answer, so it may have the image.
    machines.0[0].engine.lose_registry();
    let (digest, warnings) = machines.resolve(&missing, None).await;
    assert_eq!((digest.as_str(), warnings.len()), ("", 1));
}

/// The registry of the first machine is not that of the second.
#[tokio::test]
async fn another_machine_is_asked_if_one_cannot_reach_the_registry() {
    let machines = Benches::new(2);
    machines.push("sha256:a");
    machines.0[0].engine.lose_registry();
    let (digest, warnings) = machines.resolve(&spec(PullPolicy::Always, ""), None).await;
    assert_eq!((digest.as_str(), warnings.len()), ("sha256:a", 0));
}

#[tokio::test]
async fn policy_missing_keeps_the_digest_of_the_record() {
    let machines = Benches::new(1);
    machines.push("sha256:b");
    for policy in [PullPolicy::Missing, PullPolicy::Unspecified] {
        let old = spec(policy, "sha256:a");
        let changed = ServiceSpec {
            user: "1000".into(),
            ..spec(policy, "")
        };
        for wanted in [spec(policy, ""), changed] {
            let (digest, _) = machines.resolve(&wanted, Some(&old)).await;
            assert_eq!(digest, "sha256:a");
        }
    }
    let other_image = ServiceSpec {
        image: "app:1".into(),
        ..spec(PullPolicy::Missing, "sha256:a")
    };
    let (digest, _) = machines
        .resolve(&spec(PullPolicy::Missing, ""), Some(&other_image))
        .await;
    assert_eq!(digest, "sha256:b");
}

/// A record of an earlier version has no digest. Its replicas are pinned when something else
/// replaces them.
#[tokio::test]
async fn digest_alone_replaces_no_replica_of_a_record_without_one() {
    let machines = Benches::new(1);
    machines.push("sha256:a");
    let old = ServiceSpec {
        project: "shop".into(),
        shared_revisions: vec!["0".into()],
        ..spec(PullPolicy::Missing, "")
    };
    let mut wanted = spec(PullPolicy::Missing, "");
    assert_eq!(machines.resolve(&wanted, Some(&old)).await.0, "");
    wanted.user = "1000".into();
    assert_eq!(machines.resolve(&wanted, Some(&old)).await.0, "sha256:a");
}

#[tokio::test]
async fn policy_missing_uses_what_all_machines_have() {
    let machines = Benches::new(2);
    machines.push("sha256:a");
    machines.pull(0).await;
    machines.pull(1).await;
    machines.push("sha256:b");
    let missing = spec(PullPolicy::Missing, "");
    assert_eq!(machines.resolve(&missing, None).await.0, "sha256:a");
    machines.pull(1).await;
    assert_eq!(machines.resolve(&missing, None).await.0, "sha256:b");
    // One that was loaded or built there is in no registry.
    machines.0[0].engine.add_image(APP);
    assert_eq!(machines.resolve(&missing, None).await.0, "");
}

#[tokio::test]
async fn built_images_and_references_with_a_digest_are_not_looked_up() {
    let machines = Benches::new(1);
    machines.push("sha256:a");
    let built = ServiceSpec {
        built: true,
        ..spec(PullPolicy::Always, "")
    };
    assert_eq!(
        machines.resolve(&built, None).await,
        (String::new(), Vec::new())
    );
    let by_digest = ServiceSpec {
        image: "app@sha256:c".into(),
        ..spec(PullPolicy::Always, "")
    };
    assert_eq!(
        machines.resolve(&by_digest, None).await,
        (String::new(), Vec::new())
    );
}

#[tokio::test]
async fn request_with_the_digests_of_a_plan_is_not_changed() {
    let request = PlanRequest {
        change: Some(Change::Deploy(DesiredServices {
            services: vec![spec(PullPolicy::Always, "sha256:a")],
            images_resolved: true,
            ..DesiredServices::default()
        })),
    };
    let machines = Benches::new(1);
    machines.push("sha256:b");
    let (resolved, warnings) = resolve(&machines, |_| None, request.clone()).await;
    assert_eq!((resolved, warnings), (request, Vec::new()));
}
