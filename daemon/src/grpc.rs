//! The API's servers: one on the Unix socket for users, one for the daemons of the cluster and for
//! the holders of join tokens.

pub(crate) mod access;
mod cluster;
mod conflicts;
mod deadline;
mod deploy;
mod logs;
mod machine;
mod peer;
mod services;

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::codegen::http;
use tonic::service::LayerExt as _;
use tonic::transport::Server;
use tower::util::{MapRequestLayer, MapResponseLayer};
use uc_api::v1::cluster_server::ClusterServer;
use uc_api::v1::conflicts_server::ConflictsServer;
use uc_api::v1::deploy_server::DeployServer;
use uc_api::v1::join_server::JoinServer;
use uc_api::v1::machine_server::MachineServer;
use uc_api::v1::node_server::NodeServer;
use uc_api::v1::peer_server::PeerServer;
use uc_api::v1::services_server::ServicesServer;
use uc_api::version::{SERVER_VERSION_KEY, VERSION};
use uc_api::{Code, Failure};

use crate::app::App;
use crate::cluster::member::Member;
use crate::cluster::peers::{CONNECTION_WINDOW, Link, STREAM_WINDOW};

/// Time for running calls to finish when the server stops.
const GRACE: Duration = Duration::from_secs(2);
/// Interval of HTTP/2 pings to callers. One that does not answer has vanished, and its calls end.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Far more than the largest service spec. Logs, images and frames are streamed in chunks.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// A machine's name, key and endpoints, in bytes. Each call of the holder of a token can make this
/// daemon hold that much, for as long as [`deadline`] allows.
const MAX_REGISTRATION: usize = 16 * 1024;
/// Most calls at the same time on one connection; further ones wait at the caller. A deployment has
/// at most one for each container of a machine, and a machine's subnet has 253 addresses.
const MAX_CALLS: u32 = 512;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server type around an implementation, with message limits and an access check.
macro_rules! limited {
    ($server:ident, $implementation:expr, $access:expr) => {
        tonic::service::interceptor::InterceptedService::new(
            $server::new($implementation)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            $access,
        )
    };
}

type Question = http::Request<tonic::body::Body>;
type Answer = http::Response<tonic::body::Body>;

fn add_version(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(SERVER_VERSION_KEY, http::HeaderValue::from_static(VERSION));
    answer
}

/// Serves the API on the Unix socket until the process ends.
pub(crate) async fn serve_unix(app: Arc<App>) -> Result<(), Failure> {
    let path = app.paths.api_socket();
    let listener = bind_unix(&path).map_err(|error| {
        Failure::new(
            Code::Refused,
            format!("cannot listen on {}: {error}", path.display()),
        )
        .hint("is another ucd running? `systemctl status ucd`")
    })?;
    let listener = Arc::new(listener);
    let cancel = app.cancel.clone();
    notify_ready();
    let callers = access::LocalCallers::new(Arc::clone(&app));
    let serving = Server::builder()
        .max_concurrent_streams(MAX_CALLS)
        .layer(MapResponseLayer::new(add_version as fn(Answer) -> Answer))
        .add_service(limited!(
            MachineServer,
            machine::MachineApi::new(Arc::clone(&app)),
            callers.clone()
        ))
        .add_service(limited!(
            ClusterServer,
            cluster::ClusterApi::new(Arc::clone(&app)),
            callers.clone()
        ))
        .add_service(limited!(
            ServicesServer,
            services::ServicesApi::new(Arc::clone(&app)),
            callers.clone()
        ))
        .add_service(limited!(
            ConflictsServer,
            conflicts::ConflictsApi::new(Arc::clone(&app)),
            callers.clone()
        ))
        .add_service(limited!(
            DeployServer,
            deploy::DeployApi::new(Arc::clone(&app)),
            callers
        ))
        .serve_with_incoming_shutdown(
            incoming(move || accept(Arc::clone(&listener))),
            cancel.clone().cancelled_owned(),
        );
    until_stopped(serving, &cancel)
        .await
        .map_err(|error| Failure::new(Code::Internal, format!("the API stopped: {error}")))
}

