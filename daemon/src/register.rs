//! How a member registers a machine that joins: its name, its subnet, its record.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use uc_api::layout::WIREGUARD_PORT;
use uc_api::v1::{AddMachineRequest, AddMachineResponse, MachineRecord, TokenRecord};
use uc_api::{Code, Failure, MachineName};
use uc_mesh::PublicKey;

use crate::endpoints;
use crate::member::Member;
use crate::records::{self, put};

/// Registers a machine, and uses up the token if it comes with one. The caller holds the
/// registration lock.
pub(crate) async fn add_machine(
    member: &Member,
    request: AddMachineRequest,
    token: Option<&str>,
) -> Result<AddMachineResponse, Failure> {
    let view = member.view();
    let cluster = view.cluster().ok_or_else(|| {
        Failure::new(
            Code::Refused,
            "this machine does not have the state of the cluster yet",
        )
        .hint("try again in a moment")
    })?;
    let machines = view.machines();
    let token = match token {
        None => None,
        Some(id) => Some(usable_token(
            &view.tokens(),
            id,
            &request.public_key,
            &machines,
            member.now_ms(),
        )?),
    };
    if let Some(Usable::Again(machine)) = token {
        return Ok(AddMachineResponse {
            cluster: Some(cluster),
            machine: Some(machine),
            members: machines,
        });
    }
    let machine = new_record(&machines, &request, member)?;
    let mut writes = vec![put(records::MACHINE, machine.id.clone(), &machine)];
    if let Some(Usable::First(token)) = token {
        let used = TokenRecord {
            used_by: machine.id.clone(),
            used_at_ms: member.now_ms(),
            ..token
        };
        writes.push(put(records::TOKEN, used.id.clone(), &used));
    }
    member.write(writes).await?;
    Ok(AddMachineResponse {
        cluster: Some(cluster),
        machine: Some(machine),
        members: member.view().machines(),
    })
}

/// What a token allows.
#[derive(Debug, PartialEq)]
enum Usable {
    /// Registering a machine.
    First(TokenRecord),
    /// Answering the registered machine again, because it did not get the first answer.
    Again(MachineRecord),
}

fn usable_token(
    tokens: &[TokenRecord],
    id: &str,
    key: &str,
    machines: &[MachineRecord],
    now_ms: i64,
) -> Result<Usable, Failure> {
    let hint = "create a new one with `uc machine token`";
    let Some(token) = tokens.iter().find(|token| token.id == id) else {
        return Err(Failure::new(Code::Refused, "the join token is unknown").hint(hint));
    };
    if !token.used_by.is_empty() {
        let same = machines
            .iter()
            .find(|machine| machine.id == token.used_by && machine.public_key == key);
        return same.cloned().map(Usable::Again).ok_or_else(|| {
            Failure::new(
                Code::Refused,
                "the join token was already used by another machine",
            )
            .hint(hint)
        });
    }
    if token.expires_at_ms <= now_ms {
        return Err(Failure::new(Code::Refused, "the join token has expired").hint(hint));
    }
    Ok(Usable::First(token.clone()))
}

/// How long the key of a used token remains a peer. The machine that joins still has to receive its
/// answer and change to its own key.
const FAREWELL_MS: i64 = 60_000;

/// Whether the token's key may still talk to members.
pub(crate) fn token_opens_mesh(token: &TokenRecord, now_ms: i64) -> bool {
    token.expires_at_ms > now_ms
        && (token.used_by.is_empty() || now_ms < token.used_at_ms + FAREWELL_MS)
}

fn new_record(
    machines: &[MachineRecord],
    request: &AddMachineRequest,
    member: &Member,
) -> Result<MachineRecord, Failure> {
    let invalid = |what: String| Failure::new(Code::Invalid, what);
    let id = match request.machine_id.as_str() {
        "" => uc_api::MachineId::from_bytes(rand::random()),
        id => id
            .parse()
            .map_err(|error: uc_api::id::IdError| invalid(error.to_string()))?,
    };
    let key: PublicKey = request
        .public_key
        .parse()
        .map_err(|_| invalid("the machine sent an invalid WireGuard key".to_owned()))?;
    let name = free_name(machines, &request.name)?;
    let taken = machines
        .iter()
        .find(|m| m.id == id.to_string() || m.public_key == key.to_string());
    if let Some(taken) = taken {
        return Err(Failure::new(
            Code::Exists,
            format!("the machine is already in the cluster, as {}", taken.name),
        )
        .hint(format!("remove it first: `uc machine rm {}`", taken.name)));
    }
    Ok(MachineRecord {
        id: id.to_string(),
        name: name.to_string(),
        public_key: key.to_string(),
        subnet: free_subnet(member.membership.network, machines)?.to_string(),
        endpoints: endpoints::parse(&request.endpoints, WIREGUARD_PORT)?,
        created_at_ms: member.now_ms(),
        ..MachineRecord::default()
    })
}

