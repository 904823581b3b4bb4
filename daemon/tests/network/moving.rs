//! Containers that move to another subnet, on a real engine.

use ipnet::Ipv4Net;
use uc_daemon::network::ensure_docker_network;

use crate::engine::{IMAGE, Lan, Machine, eventually};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];

/// A machine whose containers are to move.
struct Moving {
    machine: Machine,
    to: Ipv4Net,
}

impl Moving {
    async fn new(lan: &Lan) -> Self {
        let mut machine = lan.machine(1);
        machine.start_engine().await;
        let moving = Self {
            machine,
            to: "10.210.9.0/24".parse().unwrap(),
        };
        moving.ensure(moving.machine.subnet()).await;
        moving
    }

    async fn ensure(&self, subnet: Ipv4Net) {
        let docker = self.machine.docker();
        let journal = self.machine.journal();
        ensure_docker_network(&docker, subnet, "c1", &journal)
            .await
            .unwrap();
    }

    async fn to_other_subnet(&self) {
        self.ensure(self.to).await;
    }

    fn docker(&self, arguments: &[&str]) -> String {
        self.machine.docker_cli(arguments)
    }

    fn run(&self, name: &str, options: &[&str], command: &[&str]) {
        let all = ["run", "-d", "--name", name, "--stop-timeout", "0"];
        self.docker(&[&all, options, &[IMAGE], command].concat());
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        self.docker(&["inspect", "-f", format, name])
    }

    /// Empty without a network.
    fn ip(&self, name: &str) -> String {
        self.inspect(
            name,
            "{{with .NetworkSettings.Networks.uc}}{{.IPAddress}}{{end}}",
        )
    }

    fn status(&self, name: &str) -> String {
        self.inspect(name, "{{.State.Status}}")
    }

    fn has_moved(&self, name: &str) -> bool {
        self.ip(name).starts_with("10.210.9.")
    }

    fn journal(&self) -> Option<String> {
        std::fs::read_to_string(self.machine.journal()).ok()
    }
}

#[tokio::test]
async fn containers_move_to_another_subnet_and_continue_to_run() {
    let Some(lan) = Lan::new("move") else { return };
    let a = Moving::new(&lan).await;
    let started = |name: &str| a.inspect(name, "{{.State.StartedAt}}");
    for name in ["one", "two", "stopped"] {
        a.run(name, &["--network", "uc"], SLEEP);
    }
    a.docker(&["kill", "stopped"]);
    let before = started("one");
    a.to_other_subnet().await;
    assert_eq!(started("one"), before, "it was not restarted");
    assert!(a.has_moved("one"), "{}", a.ip("one"));
    assert_eq!(a.journal(), None);
    let two = a.ip("two");
    a.docker(&["exec", "one", "busybox", "ping", "-c1", "-w5", &two]);
    assert_eq!(a.status("stopped"), "exited");
    a.docker(&["start", "stopped"]);
    assert!(a.has_moved("stopped"), "{}", a.ip("stopped"));

    // The process died after it had taken one of them off the network.
    let id = a.inspect("one", "{{.Id}}");
    let journal = format!("{id}\n{}\n", "0".repeat(64));
    std::fs::write(a.machine.journal(), journal).unwrap();
    a.docker(&["network", "disconnect", "uc", "one"]);
    a.to_other_subnet().await;
    assert!(a.has_moved("one"), "{}", a.ip("one"));
    assert_eq!(a.journal(), None);
}

/// Between two restarts, the engine reports a container as running, but it has no endpoint.
#[tokio::test]
async fn container_between_two_restarts_moves_with_the_others() {
    let Some(lan) = Lan::new("restarts") else {
        return;
    };
    let a = Moving::new(&lan).await;
    let options = ["--network", "uc", "--restart", "always"];
    a.run("failing", &options, &["busybox", "false"]);
    for name in ["another", "one"] {
        a.run(name, &["--network", "uc"], SLEEP);
    }
    // The pauses double; from the sixth on, one lasts seconds.
    let pausing = async || {
        let restarts: u32 = a.inspect("failing", "{{.RestartCount}}").parse().unwrap();
        restarts >= 5 && a.status("failing") == "restarting"
    };
    eventually("it pauses for long", pausing).await;
    a.to_other_subnet().await;
    assert!(a.has_moved("another") && a.has_moved("one"));
    assert_eq!(a.journal(), None);
    let network = a.docker(&["network", "inspect", "-f", "{{.Id}}", "uc"]);
    let of_failing = a.inspect("failing", "{{.NetworkSettings.Networks.uc.NetworkID}}");
    assert_eq!(of_failing, network);
    // It is started again and again, as before.
    let restarted = async || a.inspect("failing", "{{.RestartCount}}") != "0";
    eventually("it is restarted", restarted).await;
    assert_ne!(a.status("failing"), "exited");
}

#[tokio::test]
async fn container_that_cannot_be_connected_holds_up_no_other_and_follows_later() {
    let Some(lan) = Lan::new("port") else { return };
    let a = Moving::new(&lan).await;
    a.run("another", &["--network", "uc"], SLEEP);
    a.run("busy", &["--network", "uc", "-p", "8080:80"], SLEEP);
    a.run("one", &["--network", "uc"], SLEEP);
    // In the moment without a network, another container takes the port.
    let names = ["another", "busy", "one"];
    let ids: Vec<String> = names.map(|name| a.inspect(name, "{{.Id}}")).to_vec();
    std::fs::write(a.machine.journal(), ids.join("\n")).unwrap();
    for name in names {
        a.docker(&["network", "disconnect", "uc", name]);
    }
    a.run("taker", &["-p", "8080:80"], SLEEP);
    a.to_other_subnet().await;
    assert!(a.has_moved("another") && a.has_moved("one"));
    assert_eq!(a.journal(), Some(format!("{} start", ids[1])));
    a.to_other_subnet().await;
    assert_eq!(a.journal(), Some(format!("{} start", ids[1])));
    a.docker(&["rm", "-f", "taker"]);
    a.to_other_subnet().await;
    assert!(a.has_moved("busy"), "{}", a.ip("busy"));
    assert_eq!(a.status("busy"), "running");
    assert_eq!(a.journal(), None);
}
