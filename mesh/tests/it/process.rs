//! The mesh process of a test machine is this test program, started again inside the machine's
//! namespace.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uc_mesh::{MeshPaths, UserSpace};

/// Directory of the process' files; its presence says that we are to be the process.
pub(crate) const DIRECTORY: &str = "UC_MESH_TEST_DIRECTORY";

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
        uc_mesh::run(paths, UserSpace::new(), cancel).await
    });
    if let Err(error) = result {
        panic!("mesh process: {error}");
    }
}
