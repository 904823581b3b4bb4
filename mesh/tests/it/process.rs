//! The mesh process of a test machine is this test program, started again inside the machine's
//! namespace.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uc_mesh::{IptablesGuard, MeshPaths, PeerPorts, UserSpace};

/// Directory of the process' files; its presence says that we are to be the process.
pub(crate) const DIRECTORY: &str = "UC_MESH_TEST_DIRECTORY";

/// The peer ports, and one that has nothing to do with the mesh.
pub(crate) const TCP_PORTS: [u16; 2] = [51000, 2222];
/// Set for the process that listens on the ports.
pub(crate) const LISTEN: &str = "UC_MESH_TEST_LISTEN";

#[test]
#[ignore = "not a test: the program other tests start in their namespaces"]
fn listener() {
    if std::env::var_os(LISTEN).is_none() {
        return;
    }
    let listening = TCP_PORTS.map(|port| {
        let listener = std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port));
        let listener = listener.unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop))
    });
    for thread in listening {
        thread.join().unwrap();
    }
}

#[test]
#[ignore = "not a test: the program other tests start in their namespaces"]
fn mesh_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let on_signal = cancel.clone();
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        tokio::spawn(async move {
            terminate.recv().await;
            on_signal.cancel();
        });
        let paths = MeshPaths {
            config: directory.join("mesh.json"),
            socket: directory.join("mesh.sock"),
        };
        let guard = IptablesGuard::new(PeerPorts {
            api: 51000,
            membership: 51001,
        });
        uc_mesh::run(paths, UserSpace::new(), guard, cancel).await
    });
    if let Err(error) = result {
        panic!("mesh process: {error}");
    }
}
