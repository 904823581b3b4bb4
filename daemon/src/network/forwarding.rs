//! Packet forwarding, a setting of the kernel.

use super::error::NetworkError;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Enables IPv4 forwarding.
pub(super) async fn enable() -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Sysctl {
        setting: "net.ipv4.ip_forward=1",
        source,
    };
    if tokio::fs::read_to_string(IP_FORWARD)
        .await
        .map_err(failed)?
        .trim()
        == "1"
    {
        return Ok(());
    }
    tokio::fs::write(IP_FORWARD, "1").await.map_err(failed)
}