async fn accept(listener: Arc<UnixListener>) -> std::io::Result<UnixStream> {
    listener.accept().await.map(|(stream, _)| stream)
}

/// The connections that are accepted. A failure, such as too many open files, would end the server
/// and with it the daemon; it is logged, and after a pause the next connection is accepted.
fn incoming<T, F>(accept: impl Fn() -> F) -> impl Stream<Item = std::io::Result<T>>
where
    F: Future<Output = std::io::Result<T>>,
{
    stream::unfold(accept, |accept| async move {
        loop {
            match accept().await {
                Ok(stream) => return Some((Ok(stream), accept)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the socket of the API");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Lets running calls finish when the process or the member stops, but only for [`GRACE`]: a stream
/// without a reader must not hold up the stop.
async fn until_stopped<E>(
    serving: impl Future<Output = Result<(), E>>,
    cancel: &CancellationToken,
) -> Result<(), E> {
    let grace_is_over = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = grace_is_over => Ok(()),
    }
}

/// Serves the callers of these connections, which have proved who they are, until the member stops.
pub(crate) fn serve_peers(
    member: Arc<Member>,
    links: mpsc::Receiver<Link>,
) -> BoxFuture<'static, ()> {
    Box::pin(serve_links(member, links))
}

async fn serve_links(member: Arc<Member>, links: mpsc::Receiver<Link>) {
    let cancel = member.cancel.clone();
    let members_only = access::MembersOnly::new(Arc::clone(&member));
    let token_holders = access::TokenHoldersOnly::new(Arc::clone(&member));
    let join = tonic::service::interceptor::InterceptedService::new(
        JoinServer::new(peer::JoinApi::new(Arc::clone(&member)))
            .max_decoding_message_size(MAX_REGISTRATION),
        token_holders,
    );
    let soon = MapRequestLayer::new(deadline::limit_arrival as fn(Question) -> Question);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(MAX_CALLS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .layer(MapResponseLayer::new(add_version as fn(Answer) -> Answer))
        .add_service(limited!(
            NodeServer,
            member.node.clone(),
            members_only.clone()
        ))
        .add_service(limited!(
            PeerServer,
            peer::PeerApi::new(Arc::clone(&member)),
            members_only
        ))
        .add_service(soon.named_layer(join))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(links).map(Ok::<_, std::io::Error>),
            cancel.clone().cancelled_owned(),
        );
    if let Err(error) = until_stopped(serving, &cancel).await {
        tracing::error!(%error, "the server for other machines stopped");
    }
    // The tasks of open connections would continue until their last call ends.
    member.peers.close_links();
}

/// Notifies systemd, if there is one, that the API answers.
fn notify_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// Replaces a socket that an earlier process left behind, but not one that is in use.
fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::AddrInUse,
            "another process is listening on it",
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    if let Some(group) = group_id(&groups, "uc") {
        chown(path, None, Some(group))?;
    }
    Ok(listener)
}

/// The id of a group, from the text of `/etc/group`.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn group_id_compares_whole_names() {
        let text = "root:x:0:\nucx:x:5:\nuc:x:990:alice,bob\n";
        assert_eq!(group_id(text, "uc"), Some(990));
        assert_eq!(group_id(text, "u"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_accept_is_tried_again_after_a_pause() {
        let tries = AtomicU32::new(0);
        let accept = || {
            let result = match tries.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(std::io::Error::other("too many open files")),
                number => Ok(number),
            };
            std::future::ready(result)
        };
        let started = tokio::time::Instant::now();
        let mut connections = std::pin::pin!(incoming(accept));
        assert_eq!(connections.next().await.unwrap().unwrap(), 3);
        assert_eq!(started.elapsed(), ACCEPT_PAUSE * 3);
    }

    #[tokio::test]
    async fn bind_unix_replaces_only_a_dead_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/uc.sock");
        let listener = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err());
        drop(listener);
        assert!(bind_unix(&path).is_ok());
    }
}
