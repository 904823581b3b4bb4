//! The real engine: `bollard` over the engine's Unix socket. Only the negotiated version is kept
//! between calls, so an engine that is restarted, upgraded or installed later works without a
//! reconnect.

mod wire;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error as Bollard;
use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use bollard::models::{ContainerCreateBody, ContainerUpdateBody, VolumeCreateRequest};
use bollard::{API_DEFAULT_VERSION, Docker, query_parameters as query};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;
use uc_api::layout::label;
use uc_api::v1;
use wire::{event, has_tag, object, progress_line, reference, seconds, too_old};

use super::{
    ApiVersion, Container, Engine, EngineError, EngineEvent, EngineVersion, ExecOptions,
    ExecSession, Image, LogLine, LogOptions, NamedImage, PortHolder, Volume, exec, logs, record,
    spec,
};
use crate::engine::record::or_empty;

/// Limit for what the engine answers from memory or one file. A loaded machine answers in under a
/// second.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Limit for starting, creating and removing, which involve the runtime, the file system and
/// plugins.
const WORK_LIMIT: Duration = Duration::from_mins(2);
/// Limit for a question to a registry. A registry that is far away answers within three seconds.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);
/// A pull or load without progress for this long is given up.
const PROGRESS_LIMIT: Duration = Duration::from_mins(5);
/// The client library requires a limit for the head of each answer. Streams get this value, which
/// is practically no limit.
const NO_LIMIT: Duration = Duration::from_hours(10 * 365 * 24);
/// Number of containers inspected at the same time.
const PARALLEL_INSPECTS: usize = 8;
/// Time between two looks at something the engine is about to finish, and the number of looks.
const POLL: Duration = Duration::from_millis(50);
const POLLS: usize = 200;

/// An engine behind a Unix socket.
#[derive(Debug)]
pub(crate) struct DockerEngine {
    socket: PathBuf,
    client: Mutex<Option<Docker>>,
}

impl DockerEngine {
    /// Makes a client for an engine that need not run yet. Every call reports what is wrong until
    /// it does.
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            client: Mutex::new(None),
        }
    }

    /// Connects to an engine that must run now and be new enough.
    #[cfg(test)]
    pub(crate) async fn connect(socket: impl Into<PathBuf>) -> Result<Self, EngineError> {
        let engine = Self::new(socket);
        engine.version().await?;
        Ok(engine)
    }

    /// Returns the library's client, for requests that [`Engine`] does not have.
    pub(crate) async fn docker(&self) -> Result<Docker, EngineError> {
        self.client(ANSWER_LIMIT).await
    }

    fn broken(&self, error: &Bollard) -> EngineError {
        EngineError::from_bollard(error, &self.socket)
    }

    /// Makes a client for the newest API version that both sides support.
    async fn negotiate(&self) -> Result<Docker, EngineError> {
        let socket = self.socket.to_string_lossy();
        let client =
            Docker::connect_with_unix(&socket, ANSWER_LIMIT.as_secs(), API_DEFAULT_VERSION)
                .map_err(|error| self.broken(&error))?;
        let client = limited("answer", ANSWER_LIMIT, client.negotiate_version(), |e| {
            self.broken(e)
        })
        .await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    async fn client(&self, limit: Duration) -> Result<Docker, EngineError> {
        let known = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let client = match known {
            Some(client) => client,
            None => self.negotiate().await?,
        };
        Ok(client.with_timeout(limit))
    }

    /// Sends one request and receives its answer, body included, within `limit`.
    async fn request<T, F>(
        &self,
        what: &'static str,
        limit: Duration,
        request: impl FnOnce(Docker) -> F + Send,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, Bollard>> + Send,
    {
        let client = self.client(limit).await?;
        limited(what, limit, request(client), |e| self.broken(e)).await
    }

    /// Inspects a container without what it shares with another container.
    async fn inspect_alone(&self, id: &str) -> Result<Container, EngineError> {
        let id = object(id)?;
        let inspected = self
            .request("inspect a container", ANSWER_LIMIT, |docker| async move {
                docker.inspect_container(&id, None).await
            })
            .await?;
        Ok(record::container(inspected))
    }

    fn stream_error(&self) -> impl Fn(Bollard) -> EngineError + Send + Sync + use<> {
        let socket = self.socket.clone();
        move |error| EngineError::from_bollard(&error, &socket)
    }

    /// Removes a container and returns when it no longer exists. The engine removes its anonymous
    /// volumes, but not those that were mounted by name.
    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptionsBuilder::default()
            .v(true)
            .force(true)
            .build();
        let removed = self
            .request("remove a container", WORK_LIMIT, |docker| {
                let id = id.to_owned();
                async move { docker.remove_container(&id, Some(options)).await }
            })
            .await;
        match removed {
            Err(EngineError::NotFound { .. }) => Ok(()),
            Err(EngineError::Refused { message }) if message.contains("already in progress") => {
                for _ in 0..POLLS {
                    if let Err(EngineError::NotFound { .. }) = self.inspect(id).await {
                        return Ok(());
                    }
                    tokio::time::sleep(POLL).await;
                }
                Err(EngineError::Refused { message })
            }
            other => other,
        }
    }

    /// Removes an anonymous volume unless a container uses it. A volume that remains takes disk
    /// space and does no other harm.
    async fn remove_unused_volume(&self, name: &str) {
        let removed = self
            .request("remove a volume", WORK_LIMIT, |docker| async move {
                docker
                    .remove_volume(name, None::<query::RemoveVolumeOptions>)
                    .await
            })
            .await;
        match removed {
            Ok(()) | Err(EngineError::NotFound { .. }) => {}
            Err(EngineError::Refused { message }) if message.contains("volume is in use") => {}
            Err(error) => {
                tracing::warn!(volume = name, %error, "cannot remove an anonymous volume");
            }
        }
    }
}

