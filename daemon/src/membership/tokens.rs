//! Join tokens: created, listed and removed. Joining with one is in
//! [`crate::membership::register`].

use uc_api::token::{JoinToken, TokenMember};
use uc_api::v1::{CreateTokenResponse, MachineRecord, TokenRecord, TokenState, TokenStatus};
use uc_api::{Code, Failure};
use uc_mesh::PrivateKey;

use crate::clock::now_ms;
use crate::cluster::member::Member;
use crate::cluster::records::{self, delete, put};

const DEFAULT_TTL_S: u64 = 3600;
const MAX_TTL_S: u64 = 30 * 24 * 3600;
/// How long an expired token is kept. Another machine's clock may be behind this one's, and then
/// the token is still valid there.
const KEEP_EXPIRED_MS: i64 = 24 * 3_600_000;
/// Most members in a token: those that a machine tries in order to join.
const MAX_MEMBERS: usize = 8;

/// Creates a token. Removes those that expired long ago.
pub(crate) async fn create(member: &Member, ttl_s: u64) -> Result<CreateTokenResponse, Failure> {
    create_at(member, ttl_s, now_ms()).await
}

async fn create_at(member: &Member, ttl_s: u64, now: i64) -> Result<CreateTokenResponse, Failure> {
    let ttl_s = if ttl_s == 0 { DEFAULT_TTL_S } else { ttl_s };
    if ttl_s > MAX_TTL_S {
        return Err(Failure::new(
            Code::Invalid,
            "a join token is valid for at most 30 days",
        ));
    }
    let key =
        PrivateKey::generate().map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    // Hexadecimal, because users type it: other alphabets have ids that look like options.
    let id = format!("{:012x}", rand::random::<u64>() >> 16);
    let expires_at_ms = now.saturating_add_unsigned(ttl_s * 1000);
    let record = TokenRecord {
        id: id.clone(),
        public_key: key.public().to_string(),
        expires_at_ms,
        created_at_ms: now,
        created_by: member.membership.machine_id.clone(),
        ..TokenRecord::default()
    };
    let mut writes = vec![put(records::TOKEN, id.clone(), &record)];
    let known = member.cluster();
    let ended = known
        .tokens()
        .filter(|token| token.record.expires_at_ms.saturating_add(KEEP_EXPIRED_MS) <= now);
    writes.extend(ended.map(|token| delete(records::TOKEN, token.record.id.clone())));
    member.write(writes).await?;
    let members = known.own().into_iter().chain(known.others());
    let token = JoinToken {
        id,
        private_key: key.to_base64(),
        members: members
            .take(MAX_MEMBERS)
            .map(|machine| TokenMember {
                public_key: machine.key.to_string(),
                endpoints: machine.record.endpoints.clone(),
            })
            .collect(),
        expires_at_ms,
    };
    Ok(CreateTokenResponse {
        token: token.to_line(),
        expires_at_ms,
    })
}

/// All tokens, the oldest first.
pub(crate) fn list(member: &Member) -> Vec<TokenStatus> {
    let cluster = member.cluster();
    let tokens = cluster.tokens().map(|token| token.record.clone());
    statuses(tokens.collect(), cluster.machine_records(), now_ms())
}

/// Removes a token. Its key is removed from every machine's mesh when the machine hears of it.
pub(crate) async fn remove(member: &Member, id: &str) -> Result<TokenStatus, Failure> {
    let token = list(member)
        .into_iter()
        .find(|status| status.token.as_ref().is_some_and(|token| token.id == id))
        .ok_or_else(|| {
            Failure::new(Code::NotFound, format!("join token `{id}` not found"))
                .hint("`uc machine token ls` lists the tokens")
        })?;
    member.write(vec![delete(records::TOKEN, id)]).await?;
    Ok(token)
}

fn statuses(
    mut tokens: Vec<TokenRecord>,
    machines: &[MachineRecord],
    now_ms: i64,
) -> Vec<TokenStatus> {
    let name = |id: &str| {
        let machine = machines.iter().find(|machine| machine.id == id);
        machine.map_or_else(String::new, |machine| machine.name.clone())
    };
    tokens.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
    tokens
        .into_iter()
        .map(|token| TokenStatus {
            state: state(&token, now_ms).into(),
            created_by_name: name(&token.created_by),
            used_by_name: name(&token.used_by),
            token: Some(token),
        })
        .collect()
}

/// A token that was used stays so when it expires: who joined with it matters more.
fn state(token: &TokenRecord, now_ms: i64) -> TokenState {
    if !token.used_by.is_empty() {
        TokenState::Used
    } else if token.expires_at_ms <= now_ms {
        TokenState::Expired
    } else {
        TokenState::Unused
    }
}

