//! What the test daemon answers about deployments.

use std::sync::Arc;

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};
use uc_api::{Failure, v1};

use super::{Archive, Boxed, Content, Daemon, boxed};

impl Daemon {
    /// The events of an execution, and a failure in place of its end.
    fn deployment(
        &self,
        events: Vec<v1::DeployEvent>,
        failure: Option<Failure>,
    ) -> Boxed<v1::DeployEvent> {
        let mut items: Vec<_> = events.into_iter().map(Ok).collect();
        items.extend(failure.map(|failure| Err(failure.into())));
        if !self.endless {
            return boxed(items);
        }
        let cancelled = Arc::clone(&self.cancelled);
        let end = self.after_cancel.clone().into_iter().map(Ok);
        let end = futures_util::stream::once(async move {
            cancelled.notified().await;
            tokio_stream::iter(end)
        });
        let end = futures_util::StreamExt::flatten(end);
        Box::pin(boxed(items).chain(end).chain(tokio_stream::pending()))
    }
}

#[tonic::async_trait]
impl v1::deploy_server::Deploy for Daemon {
    type ExecuteStream = Boxed<v1::DeployEvent>;

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::Plan>, Status> {
        self.called(&request, "Plan", "")?;
        self.wishes.lock().unwrap().push(request.into_inner());
        let mut plans = self.plans.lock().unwrap();
        let plan = if plans.len() > 1 {
            plans.pop_front()
        } else {
            plans.front().cloned()
        };
        Ok(Response::new(plan.unwrap_or_default()))
    }

    async fn execute(
        &self,
        request: Request<v1::ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        self.called(&request, "Execute", &request.get_ref().digest)?;
        if self.execute_hangs {
            std::future::pending::<()>().await;
        }
        let (events, failure) = self
            .executions
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or_default();
        if let (true, Some(failure)) = (events.is_empty(), &failure) {
            return Err(failure.clone().into());
        }
        Ok(Response::new(self.deployment(events, failure)))
    }

    type WatchStream = Boxed<v1::DeployEvent>;

    /// What comes next of `executions`.
    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.called(&request, "Watch", &request.get_ref().deployment_id)?;
        let next = self.executions.lock().unwrap().pop_front();
        let Some((events, failure)) = next else {
            return Err(Status::not_found("no such deployment"));
        };
        Ok(Response::new(self.deployment(events, failure)))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        self.called(&request, "Cancel", &request.get_ref().deployment_id)?;
        self.cancelled.notify_one();
        Ok(Response::new(v1::CancelResponse {}))
    }

    async fn list_deployments(
        &self,
        request: Request<v1::ListDeploymentsRequest>,
    ) -> Result<Response<v1::ListDeploymentsResponse>, Status> {
        self.called(&request, "ListDeployments", &request.get_ref().project)?;
        Ok(Response::new(v1::ListDeploymentsResponse {
            deployments: self.deployments.clone(),
        }))
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        self.called(&request, "ListLocks", "")?;
        Ok(Response::new(self.locks.clone()))
    }

    async fn release_lock(
        &self,
        request: Request<v1::ReleaseLockRequest>,
    ) -> Result<Response<v1::ReleaseLockResponse>, Status> {
        let project = &request.get_ref().project;
        self.called(&request, "ReleaseLock", project)?;
        let locks = self.locks.locks.iter();
        let locks = locks.filter(|lock| lock.project == *project).cloned();
        Ok(Response::new(v1::ReleaseLockResponse {
            locks: locks.collect(),
            warnings: Vec::new(),
        }))
    }

    async fn missing_images(
        &self,
        request: Request<v1::MissingImagesRequest>,
    ) -> Result<Response<v1::MissingImagesResponse>, Status> {
        self.called(&request, "MissingImages", "")?;
        Ok(Response::new(v1::MissingImagesResponse {
            missing: self.missing.clone(),
        }))
    }

    async fn push_image(
        &self,
        request: Request<Streaming<v1::PushImageRequest>>,
    ) -> Result<Response<v1::PushImageResponse>, Status> {
        self.called(&request, "PushImage", "")?;
        let mut input = request.into_inner();
        let mut pushed = Archive::default();
        let mut complete = false;
        while let Some(message) = input.message().await? {
            match message.message {
                Some(v1::push_image_request::Message::Start(start)) => {
                    pushed.image = start.image;
                    pushed.machines = start.machine_ids;
                }
                Some(v1::push_image_request::Message::Chunk(chunk)) => {
                    pushed.largest_chunk = pushed.largest_chunk.max(chunk.len());
                    pushed.bytes += chunk.len();
                }
                Some(v1::push_image_request::Message::End(_)) => complete = true,
                None => {}
            }
        }
        if !complete {
            return Err(Status::unavailable("the image was not sent to its end"));
        }
        self.pushed.lock().unwrap().push(pushed);
        Ok(Response::new(v1::PushImageResponse {
            results: self.push_errors.clone(),
        }))
    }

    async fn missing_contents(
        &self,
        request: Request<v1::MissingContentsRequest>,
    ) -> Result<Response<v1::MissingContentsResponse>, Status> {
        self.called(
            &request,
            "MissingContents",
            request.get_ref().hashes.len().to_string(),
        )?;
        let mut missing = request.into_inner().hashes;
        missing.retain(|hash| !self.contents.lock().unwrap().contains_key(hash));
        Ok(Response::new(v1::MissingContentsResponse { missing }))
    }

    async fn push_content(
        &self,
        request: Request<Streaming<v1::ContentPart>>,
    ) -> Result<Response<v1::PushContentResponse>, Status> {
        self.called(&request, "PushContent", "")?;
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(v1::content_part::Part::Start(start)) = first else {
            return Err(Status::invalid_argument("no start"));
        };
        let mut content = Content {
            secret: start.secret,
            archive: Vec::new(),
        };
        while let Some(part) = parts.message().await? {
            let Some(v1::content_part::Part::Chunk(chunk)) = part.part else {
                return Err(Status::invalid_argument("no chunk"));
            };
            assert!(chunk.len() <= uc_api::content::CHUNK);
            content.archive.extend(chunk);
        }
        let hash = uc_api::ContentHash::of(&content.archive).to_string();
        assert_eq!(hash, start.hash, "what was announced came");
        self.contents.lock().unwrap().insert(hash, content);
        Ok(Response::new(v1::PushContentResponse {}))
    }
}
