//! Changes of replicas: a new container, the end of one, or one for the other. Each is one durable
//! operation of this machine. It runs in a task of its own, so it does not end when its caller
//! goes; the journal has it before anything is done, so it does not end with the daemon either.
//!
//! A change is known by its deployment and step. The container that a change replaces is stopped
//! and kept until the deployment ends ([`NodeService::settle`]), so a deployment that fails is
//! undone by starting it again ([`NodeService::undo_from`]). A new container that failed is
//! kept for its logs until the next deployment of its service.

mod carry_out;
mod journal;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uc_api::v1::{
    ApplyEvent, ChangeEnded, ChangeRecord, ChangeStage, Kept, ReplicaChange, apply_event,
};
use uc_api::{Code, Failure};

use self::carry_out::Work;
use self::journal::{Journal, Saved};
use super::{Marks, NodeService, Replies};
use crate::engine::{Container, spec};

/// The other machines, as far as a change has to wait for them.
#[async_trait]
pub(crate) trait Audience: std::fmt::Debug + Send + Sync {
    /// Waits until the machines that are up have everything that this machine has published.
    /// Returns the names of those that do not have it after a short time.
    async fn seen(&self) -> Vec<String>;

    /// Whether a deployment is known to have ended.
    fn has_ended(&self, deployment: &str) -> bool;
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
    /// Cancelled when the change is to be undone while it is being carried out.
    back: CancellationToken,
    /// A task works on it. Changed only while the record is locked.
    working: AtomicBool,
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
            // Nobody works on it yet.
            ChangeStage::Forward | ChangeStage::Backward | ChangeStage::Unspecified => {
                Doing::Running(String::new())
            }
        };
        Arc::new(Self {
            record: saved,
            doing: watch::Sender::new(doing),
            back: CancellationToken::new(),
            working: AtomicBool::new(false),
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
        None => Failure::new(Code::Refused, "the change was undone"),
    }
}

