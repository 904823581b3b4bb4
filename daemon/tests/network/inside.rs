//! What must run inside a machine's namespace: this test program, started again.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use uc_daemon::network::{Firewall, FirewallSpec};
use uc_mesh::{Guard as _, IptablesGuard, MeshPaths, PeerPorts, UserSpace};

pub(crate) const ROLE: &str = "UC_NETWORK_TEST_ROLE";
pub(crate) const DIRECTORY: &str = "UC_NETWORK_TEST_DIRECTORY";
pub(crate) const SPEC: &str = "UC_NETWORK_TEST_SPEC";

#[test]
#[ignore = "not a test: other tests start it in their namespaces"]
fn run() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "mesh" => {
                let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
                let paths = MeshPaths {
                    config: directory.join("mesh.json"),
                    socket: directory.join("mesh.sock"),
                };
                uc_mesh::run(paths, UserSpace::new(), guard(), CancellationToken::new())
                    .await
                    .unwrap();
            }
            "ensure" => Firewall::new(spec()).ensure().await.unwrap(),
            "remove" => Firewall::new(spec()).remove().await.unwrap(),
            "remove-guard" => guard().remove().await.unwrap(),
            role => panic!("no such role: {role}"),
        }
    });
}

fn guard() -> IptablesGuard {
    IptablesGuard::new(PeerPorts {
        api: 51000,
        membership: 51001,
    })
}

/// Parses "SUBNET DOCKER-VERSION".
fn spec() -> FirewallSpec {
    let text = std::env::var(SPEC).unwrap();
    let mut words = text.split(' ');
    let mut next = || words.next().unwrap();
    FirewallSpec {
        subnet: next().parse().unwrap(),
        docker: Some(next().parse().unwrap()),
    }
}
