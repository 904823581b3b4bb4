//! Two machines that were given one name and one subnet, on two sides of a partition.

use std::fs;

use anyhow::{Context as _, ensure};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use uc_api::v1::AddMachineRequest;
use uc_api::v1::cluster_client::ClusterClient;
use uc_api::version::{CLIENT_VERSION_KEY, PROTOCOL, PROTOCOL_KEY, VERSION};
use uc_mesh::PrivateKey;
use uc_testbed::wait_for;

use crate::machine_site::{SOON, Site};

const SERVICES: &str = "name: claims
services:
  web:
    build: {context: ., dockerfile_inline: \"FROM uc-test/busybox:1\"}
    stop_signal: SIGKILL
    x-machines: m3
    command: [httpd, -f, -p, '80']
    ports: ['8080:80']
";

impl Site {
    /// Registers a machine at this member, as `uc machine add` does. The machine never comes.
    fn register(&self, at: &str, name: &str) -> anyhow::Result<()> {
        let namespace = self.machine(at)?.network_namespace(1)?;
        let root = namespace.ancestors().nth(4).context("a root")?;
        let socket = root.join("run/uc/uc.sock");
        let request = AddMachineRequest {
            name: name.into(),
            public_key: PrivateKey::generate()?.public().to_string(),
            endpoints: vec!["192.0.2.1:51820".into()],
            ..AddMachineRequest::default()
        };
        let mut request = tonic::Request::new(request);
        let metadata = request.metadata_mut();
        metadata.insert(CLIENT_VERSION_KEY, MetadataValue::from_static(VERSION));
        metadata.insert(PROTOCOL_KEY, MetadataValue::from(PROTOCOL));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let uri = format!("unix://{}", socket.display());
            let channel = Endpoint::from_shared(uri)?.connect().await?;
            ClusterClient::new(channel).add_machine(request).await?;
            Ok(())
        })
    }

    /// The subnet of the machine with this name that is up.
    fn subnet(&self, at: &str, name: &str, state: &str) -> anyhow::Result<String> {
        let machines = self.at(at).machines()?;
        let found = machines
            .iter()
            .find(|one| one["name"] == name && one["state"] == state);
        let found = found.with_context(|| format!("{at} does not list {name} as {state}"))?;
        Ok(found["subnet"].as_str().context("no subnet")?.to_owned())
    }

    /// The address and the machine of the only replica, once it has an address in this subnet.
    fn replica(&self, subnet: &str) -> anyhow::Result<String> {
        let replicas = self.at("m1").0.json(&["ps"])?;
        let [replica] = replicas.as_array().context("no list")?.as_slice() else {
            anyhow::bail!("not one replica: {replicas}");
        };
        let ip = replica["ip"].as_str().context("it has no address")?;
        let network = subnet.trim_end_matches("0/24");
        ensure!(ip.starts_with(network), "it has {ip}, not one of {subnet}");
        Ok(ip.to_owned())
    }
}

#[test]
fn younger_of_two_machines_with_one_name_and_subnet_takes_others() {
    let Some(site) = Site::take() else { return };
    site.images().expect("the test images");
    site.cluster(&["m1", "m2"]);
    site.prepare(&["m3"]);
    site.cut("m1", "m2").expect("cut");
    site.cut("m2", "m3").expect("cut");
    site.await_machines("m1", &[("m1", "up"), ("m2", "down")]);
    site.await_machines("m2", &[("m1", "down"), ("m2", "up")]);

    site.register("m2", "m3").expect("registered");
    let token = site.at("m1").ok(&["machine", "token"]).stdout;
    site.sh("m3", &format!("uc machine join {} --name m3", token.trim()));
    site.await_machines("m1", &[("m1", "up"), ("m2", "down"), ("m3", "up")]);
    let double = site.subnet("m1", "m3", "up").expect("listed");
    let phantom = site.at("m2").machines().expect("listed");
    assert!(
        phantom.iter().any(|one| one["subnet"] == double),
        "both sides gave out the same one: {double} {phantom:?}"
    );
    let directory = site.scratch().expect("a directory").join("claims");
    fs::create_dir_all(&directory).expect("made");
    let file = directory.join("compose.yaml");
    fs::write(&file, SERVICES).expect("written");
    let deploy = ["deploy", "-y", "-f", &file.to_string_lossy()];
    site.at("m1").ok(&deploy);
    let container = "docker ps -q --filter label=uc.cluster --no-trunc";
    let before = site.sh("m3", container);
    site.replica(&double).expect("it runs");

    // m3 came later, so it gives up both. Its container continues to run.
    site.heal().expect("healed");
    let all = [("m1", "up"), ("m2", "up"), ("m3", "down"), ("m3-2", "up")];
    for name in ["m1", "m2", "m3"] {
        site.await_machines(name, &all);
    }
    let subnet = wait_for("another subnet", SOON, || {
        let subnet = site.subnet("m1", "m3-2", "up")?;
        ensure!(subnet != double, "still {double}");
        Ok(subnet)
    })
    .expect("it has one");
    let ip = wait_for("an address in it", SOON, || site.replica(&subnet)).expect("it has one");
    assert_eq!(site.sh("m3", container), before);
    for (machine, address) in [("m1", &ip), ("m2", &ip)] {
        wait_for("the page", SOON, || {
            let fetch =
                format!("curl -s -o /dev/null -w '%{{http_code}}' --max-time 3 http://{address}/");
            let code = site.machine(machine)?.sh(&fetch)?;
            ensure!(code.trim() == "404", "{machine} got {code}");
            Ok(())
        })
        .expect("it is reached from the other machines");
        let gateway = "$(ip -4 -o addr show uc0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p')";
        let dig = format!("dig +short +tries=1 +time=2 @{gateway} web.internal A");
        wait_for("the name", SOON, || {
            let found = site.machine(machine)?.sh(&dig)?;
            ensure!(found.trim() == ip, "{machine} resolves it to {found}");
            Ok(())
        })
        .expect("it resolves");
    }
    let published = "curl -s -o /dev/null -w '%{http_code}' --max-time 3 http://127.0.0.1:8080/";
    assert_eq!(site.sh("m3", published).trim(), "404");

    // The container asks a DNS server that is another machine's now; the next deployment sees it.
    let compose = SERVICES.replace("x-machines: m3", "x-machines: m3-2");
    fs::write(&file, compose).expect("written");
    let said = site.at("m1").ok(&deploy);
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(
        told.contains("its machine has another subnet now"),
        "{told}"
    );
    let again = site.at("m1").ok(&deploy);
    let told = format!("{}{}", again.stdout, again.stderr);
    assert!(told.contains("up to date"), "{told}");
}