impl Changes {
    /// Reads the journal in this directory, and marks what is kept.
    pub(crate) fn open(directory: &Path, marks: &Marks) -> Result<Self, Failure> {
        let (journal, records) = Journal::read(directory)?;
        for saved in &records {
            let record = saved.lock();
            mark_kept(marks, &record);
            // The earlier process may have ended before it knew whether the replica serves.
            let started = record.stage() == ChangeStage::Forward && !record.container_id.is_empty();
            if started && !change(&record).no_wait {
                marks.starting(&record.container_id);
            }
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

    /// Whether a change is in the journal.
    fn knows(&self, change: &ReplicaChange) -> bool {
        lock(&self.entries).contains_key(&key(change))
    }

    /// The entry of a change. A new one begins in this stage.
    fn enter(&self, change: &ReplicaChange, stage: ChangeStage) -> Result<Arc<Entry>, Failure> {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(&key(change)) {
            if entry.change() != *change {
                let message = format!("step {} of this deployment is another one", change.step_id);
                return Err(Failure::new(Code::Refused, message));
            }
            return Ok(Arc::clone(entry));
        }
        let record = ChangeRecord {
            change: Some(change.clone()),
            stage: stage.into(),
            ..ChangeRecord::default()
        };
        let entry = Entry::new(self.journal.saved(change, record));
        entries.insert(key(change), Arc::clone(&entry));
        Ok(entry)
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    /// The stages of the changes of a deployment, each with its change.
    pub(crate) fn stages(&self, deployment: &str) -> Vec<(ChangeStage, ReplicaChange)> {
        let entries = lock(&self.entries);
        let of_it = entries.iter().filter(|((of, _), _)| of == deployment);
        of_it
            .map(|(_, entry)| {
                let record = entry.record();
                (record.stage(), change(&record).clone())
            })
            .collect()
    }

    /// Whether a container that was never started belongs to a change that is under way, or is the
    /// one that its change made.
    fn expects(&self, container: &Container) -> bool {
        lock(&self.entries).values().any(|entry| {
            let record = entry.record.lock();
            let under_way = matches!(record.stage(), ChangeStage::Forward | ChangeStage::Backward);
            step_label(change(&record)) == container.step
                && (under_way || record.container_id == container.record.container_id)
        })
    }

    /// The changes whose new containers failed and are kept for their logs.
    pub(crate) fn failed(&self) -> Vec<ReplicaChange> {
        let records = self.all().into_iter().map(|entry| entry.record());
        let failed = records.filter(|record| record.stage() == ChangeStage::Failed);
        failed.filter_map(|record| record.change).collect()
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
    /// Continues the changes that an earlier process of this daemon was taking back. One that was
    /// going forward waits until its deployment asks again, or until its end is known: it may have
    /// been undone since, and what it starts could change data.
    pub(crate) fn resume_changes(&self) {
        for entry in self.changes.all() {
            if entry.record.lock().stage() == ChangeStage::Backward {
                let ReplicaChange { step_id, .. } = entry.change();
                tracing::info!(step = step_id, "continuing to take a change back");
                self.spawn_change(&entry);
            }
        }
    }

    /// Carries out a change, or joins it, and streams its progress.
    pub(crate) fn apply_from(
        &self,
        change: &ReplicaChange,
    ) -> Result<Replies<ApplyEvent>, Failure> {
        self.identity()?;
        check(change)?;
        self.refuse_foreign(change)?;
        // The call was delayed on its way, and its deployment counts this step as failed.
        if !self.changes.knows(change) && self.has_ended(&change.deployment_id) {
            let message = format!("deployment {} has ended", change.deployment_id);
            return Err(Failure::new(Code::Refused, message));
        }
        let entry = self.changes.enter(change, ChangeStage::Forward)?;
        let stage = entry.record.lock().stage();
        match stage {
            ChangeStage::Forward => self.spawn_change(&entry),
            ChangeStage::Backward | ChangeStage::Undone => {
                return Err(Failure::new(Code::Refused, "the change was undone"));
            }
            ChangeStage::Done | ChangeStage::Failed | ChangeStage::Unspecified => {}
        }
        Ok(self.follow(entry, false))
    }

    /// Takes a change back, and streams its progress.
    pub(crate) fn undo_from(&self, change: &ReplicaChange) -> Result<Replies<ApplyEvent>, Failure> {
        self.identity()?;
        check(change)?;
        self.refuse_foreign(change)?;
        let entry = self.changes.enter(change, ChangeStage::Backward)?;
        {
            let mut record = entry.record.lock();
            match record.stage() {
                ChangeStage::Forward if entry.working.load(Ordering::SeqCst) => entry.back.cancel(),
                // A change that failed restored what it replaced, but something that shares a
                // namespace with it may have changed since.
                ChangeStage::Forward | ChangeStage::Done | ChangeStage::Failed => {
                    record.set_stage(ChangeStage::Backward);
                }
                ChangeStage::Backward | ChangeStage::Undone | ChangeStage::Unspecified => {}
            }
        }
        if entry.record.lock().stage() == ChangeStage::Backward {
            self.spawn_change(&entry);
        }
        Ok(self.follow(entry, true))
    }

    /// Has a task work on a change, unless one does.
    fn spawn_change(&self, entry: &Arc<Entry>) {
        {
            let _record = entry.record.lock();
            if entry.working.swap(true, Ordering::SeqCst) {
                return;
            }
            entry.doing.send_replace(Doing::Running(String::new()));
        }
        let (node, entry) = (self.clone(), Arc::clone(entry));
        self.tasks.spawn(async move {
            let work = Work::new(&node, &entry);
            loop {
                // The journal has what was done, and the next process continues.
                let ended = tokio::select! {
                    ended = work.to_end() => ended,
                    () = node.cancel.cancelled() => return,
                };
                let record = entry.record.lock();
                // It was undone in the moment in which it ended.
                if ended.is_ok() && record.stage() == ChangeStage::Backward {
                    continue;
                }
                entry.working.store(false, Ordering::SeqCst);
                entry.doing.send_replace(Doing::Ended(ended));
                return;
            }
        });
    }

    /// Refuses a change of a service whose project another deployment has by now. This one lost it
    /// while its machine was cut off.
    fn refuse_foreign(&self, change: &ReplicaChange) -> Result<(), Failure> {
        let now = tokio::time::Instant::now();
        self.leases
            .refuse_foreign(&change.project, &change.deployment_id, now)
    }

    /// What happens to a change until its end. For who takes it back, a change that failed, and so
    /// was undone already, is a success.
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
}

/// The value of the label on the container that the change creates.
fn step_label(change: &ReplicaChange) -> String {
    format!("{}/{}", change.deployment_id, change.step_id)
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
