//! Projects that this machine has leased to deployments. A deployment asks every machine that it
//! can reach, so two deployments of one project cannot both begin where they have a common machine.
//!
//! Leases are kept in memory only. Each expires unless its deployment renews it, so that a machine
//! that dies does not keep a project. A daemon that starts again has no leases; deployments that
//! still run renew theirs within seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uc_api::v1::release_request::What;
use uc_api::v1::{self, LeaseRequest, LeftLeases};
use uc_api::{Code, Failure};

/// The longest time to expiry that a caller gets, and how long an ended attempt is remembered.
pub(crate) const TTL: Duration = Duration::from_mins(1);

/// The leases of one machine.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Random value of this daemon's process.
    process: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By project.
    held: BTreeMap<String, Held>,
    /// Attempts that have ended, until they are forgotten. A request that was delayed on its way
    /// would otherwise lease a project that no deployment releases.
    ended: BTreeMap<String, Instant>,
    /// Deployments that this daemon executes.
    executing: usize,
    /// Nothing is leased any more, because this machine is taking another subnet.
    closed: bool,
}

#[derive(Debug, Clone)]
struct Held {
    deployment: String,
    machine: String,
    process: String,
    attempt: String,
    since: Instant,
    expires: Instant,
    confirmed: bool,
}

impl Held {
    fn lease(&self, project: &str, now: Instant) -> v1::Lease {
        let age = now.saturating_duration_since(self.since);
        v1::Lease {
            project: project.to_owned(),
            deployment_id: self.deployment.clone(),
            machine_id: self.machine.clone(),
            age_ms: age.as_millis().try_into().unwrap_or(u64::MAX),
            confirmed: self.confirmed,
        }
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        self.held.retain(|_, held| held.expires > now);
        self.ended.retain(|_, until| *until > now);
    }

    /// Ends the leases for which `ends` is true.
    fn end(&mut self, now: Instant, ends: impl Fn(&str, &Held) -> bool) -> Vec<v1::Lease> {
        let mut ended = Vec::new();
        self.held.retain(|project, held| {
            let ends = ends(project, held);
            if ends {
                ended.push(held.lease(project, now));
            }
            !ends
        });
        ended
    }
}

/// Keeps [`Leases::close`] from closing while this daemon executes a deployment.
#[derive(Debug)]
pub(crate) struct Executing(Arc<Leases>);

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.state().executing -= 1;
    }
}