/// Checks that the name is valid and that no member has it.
pub(crate) fn free_name(machines: &[MachineRecord], wanted: &str) -> Result<MachineName, Failure> {
    let name: MachineName = wanted.parse().map_err(|error: uc_api::name::NameError| {
        Failure::new(Code::Invalid, error.to_string()).hint("choose another name")
    })?;
    if machines.iter().any(|machine| machine.name == name.as_str()) {
        return Err(Failure::new(
            Code::Exists,
            format!("a machine named {name} is already in the cluster"),
        )
        .hint("choose another name; `uc machine ls` lists the names in use"));
    }
    Ok(name)
}

/// The first /24 of the network that no member has.
pub(crate) fn free_subnet(
    network: Ipv4Net,
    machines: &[MachineRecord],
) -> Result<Ipv4Net, Failure> {
    let taken: BTreeSet<&str> = machines
        .iter()
        .map(|machine| machine.subnet.as_str())
        .collect();
    network
        .subnets(24)
        .ok()
        .and_then(|mut subnets| subnets.find(|subnet| !taken.contains(subnet.to_string().as_str())))
        .ok_or_else(|| {
            Failure::new(
                Code::Exhausted,
                format!("every /24 of {network} is in use by a machine"),
            )
            .hint("remove machines that no longer exist with `uc machine rm`")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, subnet: &str) -> MachineRecord {
        MachineRecord {
            name: name.into(),
            subnet: subnet.into(),
            ..MachineRecord::default()
        }
    }

    #[test]
    fn free_subnet_is_the_first_gap() {
        let network: Ipv4Net = "10.210.0.0/22".parse().unwrap();
        let mut machines = vec![machine("a", "10.210.0.0/24"), machine("b", "10.210.2.0/24")];
        assert_eq!(
            free_subnet(network, &machines).unwrap().to_string(),
            "10.210.1.0/24"
        );
        machines.push(machine("c", "10.210.1.0/24"));
        machines.push(machine("d", "10.210.3.0/24"));
        assert_eq!(
            free_subnet(network, &machines).unwrap_err().code,
            Code::Exhausted
        );
    }

    #[test]
    fn token_registers_one_machine_and_answers_it_again() {
        let token = TokenRecord {
            id: "t".into(),
            expires_at_ms: 100,
            ..TokenRecord::default()
        };
        let used = TokenRecord {
            used_by: "m".into(),
            used_at_ms: 50,
            ..token.clone()
        };
        let joined = MachineRecord {
            id: "m".into(),
            public_key: "k".into(),
            ..MachineRecord::default()
        };
        let check = |token: &TokenRecord, key, now| {
            usable_token(
                std::slice::from_ref(token),
                "t",
                key,
                std::slice::from_ref(&joined),
                now,
            )
        };
        assert_eq!(
            check(&token, "k", 99).unwrap(),
            Usable::First(token.clone())
        );
        assert!(
            check(&token, "k", 100)
                .unwrap_err()
                .message
                .contains("expired")
        );
        assert_eq!(
            check(&used, "k", 60).unwrap(),
            Usable::Again(joined.clone())
        );
        assert!(
            check(&used, "other", 60)
                .unwrap_err()
                .message
                .contains("already used")
        );
        assert!(usable_token(&[], "t", "k", &[], 0).is_err());
    }

    #[test]
    fn key_of_a_used_token_is_removed_after_a_minute() {
        let token = TokenRecord {
            expires_at_ms: 1_000_000,
            ..TokenRecord::default()
        };
        assert!(token_opens_mesh(&token, 999_999) && !token_opens_mesh(&token, 1_000_000));
        let used = TokenRecord {
            used_by: "m".into(),
            used_at_ms: 1_000,
            ..token
        };
        assert!(token_opens_mesh(&used, 60_999) && !token_opens_mesh(&used, 61_000));
    }

    #[test]
    fn taken_or_invalid_name_is_refused_with_a_hint() {
        let machines = [machine("m1", "10.210.0.0/24")];
        let failure = free_name(&machines, "m1").unwrap_err();
        assert_eq!(failure.code, Code::Exists);
        assert!(failure.hint.unwrap().contains("uc machine ls"));
        assert!(free_name(&machines, "M 2").is_err());
        assert!(free_name(&machines, "m2").is_ok());
    }
}
