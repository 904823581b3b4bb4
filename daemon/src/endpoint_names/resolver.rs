//! How a host name becomes addresses.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::LazyLock;

use tokio::sync::Semaphore;
use uc_api::HostName;

use super::PARALLEL_LOOKUPS;

/// Resolves host names.
pub(crate) trait Resolver: Sync {
    /// The addresses of a name, in any order, or why there are none. The caller sets the time
    /// limit.
    fn lookup(&self, name: &HostName) -> impl Future<Output = Result<Vec<IpAddr>, String>> + Send;
}

/// The resolver of the operating system, which reads `/etc/hosts` too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemResolver;

/// Threads that may be inside the system's resolver. A look-up that timed out keeps its thread, and
/// so its permit, until the resolver gives up: that bounds the threads, not only the callers.
static THREADS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(PARALLEL_LOOKUPS));

impl Resolver for SystemResolver {
    async fn lookup(&self, name: &HostName) -> Result<Vec<IpAddr>, String> {
        let permit = THREADS.acquire().await.map_err(|error| error.to_string())?;
        let host = name.to_string();
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let found = (host.as_str(), 0).to_socket_addrs()?;
            Ok::<_, std::io::Error>(found.map(|found| found.ip()).collect())
        });
        match lookup.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(format!("the look-up failed: {error}")),
        }
    }
}
