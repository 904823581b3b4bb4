//! Images that are built on the laptop and sent to the machines, without a registry.

use std::fs;

use crate::cluster::{Cluster, MACHINES, places};

/// Machines that have an image of the service.
fn holders(cluster: &Cluster) -> Vec<&'static str> {
    let has = |name: &&str| {
        let list = cluster
            .machine(name)
            .sh("docker image ls --quiet parcel-box");
        !list.expect("docker answers").trim().is_empty()
    };
    MACHINES.into_iter().filter(has).collect()
}

#[test]
fn image_is_sent_once_and_only_to_machines_that_need_it() {
    let Some(cluster) = Cluster::take() else {
        return;
    };
    for machine in cluster.machines() {
        machine
            .sh("docker image ls --quiet parcel-box | sort -u | xargs -r docker image rm -f")
            .expect("removed");
    }
    let services =
        "services:\n  box:\n    build: .\n    stop_signal: SIGKILL\n    command: [sleep, '9999']\n";
    let file = cluster.compose("parcel", services);
    let directory = cluster.uc.home().join("parcel");
    let content = |seed: u8| {
        (0..4_000_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
            .collect::<Vec<u8>>()
    };
    fs::write(
        directory.join("Dockerfile"),
        "FROM uc-test/busybox:1\nCOPY content /content\n",
    )
    .expect("written");
    fs::write(directory.join("content"), content(1)).expect("written");

    let first = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(first.stderr.contains("→ 1 machine\n"), "{first}");
    let one = cluster.replicas("box");
    assert_eq!(
        holders(&cluster),
        places(&one),
        "the image is where its replica is, and nowhere else"
    );
    let size = cluster.inside("box", &one[0], "wc -c < /content");
    assert_eq!(size.stdout.trim(), "4000000", "{size}");

    // Built again from the same files: the same image, nothing is sent.
    let again = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(
        again.stderr.contains("services are up to date") && !again.stderr.contains("→"),
        "{again}"
    );
    let forced = cluster.ok(&["deploy", "-y", "--recreate", "--no-build", "-f", &file]);
    assert!(
        !forced.stderr.contains("machine\n") && !forced.stderr.contains("building"),
        "{forced}"
    );

    // More replicas: to the two others only.
    let scaled = cluster.ok(&["scale", "-y", "box", "3"]);
    assert!(scaled.stderr.contains("→ 2 machines\n"), "{scaled}");
    assert_eq!(holders(&cluster), MACHINES);

    // Changed content is another image.
    fs::write(directory.join("content"), content(2)).expect("written");
    let changed = cluster.ok(&["deploy", "-y", "-f", &file]);
    assert!(changed.stderr.contains("image: parcel-box:"), "{changed}");
    let replica = &cluster.replicas("box")[0];
    let said = cluster.inside("box", replica, "head -c 1 /content | od -An -tu1");
    assert_eq!(said.stdout.trim(), content(2)[0].to_string(), "{said}");

    // A build that fails changes nothing, and shows why.
    fs::write(
        directory.join("Dockerfile"),
        "FROM uc-test/busybox:1\nRUN echo no such luck >&2; false\n",
    )
    .expect("written");
    let failed = cluster.ends(1, &["deploy", "-y", "-f", &file]);
    assert!(
        failed.stderr.contains("no such luck") && failed.stderr.contains("nothing was deployed"),
        "{failed}"
    );
    assert_eq!(
        cluster.replicas("box")[0].container_id,
        replica.container_id
    );
}
