//! A real engine for tests: a `dockerd` with its own folder, socket and network namespace, which
//! ends with the test.
//!
//! `PATH` decides which one. `UC_TEST_DOCKERD_ARGS` adds arguments, for example
//! `--feature=containerd-snapshotter=true` for the other image store.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::{Docker, query_parameters as query};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::suite::IMAGE;
use super::{DockerEngine, Engine as _};

const START_LIMIT: Duration = Duration::from_mins(1);
const END_LIMIT: Duration = Duration::from_secs(30);
const BUSYBOX: &str = "/bin/busybox";

#[derive(Debug)]
pub(crate) struct Dockerd {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

/// Prints why a test does nothing. Where everything is expected to be there, that is a failure.
pub(crate) fn skip(what: &str) {
    let set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    assert!(!set("CI") || set("UC_TESTBED_SKIP"), "{what}");
    println!("skipped: {what}");
}

impl Dockerd {
    /// Starts an engine. Returns `None` and prints a notice if that is impossible: without root,
    /// `dockerd` or `busybox`.
    pub(crate) async fn start() -> Option<Self> {
        let has = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        let root = std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        for (there, what) in [
            (root, "not root"),
            (has("dockerd"), "dockerd is not installed"),
            (
                has("unshare") && has("setpriv"),
                "util-linux is not installed",
            ),
            (
                std::path::Path::new(BUSYBOX).exists(),
                "busybox-static is not installed",
            ),
        ] {
            if !there {
                skip(what);
                return None;
            }
        }
        let mut dockerd = Self {
            folder: tempfile::tempdir().unwrap(),
            process: None,
        };
        dockerd.begin().await;
        dockerd.make_network().await;
        Some(dockerd)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The process whose network namespace is the engine's.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it was started").id()
    }

    pub(crate) fn client(&self) -> Docker {
        let socket = self.socket();
        Docker::connect_with_unix(&socket.to_string_lossy(), 60, bollard::API_DEFAULT_VERSION)
            .unwrap()
    }

    /// Starts the process on the present content of the folder.
    pub(crate) async fn begin(&mut self) {
        let at = |name: &str| {
            self.folder
                .path()
                .join(name)
                .into_os_string()
                .into_string()
                .unwrap()
        };
        let log = std::fs::File::create(at("log")).unwrap();
        let more = std::env::var("UC_TEST_DOCKERD_ARGS").unwrap_or_default();
        // The namespace ends with its process. If the test dies first, the kernel ends the process.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "unshare", "--net", "--", "sh", "-c"])
            .args(["ip link set lo up && exec \"$0\" \"$@\"", "dockerd"])
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "-p",
                &at("pid"),
            ])
            .args([
                "-H",
                &format!("unix://{}", at("docker.sock")),
                "--bridge",
                "none",
            ])
            .args(more.split_whitespace())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let engine = DockerEngine::new(self.socket());
        let started = Instant::now();
        while let Err(error) = engine.version().await {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < START_LIMIT,
                "dockerd did not start: {error}\n{}",
                std::fs::read_to_string(at("log")).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the process, as a restart of the service would.
    pub(crate) fn end(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let pid = process.id().to_string();
        let _gone = Command::new("kill").args(["-TERM", &pid]).status();
        let started = Instant::now();
        while process.try_wait().is_ok_and(|ended| ended.is_none()) {
            if started.elapsed() > END_LIMIT {
                let _gone = process.kill();
                let _gone = process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The names of all volumes, the anonymous ones included.
    pub(crate) async fn volumes(&self) -> Vec<String> {
        let all = None::<bollard::query_parameters::ListVolumesOptions>;
        let list = self.client().list_volumes(all).await.unwrap();
        let volumes = list.volumes.unwrap_or_default().into_iter();
        volumes.map(|volume| volume.name).collect()
    }

    async fn make_network(&self) {
        let request = NetworkCreateRequest {
            name: uc_api::layout::DOCKER_NETWORK.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some("10.233.0.0/24".to_owned()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.client().create_network(request).await.unwrap();
    }

    /// Makes an image of busybox with this instruction of a Dockerfile.
    pub(crate) async fn import(&self, name: &str, change: &str) {
        let options = query::CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(name)
            .changes(vec![change.to_owned()])
            .build();
        let root = bollard::body_full(root_file_system().into());
        let docker = self.client();
        let imported = docker.create_image(Some(options), Some(root), None);
        let imported: Vec<_> = imported.try_collect().await.unwrap();
        assert!(!imported.is_empty());
    }

    /// Returns the test image in the format of `docker save`. The image is not left on the engine.
    pub(crate) async fn archive(&self) -> Bytes {
        let docker = self.client();
        self.import(IMAGE, "ENV PATH=/bin").await;
        let archive: Vec<Bytes> = docker
            .export_image(IMAGE)
            .map(Result::unwrap)
            .collect()
            .await;
        docker
            .remove_image(IMAGE, None::<query::RemoveImageOptions>, None)
            .await
            .unwrap();
        archive.concat().into()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            println!("dockerd's log:\n{}", log.get(from..).unwrap_or(&log));
        }
    }
}

/// A static busybox, with a link for each program that the tests call.
fn root_file_system() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(BUSYBOX, "bin/busybox").unwrap();
    for name in [
        "sh", "cat", "echo", "sleep", "true", "false", "stty", "hostname", "env",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox")
            .unwrap();
    }
    tar.into_inner().unwrap()
}
