//! Changes of replicas: a new container, the end of one, or one for the other. Each is one durable
//! operation of this machine. It runs in a task of its own, so it does not end when its caller
//! goes; the journal has it before anything is done, so it does not end with the daemon either.
//!
//! A change is known by its deployment and step. The container that a change replaces is stopped
//! and kept until the deployment ends ([`NodeService::settle`]), so a deployment that fails is
//! taken back by starting it again ([`NodeService::undo_from`]). A new container that failed is
//! kept for its logs until the next deployment of its service.

mod carry_out;
mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uc_api::v1::{
    ApplyEvent, ChangeEnded, ChangeRecord, ChangeStage, Kept, ReplicaChange, SettleRequest,
    SettleResponse, apply_event,
};
use uc_api::{Code, Failure};

use self::carry_out::Work;
use self::journal::{Journal, Saved};
use super::{Marks, NodeService, Replies};
use crate::engine::spec;

/// The other machines, as far as a change has to wait for them.
#[async_trait]
pub(crate) trait Audience: std::fmt::Debug + Send + Sync {
    /// Waits until the machines that are up have everything that this machine has published.
    /// Returns the names of those that do not have it after a short time.
    async fn seen(&self) -> Vec<String>;
}

/// Deployment and step.
type Key = (String, String);

/// The changes of this machine that are not settled.
#[derive(Debug)]
pub(crate) struct Changes {
    journal: Journal,
    entries: Mutex<BTreeMap<Key, Arc<Entry>>>,
}

/// How far a change is, for those who wait for it.
#[derive(Debug, Clone)]
enum Doing {
    Running(String),
    Ended(Result<ChangeEnded, Failure>),
}

/// One change.
#[derive(Debug)]
struct Entry {
    record: Saved,
    doing: watch::Sender<Doing>,
    /// Cancelled when the change is to be taken back while it is being carried out.
    back: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(change: &ReplicaChange) -> Key {
    (change.deployment_id.clone(), change.step_id.clone())
}

impl Entry {
    fn new(saved: Saved) -> Arc<Self> {
        let record = saved.lock().clone();
        let doing = match record.stage() {
            ChangeStage::Failed => Doing::Ended(Err(failure(&record))),
            ChangeStage::Done | ChangeStage::Undone => Doing::Ended(Ok(ended(&record))),
            ChangeStage::Forward | ChangeStage::Backward | ChangeStage::Unspecified => {
                Doing::Running(String::new())
            }
        };
        Arc::new(Self {
            record: saved,
            doing: watch::Sender::new(doing),
            back: CancellationToken::new(),
        })
    }

    fn record(&self) -> ChangeRecord {
        self.record.lock().clone()
    }

    fn change(&self) -> ReplicaChange {
        change(&self.record.lock()).clone()
    }
}

fn change(record: &ChangeRecord) -> &ReplicaChange {
    record.change.as_ref().expect("each record has its change")
}

/// The end of a change that succeeded.
fn ended(record: &ChangeRecord) -> ChangeEnded {
    ChangeEnded {
        container_id: record.container_id.clone(),
        warnings: record.warnings.clone(),
    }
}

/// Why a change failed.
fn failure(record: &ChangeRecord) -> Failure {
    match &record.failure {
        Some(failure) => Failure::from(failure.clone()),
        None => Failure::new(Code::Refused, "the change was taken back"),
    }
}

impl Changes {
    /// Reads the journal in this directory, and marks what is kept.
    pub(crate) fn open(directory: &Path, marks: &Marks) -> Result<Self, Failure> {
        let (journal, records) = Journal::read(directory)?;
        for saved in &records {
            mark_kept(marks, &saved.lock());
        }
        let entries = records.into_iter().map(|saved| {
            let key = key(change(&saved.lock()));
            (key, Entry::new(saved))
        });
        Ok(Self {
            journal,
            entries: Mutex::new(entries.collect()),
        })
    }

