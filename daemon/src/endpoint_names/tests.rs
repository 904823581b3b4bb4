use std::sync::Mutex;

use super::*;

/// Answers from a table; a name that is not in it never answers.
#[derive(Debug, Default)]
struct FakeResolver {
    answers: Mutex<BTreeMap<String, Result<Vec<IpAddr>, String>>>,
    asked: Mutex<Vec<String>>,
}

impl FakeResolver {
    fn set(&self, name: &str, answer: Result<&[&str], &str>) {
        let answer = answer
            .map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect())
            .map_err(ToOwned::to_owned);
        self.answers.lock().unwrap().insert(name.into(), answer);
    }

    fn take_asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

impl Resolver for FakeResolver {
    async fn lookup(&self, name: &HostName) -> Result<Vec<IpAddr>, String> {
        self.asked.lock().unwrap().push(name.to_string());
        let answer = self.answers.lock().unwrap().get(name.as_str()).cloned();
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

#[derive(Debug, Default)]
struct Names {
    schedule: Schedule,
    resolver: FakeResolver,
    published: watch::Sender<Resolved>,
}

impl Names {
    async fn refresh(&mut self, wanted: &[&str], unreachable: &[&str]) {
        let names = |texts: &[&str]| {
            let machine = machine(texts);
            names_of([&machine])
        };
        refresh(
            &mut self.schedule,
            &self.resolver,
            &names(wanted),
            &names(unreachable),
            &self.published,
        )
        .await;
    }

    fn addresses(&self, endpoints: &[&str]) -> Vec<String> {
        let endpoints = machine(endpoints).endpoints;
        let found = self.published.borrow().socket_addresses(&endpoints);
        found.iter().map(ToString::to_string).collect()
    }
}

fn machine(endpoints: &[&str]) -> MachineRecord {
    MachineRecord {
        endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect(),
        ..MachineRecord::default()
    }
}

#[tokio::test(start_paused = true)]
async fn every_address_of_a_name_is_a_candidate() {
    let mut names = Names::default();
    let many = ["2001:db8::1", "203.0.113.9", "203.0.113.7", "127.0.0.1"];
    names.resolver.set("a.example", Ok(&many));
    names.refresh(&["a.example:7"], &[]).await;
    let endpoints = ["10.0.0.1:1", "a.example:7", "203.0.113.9:7", "my_host:1"];
    assert_eq!(
        names.addresses(&endpoints),
        [
            "10.0.0.1:1",
            "203.0.113.7:7",
            "203.0.113.9:7",
            "[2001:db8::1]:7"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn name_is_resolved_again_after_the_refresh_interval() {
    let mut names = Names::default();
    names.resolver.set("a.example", Ok(&["203.0.113.1"]));
    names.refresh(&["a.example:7"], &[]).await;
    assert_eq!(names.resolver.take_asked(), ["a.example"]);
    tokio::time::advance(REFRESH / 2).await;
    names.refresh(&["a.example:7"], &[]).await;
    assert!(names.resolver.take_asked().is_empty(), "too early");
    names.resolver.set("a.example", Ok(&["203.0.113.2"]));
    tokio::time::advance(REFRESH / 2).await;
    names.refresh(&["a.example:7"], &[]).await;
    assert_eq!(names.addresses(&["a.example:7"]), ["203.0.113.2:7"]);
}

#[tokio::test(start_paused = true)]
async fn name_of_an_unreachable_machine_is_resolved_sooner() {
    let mut names = Names::default();
    names.resolver.set("a.example", Ok(&["203.0.113.1"]));
    names.resolver.set("b.example", Ok(&["203.0.113.1"]));
    let both = ["a.example:7", "b.example:7"];
    names.refresh(&both, &[]).await;
    names.resolver.take_asked();
    tokio::time::advance(RETRY).await;
    names.refresh(&both, &["b.example:7"]).await;
    assert_eq!(names.resolver.take_asked(), ["b.example"]);
}

#[tokio::test(start_paused = true)]
async fn failing_name_keeps_its_addresses_and_is_reported() {
    let mut names = Names::default();
    names.resolver.set("a.example", Ok(&["203.0.113.1"]));
    names.refresh(&["a.example:7"], &[]).await;
    assert_eq!(names.published.borrow().failures().count(), 0);
    names.resolver.set("a.example", Err("no such host"));
    tokio::time::advance(REFRESH).await;
    names.refresh(&["a.example:7"], &[]).await;
    assert_eq!(names.addresses(&["a.example:7"]), ["203.0.113.1:7"]);
    let resolved = names.published.borrow().clone();
    let failures: Vec<_> = resolved
        .failures()
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    assert_eq!(failures, ["a.example: no such host"]);
    names.resolver.take_asked();
    tokio::time::advance(RETRY).await;
    names.refresh(&["a.example:7"], &[]).await;
    assert_eq!(names.resolver.take_asked(), ["a.example"], "tried again");
}

#[tokio::test(start_paused = true)]
async fn slow_name_is_given_up_and_does_not_hold_up_others() {
    let mut names = Names::default();
    names.resolver.set("b.example", Ok(&["203.0.113.1"]));
    let mut published = names.published.subscribe();
    let wanted = ["b.example:7", "slow.example:7"];
    let started = Instant::now();
    let first = async {
        let known = |resolved: &Resolved| resolved.names.len() == 1;
        published.wait_for(known).await.unwrap();
        started.elapsed()
    };
    let ((), first) = tokio::join!(names.refresh(&wanted, &[]), first);
    assert_eq!(first, Duration::ZERO, "published before the slow one ended");
    assert_eq!(started.elapsed(), LOOKUP_LIMIT);
    let resolved = names.published.borrow();
    let failures: Vec<_> = resolved.failures().map(|(_, reason)| reason).collect();
    assert_eq!(failures, ["no answer within 5 s"]);
}

#[tokio::test(start_paused = true)]
async fn name_without_a_usable_address_is_a_failure() {
    let mut names = Names::default();
    names.resolver.set("localhost", Ok(&["127.0.0.1", "::1"]));
    names.refresh(&["localhost:7"], &[]).await;
    assert!(names.addresses(&["localhost:7"]).is_empty());
    assert_eq!(names.published.borrow().failures().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn name_that_is_no_longer_used_is_forgotten() {
    let mut names = Names::default();
    names.resolver.set("a.example", Err("no such host"));
    names.refresh(&["a.example:7"], &[]).await;
    names.refresh(&[], &[]).await;
    assert_eq!(*names.published.borrow(), Resolved::default());
}

#[test]
fn machine_without_a_recent_handshake_is_unreachable() {
    let keys = [1, 2, 3].map(|n| uc_mesh::PrivateKey::from_bytes([n; 32]).public());
    let names = ["a.example:7", "b.example:7", "c.example:7"];
    let machines = [0, 1, 2].map(|n| MachineRecord {
        public_key: keys[n].to_string(),
        ..machine(&[names[n]])
    });
    let peer = |public_key, latest_handshake| uc_mesh::PeerStatus {
        public_key,
        endpoint: None,
        latest_handshake,
        rx_bytes: 0,
        tx_bytes: 0,
        allowed_ips: Vec::new(),
        reach: uc_mesh::endpoint::Reach::Unknown,
    };
    let status = MeshStatus {
        peers: vec![
            peer(keys[0], Some(120_000)),
            peer(keys[1], Some(150_000)),
            peer(keys[2], None),
        ],
        ..MeshStatus::unconfigured()
    };
    let machines: Vec<&MachineRecord> = machines.iter().collect();
    let silent = names_of_unreachable(&machines, &status);
    let silent: Vec<&str> = silent.iter().map(HostName::as_str).collect();
    assert_eq!(silent, ["b.example", "c.example"]);
}

#[tokio::test]
async fn system_resolver_reads_the_hosts_file() {
    let record = machine(&["localhost:7"]);
    let name = names_of([&record]).into_iter().next().unwrap();
    let found = SystemResolver.lookup(&name).await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
}
