//! `Deploy`: plans, their execution, and images and files from the client for the machines.

pub(super) mod deployments;
mod relay;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use uc_api::v1::deploy_server::Deploy;
use uc_api::v1::{
    CancelRequest, CancelResponse, ContentPart, DeployEvent, ExecuteRequest, ImageTarget,
    ListDeploymentsRequest, ListDeploymentsResponse, ListLocksRequest, ListLocksResponse,
    MissingContentsRequest, MissingContentsResponse, MissingImagesRequest, MissingImagesResponse,
    Plan, PlanRequest, PushContentResponse, PushImageRequest, PushImageResponse, PushResult,
    ReleaseLockRequest, ReleaseLockResponse, WatchRequest, push_image_request,
};
use uc_api::{Code, Failure};

use crate::app::App;
use crate::cluster::machines::Machine;
use crate::cluster::member::Member;
use crate::deploy::lock::locks;
use crate::deploy::run;

#[derive(Debug)]
pub(super) struct DeployApi {
    app: Arc<App>,
}

impl DeployApi {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

async fn missing_on(
    member: &Member,
    machine_id: &str,
    images: Vec<String>,
) -> Result<Vec<String>, Failure> {
    member.remote(machine_id)?.missing_images(images).await
}

async fn missing(member: &Member, wanted: &[ImageTarget]) -> Result<Vec<ImageTarget>, Failure> {
    let mut missing = Vec::new();
    for target in wanted {
        let answers = join_all(
            target
                .machine_ids
                .iter()
                .map(|machine| missing_on(member, machine, vec![target.image.clone()])),
        )
        .await;
        let mut machine_ids = Vec::new();
        for (machine, answer) in target.machine_ids.iter().zip(answers) {
            if !answer?.is_empty() {
                machine_ids.push(machine.clone());
            }
        }
        if !machine_ids.is_empty() {
            missing.push(ImageTarget {
                image: target.image.clone(),
                machine_ids,
            });
        }
    }
    Ok(missing)
}

async fn load_on(
    member: Arc<Member>,
    machine: Arc<Machine>,
    messages: relay::Receiver,
) -> PushResult {
    let loaded = relay::load(member.peers.machine(&machine), messages).await;
    PushResult {
        error: loaded.map_or_else(|failure| failure.message, |()| String::new()),
        machine_id: machine.id.to_string(),
        machine_name: machine.name.to_string(),
    }
}

async fn push(
    member: Arc<Member>,
    mut incoming: Streaming<PushImageRequest>,
) -> Result<PushImageResponse, Failure> {
    let first = incoming.message().await.map_err(Failure::from)?;
    let not_a_start = || {
        Failure::new(
            Code::Invalid,
            "the first message of an image must be its start",
        )
    };
    let first = first.ok_or_else(not_a_start)?;
    let Some(push_image_request::Message::Start(start)) = &first.message else {
        return Err(not_a_start());
    };
    let mut senders = Vec::new();
    let mut loads = Vec::new();
    for machine in &start.machine_ids {
        let machine = Arc::clone(member.cluster().machine(machine)?);
        let (sender, receiver) = relay::channel();
        senders.push(sender);
        loads.push(tokio::spawn(load_on(
            Arc::clone(&member),
            machine,
            receiver,
        )));
    }
    relay::relay(first, incoming, senders).await?;
    let results = join_all(loads).await;
    let results = results
        .into_iter()
        .map(|result| {
            result.unwrap_or_else(|error| PushResult {
                error: error.to_string(),
                ..PushResult::default()
            })
        })
        .collect();
    Ok(PushImageResponse { results })
}

#[tonic::async_trait]
impl Deploy for DeployApi {
    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<Plan>, Status> {
        let member = self.app.member()?;
        Ok(Response::new(
            run::plan_request(&member, &request.into_inner()).await?,
        ))
    }

    type ExecuteStream = Pin<Box<dyn Stream<Item = Result<DeployEvent, Status>> + Send>>;

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let member = self.app.member()?;
        let ExecuteRequest {
            request,
            digest,
            skip_health,
        } = request.into_inner();
        let request = request
            .ok_or_else(|| Failure::new(Code::Invalid, "the request has no plan to execute"))?;
        let order = run::Order {
            request,
            digest,
            deployment: format!("{:016x}", rand::random::<u64>()),
            skip_health,
        };
        let events = run::start(member, order).await?;
        Ok(Response::new(Box::pin(events.subscribe().map(Ok))))
    }

    type WatchStream = deployments::DeployEvents;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let member = self.app.member()?;
        let id = request.into_inner().deployment_id;
        Ok(Response::new(deployments::watch(member, &id).await?))
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> Result<Response<CancelResponse>, Status> {
        let member = self.app.member()?;
        deployments::cancel(&member, &request.into_inner().deployment_id).await?;
        Ok(Response::new(CancelResponse {}))
    }

    async fn list_deployments(
        &self,
        request: Request<ListDeploymentsRequest>,
    ) -> Result<Response<ListDeploymentsResponse>, Status> {
        let member = self.app.member()?;
        let deployments = deployments::list(&member, &request.into_inner().project);
        Ok(Response::new(ListDeploymentsResponse { deployments }))
    }

    async fn list_locks(
        &self,
        _: Request<ListLocksRequest>,
    ) -> Result<Response<ListLocksResponse>, Status> {
        let member = self.app.member()?;
        Ok(Response::new(locks::list(&member).await))
    }

    async fn release_lock(
        &self,
        request: Request<ReleaseLockRequest>,
    ) -> Result<Response<ReleaseLockResponse>, Status> {
        let member = self.app.member()?;
        let project = request.into_inner().project;
        Ok(Response::new(locks::release(&member, &project).await?))
    }

    async fn missing_images(
        &self,
        request: Request<MissingImagesRequest>,
    ) -> Result<Response<MissingImagesResponse>, Status> {
        let member = self.app.member()?;
        let missing = missing(&member, &request.into_inner().images).await?;
        Ok(Response::new(MissingImagesResponse { missing }))
    }

    async fn push_image(
        &self,
        request: Request<Streaming<PushImageRequest>>,
    ) -> Result<Response<PushImageResponse>, Status> {
        let member = self.app.member()?;
        Ok(Response::new(push(member, request.into_inner()).await?))
    }

    async fn missing_contents(
        &self,
        request: Request<MissingContentsRequest>,
    ) -> Result<Response<MissingContentsResponse>, Status> {
        let member = self.app.member()?;
        let missing = member
            .node
            .missing_contents(&request.into_inner().hashes)
            .await?;
        Ok(Response::new(MissingContentsResponse { missing }))
    }

    async fn push_content(
        &self,
        request: Request<Streaming<ContentPart>>,
    ) -> Result<Response<PushContentResponse>, Status> {
        let member = self.app.member()?;
        member.node.files().receive(request.into_inner()).await?;
        Ok(Response::new(PushContentResponse {}))
    }
}