    /// The entry of a change, and whether it is new.
    fn enter(
        &self,
        change: ReplicaChange,
        stage: ChangeStage,
    ) -> Result<(Arc<Entry>, bool), Failure> {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(&key(&change)) {
            if entry.change() != change {
                let message = format!("step {} of this deployment is another one", change.step_id);
                return Err(Failure::new(Code::Refused, message));
            }
            return Ok((Arc::clone(entry), false));
        }
        let record = ChangeRecord {
            change: Some(change.clone()),
            stage: stage.into(),
            ..ChangeRecord::default()
        };
        let entry = Entry::new(self.journal.saved(&change, record));
        entries.insert(key(&change), Arc::clone(&entry));
        Ok((entry, true))
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    /// The changes of a deployment.
    pub(crate) fn of(&self, deployment: &str) -> Vec<ReplicaChange> {
        let entries = lock(&self.entries);
        let of_it = entries.iter().filter(|((of, _), _)| of == deployment);
        of_it.map(|(_, entry)| entry.change()).collect()
    }

    /// The deployments that have changes here which are not settled.
    pub(crate) fn deployments(&self) -> BTreeSet<String> {
        let settled = |entry: &Entry| {
            // What failed is kept after its deployment has ended.
            entry.record.lock().stage() == ChangeStage::Failed
        };
        let entries = lock(&self.entries);
        let open = entries.iter().filter(|(_, entry)| !settled(entry));
        open.map(|((deployment, _), _)| deployment.clone())
            .collect()
    }
}

/// Marks the containers that a change keeps.
fn mark_kept(marks: &Marks, record: &ChangeRecord) {
    let old = &change(record).replaces;
    if !old.is_empty() {
        marks.keep(old, record.old_kept.then_some(Kept::Replaced));
    }
    if !record.container_id.is_empty() {
        let failed = record.stage() == ChangeStage::Failed;
        marks.keep(&record.container_id, failed.then_some(Kept::Failed));
    }
}

impl NodeService {
    /// Continues the changes that an earlier process of this daemon left unfinished.
    pub(crate) fn resume_changes(&self) {
        for entry in self.changes.all() {
            let stage = entry.record.lock().stage();
            if let ChangeStage::Forward | ChangeStage::Backward = stage {
                let ReplicaChange { step_id, .. } = entry.change();
                tracing::info!(
                    step = step_id,
                    ?stage,
                    "continuing a change that was cut short"
                );
                self.spawn_change(entry);
            }
        }
    }

    /// Carries out a change, or joins it, and streams its progress.
    pub(crate) fn apply_from(&self, change: ReplicaChange) -> Result<Replies<ApplyEvent>, Failure> {
        self.identity()?;
        check(&change)?;
        let (entry, new) = self.changes.enter(change, ChangeStage::Forward)?;
        if new {
            self.spawn_change(Arc::clone(&entry));
        } else if let ChangeStage::Backward | ChangeStage::Undone = entry.record.lock().stage() {
            return Err(Failure::new(Code::Refused, "the change was taken back"));
        }
        Ok(self.follow(entry, false))
    }

    /// Takes a change back, and streams its progress.
    pub(crate) fn undo_from(&self, change: ReplicaChange) -> Result<Replies<ApplyEvent>, Failure> {
        self.identity()?;
        check(&change)?;
        let (entry, new) = self.changes.enter(change, ChangeStage::Backward)?;
        let begins = new || {
            let mut record = entry.record.lock();
            match record.stage() {
                ChangeStage::Forward => {
                    entry.back.cancel();
                    false
                }
                // A change that failed restored what it replaced, but something that shares a
                // namespace with it may have changed since.
                ChangeStage::Done | ChangeStage::Failed => {
                    record.set_stage(ChangeStage::Backward);
                    true
                }
                // An attempt that failed; a running one is joined.
                ChangeStage::Backward => matches!(*entry.doing.borrow(), Doing::Ended(_)),
                ChangeStage::Undone | ChangeStage::Unspecified => false,
            }
        };
        if begins {
            entry.doing.send_replace(Doing::Running(String::new()));
            self.spawn_change(Arc::clone(&entry));
        }
        Ok(self.follow(entry, true))
    }

