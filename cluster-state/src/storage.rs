//! The SQLite file: the live changes, the version vector, and the store's identity. One thread uses
//! it.
//!
//! WAL, exclusive lock, STRICT tables. A `durable` commit is on the disk when it returns. Other
//! commits survive a killed process but not a power cut, which is why each unclean shutdown starts
//! a new incarnation. Besides the live changes, the file has some that others have replaced
//! (`leftovers`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::id::{Actor, ClusterId, MAX_COUNTER, MachineId};
use crate::kind::Kind;
use crate::op::Op;
use crate::state::{Changes, Fate, State};
use crate::vector::VersionVector;

mod leftovers;
pub(crate) use leftovers::Leftovers;

/// `PRAGMA user_version` of the files that this version writes.
const FORMAT: i64 = 2;
/// How long to wait for an earlier process to release the file.
const BUSY: Duration = Duration::from_secs(3);

const SCHEMA: &str = "
CREATE TABLE store (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  cluster BLOB NOT NULL, machine BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  opened INTEGER NOT NULL,
  hlc INTEGER NOT NULL,
  -- The identity of the file at a clean shutdown, else NULL: a copy of it is another file.
  clean TEXT
) STRICT;
CREATE TABLE actors (
  id INTEGER PRIMARY KEY, machine BLOB NOT NULL, incarnation INTEGER NOT NULL, complete INTEGER NOT NULL,
  cut INTEGER NOT NULL,
  UNIQUE (machine, incarnation)
) STRICT;
CREATE TABLE ops (
  actor INTEGER NOT NULL, version INTEGER NOT NULL, kind INTEGER NOT NULL, class INTEGER NOT NULL,
  key TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (actor, version)
) STRICT, WITHOUT ROWID;
";

/// Why the store cannot be opened. Nothing was changed, except where the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the file.
    #[error("store {path} is in use by another process")]
    InUse { path: PathBuf },
    /// The file is damaged. `Store::open` moves it aside and starts with an empty one, which the
    /// other machines fill.
    #[error(
        "store {path} is damaged: {reason}; move it away, and the other machines fill a new one"
    )]
    Corrupt { path: PathBuf, reason: String },
    /// The file belongs to another cluster.
    #[error("store {path} belongs to cluster {found}, not {wanted}")]
    OtherCluster {
        path: PathBuf,
        /// The cluster in the file.
        found: ClusterId,
        /// The requested cluster.
        wanted: ClusterId,
    },
    /// The file belongs to another machine. This happens with a copied disk image.
    #[error("store {path} belongs to machine {found}, not {wanted}")]
    OtherMachine {
        path: PathBuf,
        /// The machine in the file.
        found: MachineId,
        /// The requested machine.
        wanted: MachineId,
    },
    /// A newer version wrote the file.
    #[error(
        "store {path} has format {found}, but this version reads formats up to {FORMAT}: upgrade ucd"
    )]
    Newer { path: PathBuf, found: i64 },
    /// The file is damaged and cannot be moved aside.
    #[error("cannot move damaged store {path} aside: {source}")]
    SetAside {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A version before the first release wrote the file.
    #[error(
        "store {path} has format {found}, which is no longer supported: move it away, and the other machines fill a new one"
    )]
    Older { path: PathBuf, found: i64 },
    /// Kinds from 0xff00 on belong to the store itself.
    #[error("kind {kind} is reserved")]
    ReservedKind { kind: u16 },
    /// The disk is full.
    #[error("no space left for store {path}")]
    DiskFull { path: PathBuf },
    /// The file cannot be read or written.
    #[error("cannot open store {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the writer of store {path}: {source}")]
    Thread {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A commit failed and left nothing behind.
#[derive(Debug)]
pub(crate) enum CommitError {
    DiskFull,
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for CommitError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            Self::DiskFull
        } else {
            Self::Other(error)
        }
    }
}

/// What a file contains.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) me: Actor,
    /// How often this file was opened.
    pub(crate) opened: u64,
    pub(crate) hlc: u64,
    pub(crate) vector: VersionVector,
    pub(crate) gc_watermarks: VersionVector,
    pub(crate) ops: Vec<Arc<Op>>,
}

#[derive(Debug)]
pub(crate) struct Storage {
    connection: Connection,
    path: PathBuf,
    durable: bool,
    leftovers: Leftovers,
}

