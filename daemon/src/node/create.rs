//! Creates a replica. First it checks everything that could fail, then it pulls the image, then it
//! creates the container.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uc_api::{Code, Failure, v1};

use super::{Identity, NodeService, ports};
use crate::engine::error::PullProblem;
use crate::engine::{AnonymousVolume, EngineError, platform, reference, spec};

/// Container names tried. A name has 20 random bits, so the second is all but certain to be free.
const NAME_TRIES: usize = 8;
/// Minimum time between two progress messages of a pull. The engine reports many times a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

impl NodeService {
    /// Creates a container and returns its id. `say` is told what happens.
    ///
    /// If this is dropped while the engine works, the engine may still create the container. It is
    /// then found by its label.
    pub(super) async fn create_container(
        &self,
        new: NewContainer<'_>,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<String, Failure> {
        let identity = self.identity()?;
        spec::check(new.spec)?;
        let create = Create {
            node: self,
            identity,
            new,
            say,
        };
        create.run().await
    }

    /// Creates a volume, or checks that an existing volume has the wanted settings.
    pub(crate) async fn create_volume_from(&self, wanted: &v1::VolumeSpec) -> Result<(), Failure> {
        let identity = self.identity()?;
        if !spec::is_object_name(&wanted.name) {
            return Err(Failure::new(
                Code::Invalid,
                format!("invalid volume name `{}`", wanted.name),
            ));
        }
        let volumes = self.engine.volumes().await?;
        let present = volumes
            .into_iter()
            .find(|volume| volume.record.name == wanted.name);
        if wanted.external {
            return present.map(|_| ()).ok_or_else(|| {
                Failure::new(
                    Code::Refused,
                    format!("external volume `{}` does not exist", wanted.name),
                )
                .hint(format!(
                    "create it on that machine: `docker volume create {}`",
                    wanted.name
                ))
            });
        }
        if let Some(present) = present {
            let driver = if wanted.driver.is_empty() {
                "local"
            } else {
                &wanted.driver
            };
            let options = wanted.driver_opts.clone().into_iter().collect();
            if present.record.driver == driver && present.options == options {
                return Ok(());
            }
            return Err(Failure::new(
                Code::Refused,
                format!(
                    "volume `{}` exists with different settings (driver {}, options {:?})",
                    wanted.name, present.record.driver, present.options
                ),
            )
            .hint("keep the old settings, or rename the volume in the compose file; the old volume keeps its data"));
        }
        let labels = spec::volume_labels(
            wanted,
            &identity.cluster.to_string(),
            &identity.machine.to_string(),
        );
        Ok(self.engine.create_volume(wanted, labels).await?)
    }
}

/// A container to create.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewContainer<'a> {
    pub(super) spec: &'a v1::ServiceSpec,
    pub(super) revision: &'a str,
    pub(super) deployment: &'a str,
    /// Deployment and step that create it; empty for one that only runs a command.
    pub(super) step: &'a str,
    /// Id of the container that it replaces; empty if there is none.
    pub(super) replaces: &'a str,
}

struct Create<'a> {
    node: &'a NodeService,
    identity: Identity,
    new: NewContainer<'a>,
    say: &'a (dyn Fn(String) + Send + Sync),
}

