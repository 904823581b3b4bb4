//! `ucd`, the daemon on every machine: connects the replicated store, the mesh, DNS and Docker, and
//! serves the API. The binary only parses its arguments and calls this library.

mod app;
mod backoff;
mod clock;
mod cluster;
mod deploy;
mod durable;
mod endpoint_names;
mod engine;
#[cfg(test)]
mod fake_mesh;
mod files;
mod grpc;
mod identity;
mod membership;
pub mod network;
mod node;
pub mod paths;
mod reconcile;

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uc_api::v1::ResetRequest;
use uc_api::v1::machine_client::MachineClient;
use uc_api::{Code, Failure, layout};

use crate::app::App;
use crate::engine::DockerEngine;
use crate::paths::Paths;

/// `ucd run`. Returns after SIGTERM or SIGINT.
pub async fn run(paths: Paths) -> Result<(), Failure> {
    let cancel = stop_on_signal()?;
    let engine = Arc::new(DockerEngine::new(engine::DEFAULT_SOCKET));
    let app = App::new(paths, engine, cancel, grpc::serve_peers)?;
    app.start_member().await?;
    let leaver = tokio::spawn(membership::leave::leave_when_asked(Arc::clone(&app)));
    let closing = membership::leave::close_left_mesh_at_start(Arc::clone(&app));
    let closer = tokio::spawn(closing);
    let renumber = membership::renumber::renumber_when_needed(Arc::clone(&app));
    let renumberer = tokio::spawn(renumber);
    let remember = membership::remember::remember_members(Arc::clone(&app));
    let rememberer = tokio::spawn(remember);
    let stopped = async {
        app.cancel.cancelled().await;
        app.stop().await;
    };
    let served = async {
        let served = grpc::serve_unix(Arc::clone(&app)).await;
        app.cancel.cancel();
        served
    };
    let (served, ()) = tokio::join!(served, stopped);
    let _ended = tokio::join!(leaver, closer, renumberer, rememberer);
    served
}

/// `ucd mesh`. Returns after SIGTERM or SIGINT.
pub async fn run_mesh(paths: Paths) -> Result<(), Failure> {
    let cancel = stop_on_signal()?;
    let mesh = uc_mesh::MeshPaths {
        config: paths.mesh_config(),
        socket: paths.mesh_socket(),
    };
    let guard = uc_mesh::IptablesGuard::new(uc_mesh::PeerPorts {
        api: layout::PEER_API_PORT,
        membership: layout::GOSSIP_PORT,
    });
    uc_mesh::run(mesh, uc_mesh::UserSpace::new(), guard, cancel)
        .await
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// `ucd reset`. Has the running daemon leave its cluster.
pub async fn reset(paths: Paths, yes: bool) -> Result<(), Failure> {
    if !yes {
        return Err(Failure::new(
            Code::Invalid,
            "confirmation needed: this removes the machine from its cluster, with its uc containers",
        )
        .hint("run `ucd reset --yes`"));
    }
    let uri = format!("unix://{}", paths.api_socket().display());
    let endpoint = tonic::transport::Endpoint::from_shared(uri)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let channel = endpoint.connect().await.map_err(|error| {
        Failure::new(
            Code::Unreachable,
            format!("cannot connect to the daemon: {error}"),
        )
        .hint("start it with `systemctl start ucd`, or check `journalctl -u ucd`")
    })?;
    let mut machine = MachineClient::with_interceptor(channel, cluster::peers::SpeaksVersion);
    let removed = machine
        .reset(ResetRequest::default())
        .await
        .map_err(Failure::from)?
        .into_inner()
        .removed;
    for what in removed {
        tracing::info!("removed {what}");
    }
    Ok(())
}

fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let cancel = CancellationToken::new();
    let failed = |error: std::io::Error| {
        Failure::new(Code::Internal, format!("cannot handle signals: {error}"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let on_signal = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        on_signal.cancel();
    });
    Ok(cancel)
}
