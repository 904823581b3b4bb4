//! Machines with each of the supported Docker engines.

use std::process::Stdio;

use uc_testbed::{Claim, Engine, Testbed, TestbedName, Turn, UpOptions, http};

use crate::possible;

#[test]
fn each_engine_loads_an_image_and_publishes_a_port() {
    if !possible() {
        return;
    }
    let _turn = Turn::take();
    let name: TestbedName = "it-engines".parse().expect("valid");
    let _claim = Claim::stake(&name).expect("a claim");
    for engine in Engine::ALL {
        Testbed::down(&name).expect("clean");
        let testbed = Testbed::up(&UpOptions {
            name: name.clone(),
            machines: 1,
            engine,
        })
        .expect("up");
        let machine = &testbed.machines()[0];
        let version = machine
            .sh("docker version --format '{{.Server.Version}}'")
            .expect("it answers");
        assert!(
            version.starts_with(&format!("{engine}.")),
            "engine {version} instead of {engine}"
        );
        let image = testbed.images().expect("the test images").busybox;
        let mut save = testbed
            .docker()
            .args(["save", &image])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker runs");
        let load = machine
            .interactive(&["docker", "load"], false)
            .stdin(save.stdout.take().expect("a pipe"))
            .output()
            .expect("docker runs");
        assert!(
            save.wait().expect("docker ends").success() && load.status.success(),
            "{engine}: {load:?}"
        );
        machine
            .sh(&format!(
                "docker run --detach --publish 8080:80 {image} sh -c 'echo it lives > /tmp/index.html; httpd -f -h /tmp'"
            ))
            .expect("the container runs");
        // From the host, through the machine's network and the port it publishes.
        let page = uc_testbed::wait_for("the page", std::time::Duration::from_secs(20), || {
            http::get(&machine.address, 8080, "/")
        });
        assert_eq!(page.expect("the page answers"), "it lives\n", "{engine}");
    }
}