impl Create<'_> {
    async fn run(&self) -> Result<String, Failure> {
        let wanted = self.new.spec;
        let api = self.node.engine.version().await?.api;
        spec::check_engine(wanted, api)?;
        self.check_volumes().await?;
        self.check_folders().await?;
        self.shared_containers().await?;
        ports::check_ports(wanted, &self.node.engine.port_holders().await?).await?;
        let contents = self.node.contents(wanted).await?;
        self.fetch_images().await?;
        let image_entrypoint = if spec::needs_image_entrypoint(wanted) {
            self.node
                .engine
                .image(&reference::pinned(wanted))
                .await?
                .map_or_else(Vec::new, |image| image.entrypoint)
        } else {
            Vec::new()
        };
        let (cluster, machine) = (
            self.identity.cluster.to_string(),
            self.identity.machine.to_string(),
        );
        // Look again, because the pull can take long.
        let shared = self.shared_containers().await?;
        let handed_on = self.handed_on().await?;
        let placement = spec::Placement {
            cluster: &cluster,
            machine: &machine,
            bridge: self.identity.bridge,
            revision: self.new.revision,
            deployment: self.new.deployment,
            step: self.new.step,
            image_entrypoint: &image_entrypoint,
            api,
            shared: &shared,
            files: &contents.paths,
            handed_on: &handed_on,
            secrets: &contents.secrets,
        };
        for _ in 0..NAME_TRIES {
            let name = spec::container_name(wanted, rand::random());
            let body = spec::container(wanted, &name, &placement)?;
            match self.node.engine.create(&name, &wanted.platform, body).await {
                Err(EngineError::NameTaken { .. }) => {}
                created => return Ok(created?),
            }
        }
        Err(Failure::new(
            Code::Exists,
            format!("no free name for a replica of `{}`", wanted.name),
        ))
    }

    /// The anonymous volumes of the container that this one replaces.
    async fn handed_on(&self) -> Result<Vec<AnonymousVolume>, Failure> {
        if self.new.replaces.is_empty() {
            return Ok(Vec::new());
        }
        match self.node.engine.inspect(self.new.replaces).await {
            Ok(old) => Ok(old.hands_on_to(self.new.spec)),
            // Somebody has removed it, and its volumes with it.
            Err(EngineError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the volumes exist. The engine would silently create a missing one, empty and
    /// without labels.
    async fn check_volumes(&self) -> Result<(), Failure> {
        let named = |mount: &&v1::MountSpec| {
            mount.kind() == v1::MountKind::Volume && !mount.source.is_empty()
        };
        let mut wanted = self.new.spec.mounts.iter().filter(named).peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        let volumes = self.node.engine.volumes().await?;
        let missing = wanted.find(|mount| {
            !volumes
                .iter()
                .any(|volume| volume.record.name == mount.source)
        });
        missing.map_or(Ok(()), |mount| {
            Err(Failure::new(
                Code::Refused,
                format!("volume `{}` does not exist", mount.source),
            )
            .hint("deploy again: the plan creates the volume"))
        })
    }

    /// Checks that bind sources exist where `create_host_path: false` requires it. The engine would
    /// refuse only after the pull, and without naming the machine or a remedy.
    async fn check_folders(&self) -> Result<(), Failure> {
        let there = |mount: &&v1::MountSpec| {
            mount.kind() == v1::MountKind::Bind && mount.create_host_path == Some(false)
        };
        for mount in self.new.spec.mounts.iter().filter(there) {
            // Other errors are left to the engine.
            if let Err(error) = tokio::fs::metadata(&mount.source).await
                && error.kind() == std::io::ErrorKind::NotFound
            {
                let message = format!("`{}` does not exist on this machine", mount.source);
                return Err(Failure::new(Code::Refused, message)
                    .hint("create the path on the machine, or set `bind.create_host_path: true`"));
            }
        }
        Ok(())
    }

    /// Returns the newest running replica of each service whose namespaces are shared. A draining
    /// replica is used only if there is no other. Fails if a service has no running replica.
    async fn shared_containers(&self) -> Result<BTreeMap<String, String>, Failure> {
        let services = spec::shared_services(self.new.spec);
        if services.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut running: Vec<v1::ReplicaRecord> = self
            .node
            .observe_now()
            .await?
            .replicas
            .into_iter()
            .filter(|replica| replica.project == self.new.spec.project)
            .filter(|replica| replica.state() == v1::ReplicaState::Running)
            .collect();
        // The map keeps the last entry of each service.
        running.sort_by_key(|replica| (!replica.draining, replica.created_at_ms));
        let found: BTreeMap<String, String> = running
            .into_iter()
            .filter(|replica| services.contains(&replica.service.as_str()))
            .map(|replica| (replica.service, replica.container_id))
            .collect();
        spec::check_shared(self.new.spec, &found)?;
        Ok(found)
    }

    /// Pulls the service's own image, and the images of its mounts.
    async fn fetch_images(&self) -> Result<(), Failure> {
        self.fetch_image().await?;
        let mounts = self
            .new
            .spec
            .mounts
            .iter()
            .filter(|mount| mount.kind() == v1::MountKind::Image);
        for mount in mounts {
            if self.node.engine.image(&mount.source).await?.is_none() {
                self.pull(&mount.source, "", &mount.source).await?;
            }
        }
        Ok(())
    }

    async fn fetch_image(&self) -> Result<(), Failure> {
        let (image, platform) = (&self.new.spec.image, &self.new.spec.platform);
        let pinned = reference::pinned(self.new.spec);
        let missing = || {
            Failure::from(EngineError::ImageMissing {
                image: pinned.clone(),
            })
        };
        let here = self.node.engine.image(&pinned).await?;
        let present = here.is_some();
        // Of a multi-platform image the engine shows one platform. If that one does not fit, the
        // image is pulled again, and the engine refuses it if it must.
        let fits = here.is_some_and(|here| platform::fits(platform, &here.platform));
        if self.new.spec.built {
            return if present {
                Ok(())
            } else {
                Err(missing().hint("the client builds this image: deploy again to push it"))
            };
        }
        match self.new.spec.pull_policy() {
            v1::PullPolicy::Never if present => Ok(()),
            v1::PullPolicy::Never => Err(missing().hint(
                "the pull policy is `never`: load the image on the machine, or change the policy",
            )),
            v1::PullPolicy::Missing | v1::PullPolicy::Unspecified if fits => Ok(()),
            // The registry was asked for the digest, and cannot have another content under it.
            _ if fits && !self.new.spec.image_digest.is_empty() => Ok(()),
            _ => match self.pull(&pinned, platform, image).await {
                Err(failure) if fits && failure.code == Code::Unreachable => {
                    (self.say)(format!(
                        "{}; the image that is on this machine is used",
                        failure.message
                    ));
                    Ok(())
                }
                pulled => pulled,
            },
        }
    }

    /// Pulls an image, which messages call `name`.
    async fn pull(&self, image: &str, platform: &str, name: &str) -> Result<(), Failure> {
        (self.say)(format!("pulling {name}"));
        let mut progress = self.node.engine.pull(image, platform).await?;
        let mut reported_at = Instant::now();
        while let Some(line) = progress.next().await {
            let line = line?;
            if reported_at.elapsed() >= PROGRESS_INTERVAL {
                reported_at = Instant::now();
                (self.say)(line);
            }
        }
        if self.node.engine.image(image).await?.is_none() {
            return Err(EngineError::Pull {
                image: image.to_owned(),
                problem: PullProblem::Other,
                reason: "the engine reported no error, but the image does not exist".to_owned(),
            }
            .into());
        }
        (self.say)(format!("pulled {name}"));
        Ok(())
    }
}
