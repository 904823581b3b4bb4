//! How a member registers a machine that joins: its name, its subnet, its record.

use uc_api::layout::WIREGUARD_PORT;
use uc_api::v1::{AddMachineRequest, AddMachineResponse, MachineRecord, TokenRecord};
use uc_api::{Code, Failure, MachineName};
use uc_cluster_state::membership::Liveness;
use uc_mesh::PublicKey;

use crate::clock::now_ms;
use crate::cluster::machines::free_subnet;
use crate::cluster::member::Member;
use crate::cluster::records::{self, delete, put};
use crate::cluster::view::ID_START;
use crate::membership::endpoints;

/// Registers a machine, and uses up the token if it comes with one. The caller holds the
/// registration lock.
pub(crate) async fn add_machine(
    member: &Member,
    request: AddMachineRequest,
    token: Option<&str>,
) -> Result<AddMachineResponse, Failure> {
    let known = member.cluster();
    let cluster = known.record().cloned().ok_or_else(|| {
        Failure::new(
            Code::Refused,
            "this machine does not have the state of the cluster yet",
        )
        .hint("try again in a moment")
    })?;
    let machines = known.machine_records();
    let usable = match token {
        None => None,
        Some(id) => {
            let is_up = |machine: &MachineRecord| {
                let id = machine.id.parse();
                id.is_ok_and(|id| known.liveness(id) == Some(Liveness::Up))
            };
            let token = known.token(id).map(|token| &token.record);
            Some(usable_token(token, &request, machines, is_up, now_ms())?)
        }
    };
    let (token, replaced) = match usable {
        None => (None, None),
        Some(Usable::First(token)) => (Some(token), None),
        Some(Usable::Repeated(token, machine)) => (Some(token), Some(machine.id)),
        Some(Usable::Answered(machine)) => {
            return Ok(AddMachineResponse {
                cluster: Some(cluster),
                machine: Some(machine),
                members: machines.to_vec(),
            });
        }
    };
    let mut others = machines.to_vec();
    others.retain(|machine| Some(&machine.id) != replaced.as_ref());
    let machine = new_record(&others, &request, member)?;
    // The delete is first: for a moment without both records, no machine has two with one key.
    let mut writes: Vec<_> = replaced
        .map(|id| delete(records::MACHINE, id))
        .into_iter()
        .collect();
    writes.push(put(records::MACHINE, machine.id.clone(), &machine));
    if let Some(token) = token {
        let used = TokenRecord {
            used_by: machine.id.clone(),
            used_at_ms: now_ms(),
            ..token
        };
        writes.push(put(records::TOKEN, used.id.clone(), &used));
    }
    member.write(writes).await?;
    Ok(AddMachineResponse {
        cluster: Some(cluster),
        machine: Some(machine),
        members: member.cluster().machine_records().to_vec(),
    })
}

/// What a token allows.
#[derive(Debug, PartialEq)]
enum Usable {
    /// Registering a machine.
    First(TokenRecord),
    /// Answering the registered machine again, because it did not get the first answer.
    Answered(MachineRecord),
    /// Registering the machine once more, because its first join failed after it was registered.
    /// The first registration is replaced.
    Repeated(TokenRecord, MachineRecord),
}

