//! `Conflicts`: lists concurrent writes, and settles them as the user chooses.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use uc_api::v1::conflicts_server::Conflicts;
use uc_api::v1::{
    ListConflictsRequest, ListConflictsResponse, SettleConflictRequest, SettleConflictResponse,
};

use crate::app::App;
use crate::cluster::conflicts;

#[derive(Debug)]
pub(super) struct ConflictsApi {
    app: Arc<App>,
}

impl ConflictsApi {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl Conflicts for ConflictsApi {
    async fn list(
        &self,
        _: Request<ListConflictsRequest>,
    ) -> Result<Response<ListConflictsResponse>, Status> {
        let member = self.app.member()?;
        let cluster = member.cluster();
        let conflicts = conflicts::list(&member.store.snapshot(), cluster.machine_records());
        Ok(Response::new(ListConflictsResponse { conflicts }))
    }

    async fn settle(
        &self,
        request: Request<SettleConflictRequest>,
    ) -> Result<Response<SettleConflictResponse>, Status> {
        let member = self.app.member()?;
        // Under this lock the records of machines are read and written back. It also serializes
        // two choices at the same time.
        let _one_at_a_time = member.registering.lock().await;
        let write = conflicts::settle(
            &member.store.snapshot(),
            member.cluster().machine_records(),
            &request.into_inner(),
        )?;
        member.write(vec![write]).await?;
        Ok(Response::new(SettleConflictResponse {}))
    }
}