async fn limited<T>(
    what: &'static str,
    limit: Duration,
    request: impl Future<Output = Result<T, Bollard>> + Send,
    to_error: impl Fn(&Bollard) -> EngineError,
) -> Result<T, EngineError> {
    match timeout(limit, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Bollard::RequestTimeoutError)) | Err(_) => {
            Err(EngineError::TimedOut { what, limit })
        }
        Ok(Err(error)) => Err(to_error(&error)),
    }
}

fn managed_filter() -> HashMap<&'static str, Vec<&'static str>> {
    HashMap::from([("label", vec![label::CLUSTER])])
}

#[async_trait]
impl Engine for DockerEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        self.negotiate().await?;
        let version = self
            .request("report its version", ANSWER_LIMIT, |docker| async move {
                docker.version().await
            })
            .await?;
        let api = ApiVersion::parse(&or_empty(version.api_version));
        let version = or_empty(version.version);
        if too_old(api) {
            return Err(EngineError::TooOld { version });
        }
        let ours = ApiVersion::new(
            u32::try_from(API_DEFAULT_VERSION.major_version).expect("a small number"),
            u32::try_from(API_DEFAULT_VERSION.minor_version).expect("a small number"),
        );
        Ok(EngineVersion {
            version,
            api: api.min(ours),
        })
    }

    async fn containers(&self) -> Result<Vec<Container>, EngineError> {
        let options = query::ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&managed_filter())
            .build();
        let list = self
            .request("list containers", ANSWER_LIMIT, |docker| async move {
                docker.list_containers(Some(options)).await
            })
            .await?;
        let mut ids: Vec<String> = list.into_iter().filter_map(|summary| summary.id).collect();
        ids.sort();
        let inspected: Vec<Result<Container, EngineError>> = futures_util::stream::iter(ids)
            .map(|id| async move { self.inspect(&id).await })
            .buffered(PARALLEL_INSPECTS)
            .collect()
            .await;
        // A container that was removed in the meantime is skipped.
        inspected
            .into_iter()
            .filter(|one| !matches!(one, Err(EngineError::NotFound { .. })))
            .collect()
    }

    async fn inspect(&self, id: &str) -> Result<Container, EngineError> {
        let mut container = self.inspect_alone(id).await?;
        if container.network_of.is_empty() {
            return Ok(container);
        }
        match self.inspect_alone(&container.network_of).await {
            Ok(other) => record::share_address(&mut container, &other),
            // The other container no longer exists, and with it the network.
            Err(EngineError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(container)
    }

    async fn create(
        &self,
        name: &str,
        platform: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let mut options = query::CreateContainerOptionsBuilder::default().name(name);
        if !platform.is_empty() {
            options = options.platform(platform);
        }
        let options = options.build();
        let created = self
            .request("create a container", WORK_LIMIT, |docker| async move {
                docker.create_container(Some(options), body).await
            })
            .await?;
        Ok(created.id)
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        let id = object(id)?;
        self.request("start a container", WORK_LIMIT, |docker| async move {
            docker
                .start_container(&id, None::<query::StartContainerOptions>)
                .await
        })
        .await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let id = object(id)?;
        let seconds = grace
            .as_secs()
            .saturating_add(u64::from(grace.subsec_nanos() > 0));
        let options = query::StopContainerOptionsBuilder::default()
            .t(i32::try_from(seconds).unwrap_or(i32::MAX))
            .build();
        let limit = Duration::from_secs(seconds).saturating_add(WORK_LIMIT);
        self.request("stop a container", limit, |docker| async move {
            docker.stop_container(&id, Some(options)).await
        })
        .await
    }

    async fn set_restart(
        &self,
        id: &str,
        policy: v1::RestartPolicy,
        attempts: u32,
    ) -> Result<(), EngineError> {
        let id = object(id)?;
        let update = ContainerUpdateBody {
            restart_policy: Some(spec::restart_policy(policy, attempts)),
            ..Default::default()
        };
        self.request("update a container", WORK_LIMIT, |docker| async move {
            docker.update_container(&id, update).await
        })
        .await
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let id = object(id)?;
        let volumes = match self.inspect_alone(&id).await {
            Ok(container) => container.anonymous_volumes,
            Err(EngineError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.remove_container(&id).await?;
        for volume in volumes {
            self.remove_unused_volume(&volume.name).await;
        }
        Ok(())
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let id = object(id)?;
        // The log stream would report a missing container only with its first item.
        self.inspect(&id).await?;
        let tail = options
            .tail
            .map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let asked = query::LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(options.follow)
            .since(seconds(options.since_ms, 0))
            .until(seconds(options.until_ms, 999))
            .tail(&tail)
            .build();
        let frames = self
            .client(NO_LIMIT)
            .await?
            .logs(&id, Some(asked))
            .map_err(self.stream_error());
        let lines = futures_util::stream::unfold(
            Some((Box::pin(frames), logs::LineAssembler::default())),
            |state| async move {
                let (mut frames, mut assembler) = state?;
                match frames.next().await {
                    Some(Ok(frame)) => {
                        let (stream, bytes) = match frame {
                            LogOutput::StdErr { message } => (v1::LogStream::Stderr, message),
                            LogOutput::StdOut { message }
                            | LogOutput::StdIn { message }
                            | LogOutput::Console { message } => (v1::LogStream::Stdout, message),
                        };
                        let line: Vec<_> =
                            assembler.push(stream, &bytes).into_iter().map(Ok).collect();
                        Some((line, Some((frames, assembler))))
                    }
                    Some(Err(error)) => Some((vec![Err(error)], None)),
                    None => Some((assembler.finish().into_iter().map(Ok).collect(), None)),
                }
            },
        );
        let lines = lines
            .flat_map(futures_util::stream::iter)
            .try_filter(move |line| std::future::ready(logs::is_in_time_range(line, &options)));
        Ok(lines.boxed())
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<ExecSession, EngineError> {
        let id = object(id)?;
        let tty = options.tty;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let config = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(tty),
            env: Some(options.environment),
            cmd: Some(options.command),
            user: some(options.user),
            working_dir: some(options.working_dir),
            privileged: Some(options.privileged),
            ..Default::default()
        };
        let created = self
            .request("prepare a command", ANSWER_LIMIT, |docker| async move {
                docker.create_exec(&id, config).await
            })
            .await?;
        exec::attach(&self.socket, &created.id, tty).await
    }

    async fn exec_resize(&self, exec_id: &str, columns: u16, rows: u16) -> Result<(), EngineError> {
        let id = object(exec_id)?;
        let size = ResizeExecOptions {
            height: rows,
            width: columns,
        };
        self.request("resize a terminal", ANSWER_LIMIT, |docker| async move {
            docker.resize_exec(&id, size).await
        })
        .await
    }

    async fn exec_exit_code(&self, exec_id: &str) -> Result<i32, EngineError> {
        let id = object(exec_id)?;
        // The output ends a moment before the engine has recorded the exit.
        for _ in 0..POLLS {
            let inspected = self
                .request("inspect a command", ANSWER_LIMIT, |docker| {
                    let id = id.clone();
                    async move { docker.inspect_exec(&id).await }
                })
                .await?;
            if let (Some(false), Some(code)) = (inspected.running, inspected.exit_code) {
                return Ok(code as i32);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(EngineError::TimedOut {
            what: "record the end of a command",
            limit: POLL * POLLS as u32,
        })
    }

    async fn volumes(&self) -> Result<Vec<Volume>, EngineError> {
        let list = self
            .request("list volumes", ANSWER_LIMIT, |docker| async move {
                docker.list_volumes(None::<query::ListVolumesOptions>).await
            })
            .await?;
        let mut volumes: Vec<Volume> = or_empty(list.volumes)
            .into_iter()
            .filter_map(record::volume)
            .collect();
        volumes.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(volumes)
    }

    async fn create_volume(
        &self,
        volume: &v1::VolumeSpec,
        labels: Vec<(String, String)>,
    ) -> Result<(), EngineError> {
        let driver = if volume.driver.is_empty() {
            "local"
        } else {
            &volume.driver
        };
        let request = VolumeCreateRequest {
            name: Some(object(&volume.name)?),
            driver: Some(driver.to_owned()),
            driver_opts: Some(volume.driver_opts.clone().into_iter().collect()),
            labels: Some(labels.into_iter().collect()),
            cluster_volume_spec: None,
        };
        self.request("create a volume", WORK_LIMIT, |docker| async move {
            docker.create_volume(request).await
        })
        .await
        .map(|_| ())
    }

    async fn image(&self, image: &str) -> Result<Option<Image>, EngineError> {
        let image = reference(image)?;
        let inspected = self
            .request("inspect an image", ANSWER_LIMIT, |docker| async move {
                docker.inspect_image(&image).await
            })
            .await;
        match inspected {
            Ok(inspected) => Ok(Some(Image {
                platform: [&inspected.os, &inspected.architecture, &inspected.variant]
                    .map(|part| part.as_deref().unwrap_or(""))
                    .join("/")
                    .trim_end_matches('/')
                    .to_owned(),
                id: or_empty(inspected.id),
                digests: or_empty(inspected.repo_digests),
                entrypoint: or_empty(inspected.config.and_then(|config| config.entrypoint)),
            })),
            Err(EngineError::ImageMissing { .. } | EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn images(&self) -> Result<Vec<NamedImage>, EngineError> {
        let list = self
            .request("list images", ANSWER_LIMIT, |docker| async move {
                docker.list_images(None::<query::ListImagesOptions>).await
            })
            .await?;
        let named = list.into_iter().map(|image| NamedImage {
            id: image.id,
            // Older engines give images without a name this one.
            names: image
                .repo_tags
                .into_iter()
                .filter(|name| name != "<none>:<none>")
                .collect(),
        });
        let mut images: Vec<NamedImage> = named.filter(|image| !image.names.is_empty()).collect();
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(images)
    }

    async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let image = reference(image)?;
        let removed = self
            .request("remove an image", WORK_LIMIT, |docker| async move {
                docker
                    .remove_image(&image, None::<query::RemoveImageOptions>, None)
                    .await
            })
            .await;
        match removed {
            Ok(_) | Err(EngineError::ImageMissing { .. } | EngineError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn registry_digest(&self, image: &str) -> Result<String, EngineError> {
        let name = reference(image)?;
        let inspected = self
            .request("ask the registry", REGISTRY_LIMIT, |docker| async move {
                docker.inspect_registry_image(&name, None).await
            })
            .await
            .map_err(|error| error.to_string())
            .and_then(|inspected| {
                inspected
                    .descriptor
                    .digest
                    .ok_or_else(|| "no digest".to_owned())
            });
        inspected.map_err(|reason| EngineError::Registry {
            image: image.to_owned(),
            reason,
        })
    }

    async fn pull(
        &self,
        image: &str,
        platform: &str,
    ) -> Result<BoxStream<'static, Result<String, EngineError>>, EngineError> {
        let image = reference(image)?;
        let mut options = query::CreateImageOptionsBuilder::default()
            .from_image(&image)
            .platform(platform);
        // Without a tag the engine would pull every tag of the image.
        if !has_tag(&image) {
            options = options.tag("latest");
        }
        let docker = self.client(PROGRESS_LIMIT).await?;
        let socket = self.socket.clone();
        let progress = docker.create_image(Some(options.build()), None, None);
        let progress = with_patience("pull an image", Box::pin(progress), move |error| {
            EngineError::from_bollard(error, &socket)
        });
        let of = image.clone();
        Ok(progress
            .map_err(move |error| error.while_pulling(&of))
            .try_filter_map(|info| std::future::ready(Ok(progress_line(info))))
            .boxed())
    }

    async fn load(
        &self,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError> {
        let docker = self.client(NO_LIMIT).await?;
        let options = query::ImportImageOptionsBuilder::default()
            .quiet(true)
            .build();
        let mut answers = Box::pin(docker.import_image_stream(options, archive, None));
        while let Some(answer) = answers.next().await {
            answer.map_err(|error| self.broken(&error))?;
        }
        Ok(())
    }

    async fn port_holders(&self) -> Result<Vec<PortHolder>, EngineError> {
        let list = self
            .request("list containers", ANSWER_LIMIT, |docker| async move {
                docker
                    .list_containers(None::<query::ListContainersOptions>)
                    .await
            })
            .await?;
        Ok(list.into_iter().flat_map(record::port_holders).collect())
    }

    async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<EngineEvent, EngineError>>, EngineError> {
        // Events of healthchecks and execs are left out, because they change nothing that we
        // publish.
        let filters = HashMap::from([
            ("type", vec!["container", "volume", "network"]),
            (
                "event",
                vec![
                    "create",
                    "start",
                    "die",
                    "stop",
                    "kill",
                    "restart",
                    "pause",
                    "unpause",
                    "rename",
                    "update",
                    "oom",
                    "destroy",
                    "health_status",
                    "connect",
                    "disconnect",
                ],
            ),
        ]);
        // The request is sent only when the stream is first read. With `since`, changes until then
        // are reported as well.
        let now = jiff::Timestamp::now();
        let since = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
        let options = query::EventsOptionsBuilder::default()
            .filters(&filters)
            .since(&since)
            .build();
        let events = self
            .client(NO_LIMIT)
            .await?
            .events(Some(options))
            .map_err(self.stream_error());
        Ok(events
            .try_filter_map(|message| std::future::ready(Ok(event(message))))
            .boxed())
    }
}

/// Wraps a stream that must yield an item within each [`PROGRESS_LIMIT`].
fn with_patience<T: Send + 'static>(
    what: &'static str,
    stream: std::pin::Pin<
        Box<impl futures_util::Stream<Item = Result<T, Bollard>> + Send + 'static>,
    >,
    to_error: impl Fn(&Bollard) -> EngineError + Send + 'static,
) -> impl futures_util::Stream<Item = Result<T, EngineError>> + Send + 'static {
    futures_util::stream::unfold(Some((stream, to_error)), move |state| async move {
        let (mut stream, to_error) = state?;
        match timeout(PROGRESS_LIMIT, stream.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(item))) => Some((Ok(item), Some((stream, to_error)))),
            Ok(Some(Err(error))) => Some((Err(to_error(&error)), None)),
            Err(_) => Some((
                Err(EngineError::TimedOut {
                    what,
                    limit: PROGRESS_LIMIT,
                }),
                None,
            )),
        }
    })
}
