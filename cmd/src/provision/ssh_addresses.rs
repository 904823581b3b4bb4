//! The addresses that ssh connects to for a target, as candidates for the machine's endpoints.

use std::net::IpAddr;
use std::time::Duration;

use uc_api::endpoint::is_reachable_elsewhere;

use crate::connect::Ssh;
use crate::connection::SshTarget;
use crate::env::Env;

/// `ssh -G` runs the commands of `Match exec` lines, and a resolver may not answer at all. The
/// addresses are a convenience, so they are not waited for any longer.
const LIMIT: Duration = Duration::from_secs(5);
/// A peer tries each endpoint for 15 s, so a name with many addresses must not crowd out the rest.
const MAX_ADDRESSES: usize = 4;

/// The addresses of the target as this computer sees them, without those that other machines cannot
/// reach. Empty if they cannot be found out.
pub(crate) async fn ssh_addresses(target: &SshTarget, env: &Env) -> Vec<IpAddr> {
    let Ok(mut addresses) = tokio::time::timeout(LIMIT, find(target, env)).await else {
        return Vec::new();
    };
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| is_reachable_elsewhere(*address) && seen.insert(*address));
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

async fn find(target: &SshTarget, env: &Env) -> Vec<IpAddr> {
    if let Ok(address) = target.host.parse() {
        return vec![address];
    }
    let options = Ssh::new(target.clone(), env).print_options().output().await;
    let Some(host) = options.ok().and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| host_to_resolve(&text))?
    }) else {
        return Vec::new();
    };
    match tokio::net::lookup_host((host.as_str(), 0)).await {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    }
}

/// The host name in the output of `ssh -G`. `None` if ssh goes through a jump host or a command,
/// because then that host resolves the name, perhaps to something else than this computer would.
fn host_to_resolve(options: &str) -> Option<String> {
    let value = |key: &str| {
        options.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            name.eq_ignore_ascii_case(key).then(|| value.trim())
        })
    };
    let is_set = |key: &str| value(key).is_some_and(|value| value != "none");
    if is_set("proxyjump") || is_set("proxycommand") {
        return None;
    }
    value("hostname").map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_comes_from_ssh_unless_a_proxy_resolves_it() {
        let found = |options| host_to_resolve(options);
        assert_eq!(
            found("user root\nhostname web1.example.org\nport 22\n").as_deref(),
            Some("web1.example.org")
        );
        assert_eq!(
            found("hostname h\nproxycommand none\n").as_deref(),
            Some("h")
        );
        assert_eq!(found("hostname h\nproxyjump bastion\n"), None);
        assert_eq!(found("hostname h\nproxycommand nc %h %p\n"), None);
        assert_eq!(found("ssh: unknown option\n"), None);
    }
}