fn usable_token(
    token: Option<&TokenRecord>,
    request: &AddMachineRequest,
    machines: &[MachineRecord],
    is_up: impl Fn(&MachineRecord) -> bool,
    now_ms: i64,
) -> Result<Usable, Failure> {
    let hint = "create a new one with `uc machine token`";
    let Some(token) = token else {
        return Err(Failure::new(
            Code::Refused,
            "the join token is unknown: it was removed, or it was spent and then cleaned up",
        )
        .hint(hint));
    };
    if !token.used_by.is_empty() {
        let same = machines.iter().find(|machine| {
            machine.id == token.used_by && machine.public_key == request.public_key
        });
        return match same {
            None => Err(Failure::new(
                Code::Refused,
                "the join token was already used by another machine",
            )
            .hint(hint)),
            Some(machine) if machine.id == request.machine_id => {
                Ok(Usable::Answered(machine.clone()))
            }
            Some(machine) if is_up(machine) => Err(Failure::new(
                Code::Refused,
                format!(
                    "this machine already joined with the token, as {}",
                    machine.name
                ),
            )
            .hint("if its join failed, try again in a minute")),
            Some(machine) => Ok(Usable::Repeated(token.clone(), machine.clone())),
        };
    }
    if token.expires_at_ms <= now_ms {
        return Err(Failure::new(Code::Refused, "the join token has expired").hint(hint));
    }
    Ok(Usable::First(token.clone()))
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
        subnet: free_subnet(member.membership.network, machines, None)?.to_string(),
        endpoints: endpoints::parse(&request.endpoints, WIREGUARD_PORT)?,
        created_at_ms: now_ms(),
        ..MachineRecord::default()
    })
}

/// Checks that the name is valid and that no member has it, or an id that begins with it.
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
    // Commands take both, and would act on the machine with the name.
    let text = name.as_str();
    let with_id = machines
        .iter()
        .find(|machine| text.len() >= ID_START && machine.id.starts_with(text));
    if let Some(machine) = with_id {
        let message = format!(
            "{name} is the beginning of the id of machine {}",
            machine.name
        );
        return Err(Failure::new(Code::Invalid, message).hint("choose another name"));
    }
    Ok(name)
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
    fn token_registers_one_machine_also_if_its_join_is_repeated() {
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
            name: "web-1".into(),
            public_key: "k".into(),
            ..MachineRecord::default()
        };
        let request = |machine_id: &str, public_key: &str| AddMachineRequest {
            machine_id: machine_id.into(),
            public_key: public_key.into(),
            ..AddMachineRequest::default()
        };
        let check = |token: &TokenRecord, request: &AddMachineRequest, up: bool, now| {
            usable_token(
                Some(token),
                request,
                std::slice::from_ref(&joined),
                |_| up,
                now,
            )
        };
        let message = |result: Result<Usable, Failure>| result.unwrap_err().message;
        let first = request("m", "k");
        assert_eq!(
            check(&token, &first, false, 99).unwrap(),
            Usable::First(token.clone())
        );
        assert!(message(check(&token, &first, false, 100)).contains("expired"));
        assert_eq!(
            check(&used, &first, true, 60).unwrap(),
            Usable::Answered(joined.clone())
        );
        let other = request("n", "other");
        assert!(message(check(&used, &other, false, 60)).contains("already used"));
        let unknown = usable_token(None, &first, &[], |_| false, 0);
        assert!(message(unknown).contains("unknown"));

        // The machine's join failed, and it tries again under another id.
        let again = request("n", "k");
        assert!(message(check(&used, &again, true, 60)).contains("already joined"));
        assert_eq!(
            check(&used, &again, false, 60).unwrap(),
            Usable::Repeated(used.clone(), joined.clone())
        );
    }

    #[test]
    fn taken_or_invalid_name_is_refused_with_a_hint() {
        let machines = [machine("m1", "10.210.0.0/24")];
        let failure = free_name(&machines, "m1").unwrap_err();
        assert_eq!(failure.code, Code::Exists);
        assert!(failure.hint.unwrap().contains("uc machine ls"));
        assert!(free_name(&machines, "M 2").is_err());
        assert!(free_name(&machines, "m2").is_ok());
        let with_id = [MachineRecord {
            id: "6e13b071".repeat(4),
            ..machine("m1", "10.210.0.0/24")
        }];
        for name in ["6e13", "6e13b0", &with_id[0].id] {
            let failure = free_name(&with_id, name).unwrap_err();
            assert!(
                failure.message.contains("the id of machine m1"),
                "{failure}"
            );
        }
        assert!(free_name(&with_id, "6e1").is_ok());
    }
}