    fn spawn_change(&self, entry: Arc<Entry>) {
        let node = self.clone();
        self.tasks.spawn(async move {
            let work = Work::new(&node, &entry);
            // The journal has what was done, and the next process continues.
            let ended = tokio::select! {
                ended = work.to_end() => ended,
                () = node.cancel.cancelled() => return,
            };
            entry.doing.send_replace(Doing::Ended(ended));
        });
    }

    /// What happens to a change until its end. For who takes it back, a change that failed, and so
    /// was taken back already, is a success.
    fn follow(&self, entry: Arc<Entry>, back: bool) -> Replies<ApplyEvent> {
        let event = |event| ApplyEvent { event: Some(event) };
        let mut doing = entry.doing.subscribe();
        // The present state is the first item.
        doing.mark_changed();
        let state = Some((self.clone(), entry, doing));
        stream::unfold(state, move |state| async move {
            let (node, entry, mut doing) = state?;
            tokio::select! {
                changed = doing.changed() => changed.expect("the entry has the sender"),
                () = node.cancel.cancelled() => {
                    let failure = Failure::new(Code::Unreachable, "the daemon is shutting down");
                    return Some((Err(node.status(failure)), None));
                }
            }
            let now = doing.borrow_and_update().clone();
            let record = entry.record();
            Some(match now {
                Doing::Ended(Err(_)) if back && record.stage() == ChangeStage::Failed => {
                    (Ok(event(apply_event::Event::Ended(ended(&record)))), None)
                }
                Doing::Running(text) => (
                    Ok(event(apply_event::Event::Progress(text))),
                    Some((node, entry, doing)),
                ),
                Doing::Ended(Ok(ended)) => (Ok(event(apply_event::Event::Ended(ended))), None),
                Doing::Ended(Err(failure)) => {
                    let failed = apply_event::Event::Failed(node.named(failure).into());
                    (Ok(event(failed)), None)
                }
            })
        })
        .boxed()
    }

    /// Ends a deployment on this machine, and removes what is kept of it and of earlier deployments
    /// of these services. What this deployment's failed replicas printed stays readable, as long as
    /// their service exists.
    pub(crate) async fn settle(&self, request: &SettleRequest) -> SettleResponse {
        let mut warnings = Vec::new();
        for entry in self.changes.all() {
            let record = entry.record();
            let change = change(&record);
            let own = change.deployment_id == request.deployment_id;
            let service = format!("{}/{}", change.project, change.service);
            let concerns = own || request.services.contains(&service);
            let kept = match record.stage() {
                ChangeStage::Done if concerns && record.old_kept => Some(&change.replaces),
                ChangeStage::Failed if concerns && (!own || request.gone.contains(&service)) => {
                    Some(&record.container_id)
                }
                ChangeStage::Done | ChangeStage::Undone if concerns => None,
                _ => continue,
            };
            if let Some(kept) = kept.filter(|id| !id.is_empty())
                && let Err(error) = self.engine.remove(kept).await
            {
                let short = uc_api::id::short(kept);
                warnings.push(format!(
                    "container {short} of {service} could not be removed: {}",
                    Failure::from(error).message
                ));
                continue;
            }
            if let Err(failure) = self.changes.journal.remove(&entry.record) {
                warnings.push(failure.message);
                continue;
            }
            for id in [&change.replaces, &record.container_id] {
                self.marks.keep(id, None);
            }
            self.marks.clear(&change.replaces);
            lock(&self.changes.entries).remove(&key(change));
        }
        SettleResponse { warnings }
    }
}

fn check(change: &ReplicaChange) -> Result<(), Failure> {
    let invalid = |message: &str| Err(Failure::new(Code::Invalid, message));
    if change.deployment_id.is_empty() || change.step_id.is_empty() {
        return invalid("the change has no deployment or no step");
    }
    match &change.spec {
        Some(wanted) => Ok(spec::check(wanted)?),
        None if change.replaces.is_empty() => invalid("the change has no container"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
