use super::*;

#[test]
fn key_of_a_used_token_is_removed_after_15_minutes() {
    let key = uc_mesh::PrivateKey::from_bytes([1; 32]).public();
    let record = TokenRecord {
        expires_at_ms: 1_000_000,
        ..TokenRecord::default()
    };
    let used = TokenRecord {
        used_by: "m".into(),
        used_at_ms: 1_000,
        ..record.clone()
    };
    let token = Token { key, record };
    assert!(token.opens_mesh(999_999) && !token.opens_mesh(1_000_000));
    let used = Token { key, record: used };
    assert!(used.opens_mesh(900_999) && !used.opens_mesh(901_000));
}

#[test]
fn key_of_a_retirement_names_machine_and_container() {
    let container = OnMachine {
        machine: MachineId::from_bytes([7; 16]),
        container: "abcd".into(),
    };
    assert_eq!(OnMachine::parse(&container.key()), Some(container));
    for invalid in ["", "abcd", "m3/abcd"] {
        assert_eq!(OnMachine::parse(invalid), None, "{invalid}");
    }
}

#[test]
fn key_of_a_volume_home_names_volume_and_machine() {
    let home = VolumeHome {
        machine: MachineId::from_bytes([7; 16]),
        volume: "shop_data".into(),
    };
    assert_eq!(VolumeHome::parse(&home.key()), Some(home));
    for invalid in ["", "shop_data", "shop_data/m3"] {
        assert_eq!(VolumeHome::parse(invalid), None, "{invalid}");
    }
}
