//! Tags that move, with a real registry.

use std::process::{Child, Command, Stdio};

use futures_util::TryStreamExt as _;

use super::*;
use crate::engine::dockerd::skip;
use crate::engine::reference::by_digest;

const APP: &str = "127.0.0.1:5000/app:latest";

/// A registry in the network namespace of an engine, which ends with the test.
struct Registry {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Returns `None` and prints a notice if `docker-registry` is not installed.
    fn start(dockerd: &Dockerd) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path);
        if !folders.any(|folder| folder.join("docker-registry").is_file()) {
            skip("docker-registry is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let content = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:5000'}}\n",
            data.display()
        );
        std::fs::write(&settings, content).unwrap();
        let process = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", dockerd.process_id()))
            .args(["setpriv", "--pdeathsig", "TERM", "docker-registry", "serve"])
            .arg(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self {
            process,
            _folder: folder,
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// Moves the tag to an image with this content.
async fn push(dockerd: &Dockerd, content: &str) {
    dockerd
        .import(APP, &format!("ENV PATH=/bin CONTENT={content}"))
        .await;
    let docker = dockerd.client();
    let options = bollard::query_parameters::PushImageOptionsBuilder::default()
        .tag("latest")
        .build();
    let repository = APP.strip_suffix(":latest").unwrap();
    let pushed = async || -> Result<Vec<_>, _> {
        let progress = docker.push_image(repository, Some(options.clone()), None);
        progress.try_collect().await
    };
    // The registry needs a moment to start.
    for _ in 0..100 {
        if pushed().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pushed().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pinned_image_keeps_its_content_when_the_tag_moves() {
    let Some(dockerd) = Dockerd::start().await else {
        return;
    };
    let Some(registry) = Registry::start(&dockerd) else {
        return;
    };
    let served = served(&dockerd).await;
    let (engine, node) = (&served.engine, &served.node);
    let resolve = async |ask_registry| {
        let image = APP.to_owned();
        let request = v1::ResolveImageRequest {
            image,
            ask_registry,
        };
        node.resolve_image(&request).await.unwrap()
    };

    push(&dockerd, "first").await;
    let first = resolve(true).await.digest;
    assert!(first.starts_with("sha256:"), "{first}");
    let local = resolve(false).await;
    assert_eq!((local.present, &local.digest), (true, &first));
    push(&dockerd, "second").await;
    let second = resolve(true).await.digest;
    assert_ne!(first, second);

    // As on a machine that has neither.
    for name in [
        APP.to_owned(),
        by_digest(APP, &first),
        by_digest(APP, &second),
    ] {
        engine.remove_image(&name).await.unwrap();
    }
    assert_eq!(resolve(false).await, v1::ResolveImageResponse::default());
    let spec = |digest: &str| v1::ServiceSpec {
        image: APP.into(),
        image_digest: digest.into(),
        pull_policy: v1::PullPolicy::Always.into(),
        stop_grace_period_ms: Some(0),
        ..service("pinned", "echo $CONTENT; sleep 1000")
    };
    let content_of = async |digest: &str| {
        let (progress, id) = create(node, spec(digest)).await.unwrap();
        start(node, &id).await.unwrap();
        let container = engine.inspect(&id).await.unwrap();
        assert_eq!(container.record.image, APP);
        let run = v1::ExecStart {
            container: id.clone(),
            command: ["sh", "-c", "echo $CONTENT"].map(str::to_owned).to_vec(),
            ..Default::default()
        };
        let (output, _) = exec(node, run, b"").await;
        engine.remove(&id).await.unwrap();
        (progress.len(), output.trim().to_owned())
    };
    let (pulled, content) = content_of(&first).await;
    assert!(pulled > 0);
    assert_eq!(content, "first");
    assert_eq!(content_of(&second).await.1, "second");

    // What is on the machine needs no registry.
    drop(registry);
    assert_eq!(content_of(&first).await, (0, "first".to_owned()));
    let failed = engine.registry_digest(APP).await;
    assert!(
        matches!(failed, Err(EngineError::Registry { .. })),
        "{failed:?}"
    );
}