#[cfg(test)]
mod tests {
    use uc_api::v1::AddMachineRequest;

    use super::*;
    use crate::app::tests::member_of_one;
    use crate::membership::register;

    #[tokio::test]
    async fn creating_a_token_keeps_those_that_another_clock_may_count_as_valid() {
        let directory = tempfile::tempdir().unwrap();
        let member = member_of_one(&directory).await;
        const HOUR_MS: i64 = 3_600_000;
        let now = now_ms();
        create_at(&member, 3600, now).await.unwrap();
        create_at(&member, 3600, now + 2 * HOUR_MS).await.unwrap();
        assert_eq!(list(&member).len(), 2);
        create_at(&member, 3600, now + 25 * HOUR_MS).await.unwrap();
        assert_eq!(list(&member).len(), 2, "not the first one");
    }

    #[tokio::test]
    async fn join_is_repeated_in_place_and_removed_token_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let member = member_of_one(&directory).await;
        let made = create(&member, 0).await.unwrap();
        let token: JoinToken = made.token.parse().unwrap();
        let key = PrivateKey::generate().unwrap().public();
        let join = |id: &str, name: &str| AddMachineRequest {
            machine_id: id.repeat(16),
            name: name.into(),
            public_key: key.to_string(),
            endpoints: vec!["192.0.2.2:51820".into()],
        };
        let names = || {
            let cluster = member.cluster();
            let machines = cluster.machines().iter();
            machines
                .map(|machine| machine.name.to_string())
                .collect::<Vec<_>>()
        };
        let first = register::add_machine(&member, join("b2", "m2"), Some(&token.id))
            .await
            .unwrap();
        // The answer was lost.
        let again = register::add_machine(&member, join("b2", "m2"), Some(&token.id))
            .await
            .unwrap();
        assert_eq!(first.machine, again.machine);
        // The join failed; the machine tries again, under another name.
        let repeated = register::add_machine(&member, join("c3", "m3"), Some(&token.id))
            .await
            .unwrap();
        assert_eq!(
            repeated.machine.unwrap().subnet,
            first.machine.unwrap().subnet
        );
        assert_eq!(names(), ["m1", "m3"]);
        let listed = list(&member);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].state(), TokenState::Used);
        assert_eq!(listed[0].used_by_name, "m3");
        assert_eq!(listed[0].created_by_name, "m1");

        let unused = create(&member, 60).await.unwrap();
        let unused: JoinToken = unused.token.parse().unwrap();
        assert_eq!(list(&member).len(), 2);
        let removed = remove(&member, &unused.id).await.unwrap();
        assert_eq!(removed.state(), TokenState::Unused);
        let missing = remove(&member, &unused.id).await.unwrap_err();
        assert_eq!(missing.code, Code::NotFound);
        let request = AddMachineRequest {
            public_key: PrivateKey::generate().unwrap().public().to_string(),
            ..join("d4", "m4")
        };
        let refused = register::add_machine(&member, request, Some(&unused.id))
            .await
            .unwrap_err();
        assert!(refused.message.contains("it was removed"), "{refused}");
        assert_eq!(names(), ["m1", "m3"]);
        member.stop().await;
    }

    #[test]
    fn tokens_are_listed_by_age_with_state_and_names() {
        let token = |id: &str, created_at_ms, expires_at_ms, used_by: &str| TokenRecord {
            id: id.into(),
            created_at_ms,
            expires_at_ms,
            created_by: "a".into(),
            used_by: used_by.into(),
            ..TokenRecord::default()
        };
        let machine = |id: &str, name: &str| MachineRecord {
            id: id.into(),
            name: name.into(),
            ..MachineRecord::default()
        };
        let listed = statuses(
            vec![
                token("t3", 30, 100, ""),
                token("t2", 20, 50, ""),
                token("t1", 10, 50, "b"),
                token("t4", 40, 100, "gone"),
            ],
            &[machine("a", "m1"), machine("b", "m2")],
            50,
        );
        let listed: Vec<_> = listed
            .iter()
            .map(|status| {
                (
                    status.token.as_ref().unwrap().id.as_str(),
                    status.state(),
                    status.created_by_name.as_str(),
                    status.used_by_name.as_str(),
                )
            })
            .collect();
        assert_eq!(
            listed,
            [
                ("t1", TokenState::Used, "m1", "m2"),
                ("t2", TokenState::Expired, "m1", ""),
                ("t3", TokenState::Unused, "m1", ""),
                ("t4", TokenState::Used, "m1", ""),
            ]
        );
    }
}