/// The cluster and machine that the file must belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) machine: MachineId,
    pub(crate) kinds: &'static [Kind],
}

impl Storage {
    /// Opens or creates the file. Unless it was closed cleanly, starts a new incarnation, `stride`
    /// above the last. `max_pages` counts pages of 4 KiB; 0 means no limit.
    pub(crate) fn open(
        path: &Path,
        owner: Owner,
        stride: u64,
        max_pages: u64,
    ) -> Result<(Self, Loaded), OpenError> {
        let fail = |source| open_error(path, source);
        let connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        connection
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .map_err(fail)?;
        let format: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(fail)?;
        if format > FORMAT {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found: format,
            });
        }
        if format != 0 && format < FORMAT {
            return Err(OpenError::Older {
                path: path.to_owned(),
                found: format,
            });
        }
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .map_err(fail)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(fail)?;
        if max_pages > 0 {
            connection
                .pragma_update_and_check(None, "max_page_count", max_pages as i64, |_| Ok(()))
                .map_err(fail)?;
        }
        let mut storage = Self {
            connection,
            path: path.to_owned(),
            durable: true,
            leftovers: Leftovers::default(),
        };
        let loaded = storage.load(owner, stride)?;
        Ok((storage, loaded))
    }

    fn load(&mut self, owner: Owner, stride: u64) -> Result<Loaded, OpenError> {
        let path = self.path.clone();
        let fail = |source| open_error(&path, source);
        let file = file_identity(&path);
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(fail)?;
        let format: i64 = tx
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(fail)?;
        if format == 0 {
            tx.execute_batch(SCHEMA).map_err(fail)?;
            tx.pragma_update(None, "user_version", FORMAT)
                .map_err(fail)?;
            tx.execute(
                "INSERT INTO store (id, cluster, machine, incarnation, opened, hlc, clean) VALUES (1, ?1, ?2, 0, 0, 0, NULL)",
                params![owner.cluster.0, owner.machine.0],
            )
            .map_err(fail)?;
        }
        let check: String = tx
            .pragma_query_value(None, "quick_check", |row| row.get(0))
            .map_err(fail)?;
        if check != "ok" {
            return Err(OpenError::Corrupt {
                path,
                reason: check,
            });
        }
        let row = tx
            .query_row(
                "SELECT cluster, machine, incarnation, opened, hlc, clean FROM store",
                [],
                |row| {
                    Ok((
                        ClusterId(row.get(0)?),
                        MachineId(row.get(1)?),
                        row.get::<_, i64>(2)? as u64,
                        row.get::<_, i64>(3)? as u64,
                        row.get::<_, i64>(4)? as u64,
                        row.get::<_, Option<String>>(5)?,
                    ))
                },
            )
            .optional()
            .map_err(fail)?;
        let Some((cluster, machine, incarnation, opened, hlc, clean)) = row else {
            return Err(OpenError::Corrupt {
                path,
                reason: "its owner is missing".to_owned(),
            });
        };
        if cluster != owner.cluster {
            return Err(OpenError::OtherCluster {
                path,
                found: cluster,
                wanted: owner.cluster,
            });
        }
        if machine != owner.machine {
            return Err(OpenError::OtherMachine {
                path,
                found: machine,
                wanted: owner.machine,
            });
        }
        let kept = incarnation > 0 && clean.is_some() && clean == file;
        let incarnation = if kept {
            incarnation
        } else {
            incarnation.saturating_add(stride.max(1))
        };
        let opened = opened + 1;
        tx.execute(
            "UPDATE store SET incarnation = ?1, opened = ?2, clean = NULL",
            params![incarnation as i64, opened as i64],
        )
        .map_err(fail)?;
        let (vector, gc_watermarks, ops) = read_ops(&tx, owner.kinds, &path)?;
        tx.commit().map_err(fail)?;
        Ok(Loaded {
            me: Actor {
                machine,
                incarnation,
            },
            opened,
            hlc,
            vector,
            gc_watermarks,
            ops,
        })
    }

    /// Writes a transaction as a whole or not at all.
    pub(crate) fn commit(
        &mut self,
        me: Actor,
        hlc: u64,
        changes: &Changes,
        durable: bool,
    ) -> Result<(), CommitError> {
        if self.durable != durable {
            let mode = if durable { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", mode)?;
            self.durable = durable;
        }
        let remove = self.leftovers.are_due(changes);
        let removed = match self.write(me, hlc, changes, remove) {
            // On a full disk, make room by removing the leftovers.
            Err(CommitError::DiskFull) if !remove && !self.leftovers.is_empty() => {
                self.write(me, hlc, changes, true).map(|()| true)
            }
            written => written.map(|()| remove),
        }?;
        self.leftovers.committed(changes, removed);
        Ok(())
    }

    /// Writes one transaction. With `remove`, it also removes what is left of replaced changes.
    fn write(
        &mut self,
        me: Actor,
        hlc: u64,
        changes: &Changes,
        remove: bool,
    ) -> Result<(), CommitError> {
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        write_changes(&tx, me, hlc, changes, remove.then_some(&self.leftovers))?;
        tx.commit()?;
        Ok(())
    }

    /// Replaces the stored state with another one, as a whole or not at all.
    pub(crate) fn replace(&mut self, state: &State) -> Result<(), CommitError> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        self.durable = true;
        let changes = Changes {
            ops: state
                .ops()
                .map(|op| (op.dot, Fate::Kept(Arc::clone(op))))
                .collect(),
            complete: state.watermarks().collect(),
            gc_watermarks: state.gc_watermarks().collect(),
            ..Changes::default()
        };
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        tx.execute_batch("DELETE FROM ops; DELETE FROM actors;")?;
        write_changes(&tx, state.me(), state.hlc.last(), &changes, None)?;
        tx.commit()?;
        self.leftovers.clear();
        Ok(())
    }

    /// Writes a compact copy of the file, as of the last commit. A store that opens the copy
    /// continues as a new incarnation.
    pub(crate) fn backup(&self, to: &Path) -> Result<(), CommitError> {
        let name = to.to_string_lossy();
        self.connection.execute("VACUUM INTO ?1", params![name])?;
        Ok(())
    }

    /// Returns the size of the file without its log.
    pub(crate) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Marks a clean shutdown and closes the file.
    pub(crate) fn close(self, me: Actor, hlc: u64) -> Result<(), CommitError> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        // First move everything into the file, then mark that it is complete.
        self.connection
            .pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))?;
        self.connection.execute(
            "UPDATE store SET clean = ?1, incarnation = ?2, hlc = ?3",
            params![file_identity(&self.path), me.incarnation as i64, hlc as i64],
        )?;
        self.connection.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}