impl Leases {
    pub(crate) fn new(process: Arc<str>) -> Self {
        Self {
            process,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Random value of this daemon's process, for requests to other machines.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// Refuses a deployment whose project another one has by now. This one lost it while its
    /// machine was cut off.
    pub(crate) fn refuse_foreign(
        &self,
        project: &str,
        deployment: &str,
        now: Instant,
    ) -> Result<(), Failure> {
        let leases = self.list(now);
        let mut foreign = leases.iter().filter(|lease| {
            lease.confirmed && lease.project == project && lease.deployment_id != deployment
        });
        let Some(lease) = foreign.next() else {
            return Ok(());
        };
        let message = format!(
            "deployment {} has project {project} now",
            lease.deployment_id
        );
        Err(Failure::new(Code::Refused, message)
            .hint("`uc lock show` lists it; deploy again when it has ended"))
    }

    /// Leases the projects, or renews their lease. Returns the lease of another deployment if it
    /// has one of them; then nothing is leased.
    pub(crate) fn lease(
        &self,
        request: &LeaseRequest,
        now: Instant,
    ) -> Result<Option<v1::Lease>, Failure> {
        if request.projects.is_empty() || request.deployment_id.is_empty() {
            let message = "the request names no project or no deployment";
            return Err(Failure::new(Code::Invalid, message));
        }
        let mut state = self.state();
        state.expire(now);
        if state.ended.contains_key(&request.attempt) {
            return Err(Failure::new(Code::Refused, "the deployment has ended"));
        }
        if state.closed {
            return Err(closed());
        }
        let other = request.projects.iter().find_map(|project| {
            let held = state.held.get(project)?;
            (held.deployment != request.deployment_id).then(|| held.lease(project, now))
        });
        if other.is_some() {
            return Ok(other);
        }
        // The clock of a machine that has just started can be younger than the deployment.
        let since = now.checked_sub(Duration::from_millis(request.age_ms));
        let since = since.unwrap_or(now);
        for project in &request.projects {
            let former = state.held.get(project);
            let held = Held {
                deployment: request.deployment_id.clone(),
                machine: request.machine_id.clone(),
                process: request.process.clone(),
                attempt: request.attempt.clone(),
                since: former.map_or(since, |held| held.since.min(since)),
                expires: now + Duration::from_millis(request.ttl_ms).min(TTL),
                confirmed: request.confirmed,
            };
            state.held.insert(project.clone(), held);
        }
        Ok(None)
    }

    /// Ends leases. Returns them as they were.
    pub(crate) fn release(&self, what: &What, now: Instant) -> Vec<v1::Lease> {
        let mut state = self.state();
        state.expire(now);
        match what {
            What::Attempt(attempt) => {
                state.ended.insert(attempt.clone(), now + TTL);
                state.end(now, |_, held| held.attempt == *attempt)
            }
            What::Project(wanted) => state.end(now, |project, _| project == wanted),
            What::Left(LeftLeases {
                machine_id,
                process,
                keep_deployment_ids,
            }) => state.end(now, |_, held| {
                held.machine == *machine_id
                    && held.process != *process
                    && !keep_deployment_ids.contains(&held.deployment)
            }),
        }
    }

    /// The present leases, by project.
    pub(crate) fn list(&self, now: Instant) -> Vec<v1::Lease> {
        let mut state = self.state();
        state.expire(now);
        let held = state.held.iter();
        held.map(|(project, held)| held.lease(project, now))
            .collect()
    }

    /// Whether no deployment is known that could need this machine: neither one that this daemon
    /// executes, nor one of another machine.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.expire(now);
        state.executing == 0 && state.held.is_empty()
    }

    /// Counts a deployment that this daemon executes.
    pub(crate) fn execute(self: &Arc<Self>) -> Result<Executing, Failure> {
        let mut state = self.state();
        if state.closed {
            return Err(closed());
        }
        state.executing += 1;
        Ok(Executing(Arc::clone(self)))
    }

    /// Refuses all further leases, unless a deployment is running. Returns whether it does.
    pub(crate) fn close(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.expire(now);
        state.closed = state.executing == 0 && state.held.is_empty();
        state.closed
    }

    /// Undoes [`close`](Self::close).
    pub(crate) fn open(&self) {
        self.state().closed = false;
    }
}

fn closed() -> Failure {
    let message = "this machine is taking another subnet";
    Failure::new(Code::Refused, message).hint("try again in a minute")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases() -> Arc<Leases> {
        Arc::new(Leases::new("process".into()))
    }

    fn request(deployment: &str, projects: &[&str]) -> LeaseRequest {
        LeaseRequest {
            projects: projects.iter().map(|&project| project.to_owned()).collect(),
            deployment_id: deployment.into(),
            machine_id: format!("machine of {deployment}"),
            process: format!("process of {deployment}"),
            attempt: format!("attempt of {deployment}"),
            ttl_ms: 60_000,
            age_ms: 0,
            confirmed: true,
        }
    }

    fn projects(leases: &[v1::Lease]) -> Vec<&str> {
        leases.iter().map(|lease| lease.project.as_str()).collect()
    }

    #[test]
    fn project_is_leased_to_one_deployment_until_it_ends() {
        let (leases, now) = (leases(), Instant::now());
        assert_eq!(leases.lease(&request("d1", &["shop"]), now), Ok(None));
        let later = now + Duration::from_secs(12);
        let held = leases.lease(&request("d2", &["blog", "shop"]), later);
        let held = held.unwrap().unwrap();
        assert_eq!(held.project, "shop");
        assert_eq!(held.deployment_id, "d1");
        assert_eq!(held.machine_id, "machine of d1");
        assert_eq!(held.age_ms, 12_000);
        // All of them or none.
        assert_eq!(leases.lease(&request("d3", &["blog"]), later), Ok(None));
        let ended = leases.release(&What::Attempt("attempt of d1".into()), later);
        assert_eq!(projects(&ended), ["shop"]);
        assert_eq!(leases.lease(&request("d2", &["shop"]), later), Ok(None));
    }

    #[test]
    fn lease_expires_unless_it_is_renewed() {
        let (leases, now) = (leases(), Instant::now());
        let seconds = |count| now + Duration::from_secs(count);
        leases.lease(&request("d1", &["shop"]), now).unwrap();
        leases
            .lease(&request("d1", &["shop"]), seconds(50))
            .unwrap();
        let held = leases.lease(&request("d2", &["shop"]), seconds(100));
        assert_eq!(
            held.unwrap().unwrap().age_ms,
            100_000,
            "a renewal keeps the age"
        );
        assert_eq!(
            leases.lease(&request("d2", &["shop"]), seconds(110)),
            Ok(None)
        );
        // A caller cannot have a project for longer than the limit.
        let long = LeaseRequest {
            ttl_ms: u64::MAX,
            ..request("d2", &["shop"])
        };
        leases.lease(&long, seconds(110)).unwrap();
        assert!(leases.list(seconds(169)).len() == 1 && leases.is_idle(seconds(170)));
    }

    #[test]
    fn age_of_a_lease_does_not_need_the_clock_of_the_executor() {
        let (leases, now) = (leases(), Instant::now());
        let old = LeaseRequest {
            age_ms: 2_000,
            ..request("d1", &["shop"])
        };
        let now = now + Duration::from_secs(10);
        leases.lease(&old, now).unwrap();
        assert_eq!(leases.list(now)[0].age_ms, 2_000);
        // Older than the clock of this machine can tell.
        let ancient = LeaseRequest {
            age_ms: u64::MAX,
            ..request("d2", &["blog"])
        };
        leases.lease(&ancient, now).unwrap();
    }

    #[test]
    fn ended_attempt_gets_no_lease_again() {
        let (leases, now) = (leases(), Instant::now());
        leases.release(&What::Attempt("attempt of d1".into()), now);
        assert!(leases.lease(&request("d1", &["shop"]), now).is_err());
        assert!(leases.list(now).is_empty());
        // It is forgotten once no request of it can be on its way.
        assert_eq!(leases.lease(&request("d1", &["shop"]), now + TTL), Ok(None));
        // Another attempt of the same deployment, after a restart, is not affected.
        leases.release(&What::Attempt("attempt of d1".into()), now + TTL);
        let resumed = LeaseRequest {
            attempt: "another".into(),
            ..request("d1", &["shop"])
        };
        assert_eq!(leases.lease(&resumed, now + TTL), Ok(None));
    }

    #[test]
    fn project_that_a_user_released_can_be_leased_again() {
        let (leases, now) = (leases(), Instant::now());
        leases
            .lease(&request("d1", &["blog", "shop"]), now)
            .unwrap();
        let released = leases.release(&What::Project("shop".into()), now);
        assert_eq!(projects(&released), ["shop"]);
        assert_eq!(projects(&leases.list(now)), ["blog"]);
        assert_eq!(
            leases.lease(&request("d1", &["blog", "shop"]), now),
            Ok(None)
        );
    }

    #[test]
    fn restarted_machine_releases_leases_of_its_former_processes_only() {
        let (leases, now) = (leases(), Instant::now());
        let of = |deployment: &str, project: &str, machine: &str, process: &str| {
            let request = LeaseRequest {
                machine_id: machine.into(),
                process: process.into(),
                ..request(deployment, &[project])
            };
            leases.lease(&request, now).unwrap();
        };
        of("d1", "cut-short", "m1", "p1");
        of("d2", "resumed", "m1", "p1");
        of("d3", "new", "m1", "p2");
        of("d4", "other", "m2", "p1");
        let left = LeftLeases {
            machine_id: "m1".into(),
            process: "p2".into(),
            keep_deployment_ids: vec!["d2".into()],
        };
        let released = leases.release(&What::Left(left), now);
        assert_eq!(projects(&released), ["cut-short"]);
        assert_eq!(projects(&leases.list(now)), ["new", "other", "resumed"]);
    }

    #[test]
    fn close_waits_for_running_deployments_and_refuses_the_next() {
        let (leases, now) = (leases(), Instant::now());
        let executing = leases.execute().unwrap();
        assert!(!leases.close(now));
        drop(executing);
        leases.lease(&request("d1", &["shop"]), now).unwrap();
        assert!(!leases.close(now), "one of another machine");
        leases.release(&What::Attempt("attempt of d1".into()), now);
        assert!(leases.close(now));
        let refused = leases.execute().unwrap_err();
        assert!(refused.message.contains("another subnet"), "{refused}");
        assert!(leases.lease(&request("d2", &["shop"]), now).is_err());
        leases.open();
        assert!(leases.execute().is_ok());
    }

    #[test]
    fn request_without_a_project_or_deployment_is_invalid() {
        let (leases, now) = (leases(), Instant::now());
        assert!(leases.lease(&request("d1", &[]), now).is_err());
        assert!(leases.lease(&request("", &["shop"]), now).is_err());
    }
}
