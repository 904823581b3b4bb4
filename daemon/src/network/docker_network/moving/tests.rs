use bollard::models::{ContainerState, NetworkSettings};

use super::*;

fn endpoint(mac: &str, ip: &str) -> EndpointSettings {
    EndpointSettings {
        mac_address: Some(mac.into()),
        ip_address: Some(ip.into()),
        ..EndpointSettings::default()
    }
}

#[test]
fn given_mac_address_is_connected_again_and_a_made_one_is_not() {
    let of = |mac: &str, ip: &str| given_mac_address(&endpoint(mac, ip));
    let given = of("02:aa:bb:cc:dd:ee", "10.210.1.3");
    assert_eq!(given.as_deref(), Some("02:aa:bb:cc:dd:ee"));
    assert_eq!(of("02:42:0a:d2:01:03", "10.210.1.3"), None);
    assert_eq!(of("", ""), None, "of a container that does not run");
    let moved = Moved {
        id: "aa".into(),
        mac_address: given,
        start: false,
    };
    let config = connection(&moved).endpoint_config.unwrap();
    assert_eq!(config.mac_address.as_deref(), Some("02:aa:bb:cc:dd:ee"));
}

#[test]
fn containers_that_are_removed_need_no_network() {
    let found = |status, dead| {
        let container = ContainerInspectResponse {
            name: Some("/web".into()),
            state: Some(ContainerState {
                status: Some(status),
                running: Some(true),
                dead: Some(dead),
                ..ContainerState::default()
            }),
            network_settings: Some(NetworkSettings::default()),
            ..ContainerInspectResponse::default()
        };
        Found::of("aa", container).map(|found| (found.name, found.running))
    };
    let running = found(ContainerStateStatusEnum::RUNNING, false);
    assert_eq!(running, Some(("web".to_owned(), true)));
    assert_eq!(found(ContainerStateStatusEnum::REMOVING, false), None);
    assert_eq!(found(ContainerStateStatusEnum::DEAD, true), None);
}