/// Writes changes. With `leftovers`, removes them and what these changes replace.
fn write_changes(
    tx: &rusqlite::Transaction<'_>,
    me: Actor,
    hlc: u64,
    changes: &Changes,
    leftovers: Option<&Leftovers>,
) -> rusqlite::Result<()> {
    let mut find =
        tx.prepare_cached("SELECT id FROM actors WHERE machine = ?1 AND incarnation = ?2")?;
    let mut make = tx.prepare_cached(
        "INSERT INTO actors (machine, incarnation, complete, cut) VALUES (?1, ?2, 0, 0) RETURNING id",
    )?;
    let mut ids = std::collections::BTreeMap::new();
    let mut id_of = |actor: Actor| -> rusqlite::Result<i64> {
        if let Some(id) = ids.get(&actor) {
            return Ok(*id);
        }
        let key = params![actor.machine.0, actor.incarnation as i64];
        let known = find.query_row(key, |row| row.get(0)).optional()?;
        let id = match known {
            Some(id) => id,
            None => make.query_row(key, |row| row.get(0))?,
        };
        ids.insert(actor, id);
        Ok(id)
    };
    let mut put = tx.prepare_cached(
        "INSERT OR REPLACE INTO ops (actor, version, kind, class, key, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut delete =
        tx.prepare_cached("DELETE FROM ops WHERE actor = ?1 AND version BETWEEN ?2 AND ?3")?;
    // Remove rows first, so that the new ones can use their space.
    if let Some(leftovers) = leftovers {
        let gone = changes
            .ops
            .iter()
            .filter(|(_, fate)| !matches!(fate, Fate::Kept(_)));
        let gone = leftovers::runs(gone.map(|(dot, _)| *dot));
        for (first, last) in leftovers.runs().into_iter().chain(gone) {
            delete.execute(params![
                id_of(first.actor)?,
                first.version as i64,
                last as i64
            ])?;
        }
    }
    for (dot, fate) in &changes.ops {
        if let Fate::Kept(op) = fate {
            let key = params![
                id_of(dot.actor)?,
                dot.version as i64,
                op.kind,
                op.class,
                &*op.key,
                &*op.body
            ];
            put.execute(key)?;
        }
    }
    let mut advance = tx.prepare_cached("UPDATE actors SET complete = ?2 WHERE id = ?1")?;
    for (actor, version) in &changes.complete {
        advance.execute(params![id_of(*actor)?, *version as i64])?;
    }
    let mut forget = tx.prepare_cached("UPDATE actors SET cut = ?2 WHERE id = ?1")?;
    for (actor, version) in &changes.gc_watermarks {
        forget.execute(params![id_of(*actor)?, *version as i64])?;
    }
    tx.prepare_cached("UPDATE store SET hlc = ?1, incarnation = ?2")?
        .execute(params![hlc as i64, me.incarnation as i64])?;
    Ok(())
}

fn read_ops(
    tx: &rusqlite::Transaction<'_>,
    kinds: &[Kind],
    path: &Path,
) -> Result<(VersionVector, VersionVector, Vec<Arc<Op>>), OpenError> {
    let fail = |source| open_error(path, source);
    let mut actors = std::collections::HashMap::new();
    let (mut vector, mut gc_watermarks) = (VersionVector::default(), VersionVector::default());
    let mut select = tx
        .prepare("SELECT id, machine, incarnation, complete, cut FROM actors")
        .map_err(fail)?;
    let mut rows = select.query([]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let read = || -> rusqlite::Result<_> {
            let actor = Actor {
                machine: MachineId(row.get(1)?),
                incarnation: row.get::<_, i64>(2)? as u64,
            };
            Ok((
                row.get::<_, i64>(0)?,
                actor,
                row.get::<_, i64>(3)? as u64,
                row.get::<_, i64>(4)? as u64,
            ))
        };
        let (id, actor, complete, gc_watermark) = read().map_err(fail)?;
        actors.insert(id, actor);
        vector.raise(actor, complete);
        gc_watermarks.raise(actor, gc_watermark);
    }
    let mut ops = Vec::new();
    let mut select = tx
        .prepare("SELECT actor, version, kind, class, key, body FROM ops")
        .map_err(fail)?;
    let mut rows = select.query([]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let read = || -> rusqlite::Result<_> {
            let key: Arc<str> = Arc::from(row.get_ref(4)?.as_str()?);
            let body = Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?);
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)? as u64,
                row.get(2)?,
                row.get(3)?,
                key,
                body,
            ))
        };
        let (actor, version, kind, class, key, body) = read().map_err(fail)?;
        let actor = actors
            .get(&actor)
            .copied()
            .filter(|_| version < MAX_COUNTER);
        let Some(actor) = actor else {
            return Err(OpenError::Corrupt {
                path: path.to_owned(),
                reason: "a change without an actor".to_owned(),
            });
        };
        ops.push(Arc::new(Op::decode(
            actor.dot(version),
            kind,
            class,
            key,
            body,
            kinds,
        )));
    }
    Ok((vector, gc_watermarks, ops))
}

/// Moves a damaged file and SQLite's companion files aside. Deletes nothing.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let free = (1..=1_000)
        .map(|n| with(path, &format!(".damaged-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| with(path, ".damaged"));
    for suffix in ["-wal", "-shm", ""] {
        let from = with(path, suffix);
        if from.exists() {
            std::fs::rename(&from, with(&free, suffix))
                .map_err(|source| OpenError::SetAside { path: from, source })?;
        }
    }
    Ok(free)
}

/// Device and inode. A file that was copied or restored is not the one that was closed.
fn file_identity(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path)
        .ok()
        .map(|meta| format!("{}:{}", meta.dev(), meta.ino()))
}

fn open_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match (&source, source.sqlite_error_code()) {
        (_, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => OpenError::InUse { path },
        (_, Some(ErrorCode::DiskFull)) => OpenError::DiskFull { path },
        (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        | (
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..),
            _,
        ) => OpenError::Corrupt {
            path,
            reason: source.to_string(),
        },
        _ => OpenError::Io { path, source },
    }
}
