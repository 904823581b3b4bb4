//! A replicated record store, and a failure detector.
//!
//! The store knows kinds, keys and opaque bytes, not services. Every machine holds every record,
//! writes to its own disk and never waits for another machine. Machines that have exchanged
//! everything hold the same records. `docs/replication.md` has the rules.
//!
//! The pure core (`state`, `register`, `local`, `wire`, `session::Core`) has no clock and no
//! socket. Thin drivers surround it (`storage`, `writer`, `session::driver`, `membership::driver`).

mod clock;
mod error;
mod id;
mod kind;
mod local;
pub mod membership;
mod metrics;
mod op;
pub mod overlay;
#[cfg(any(test, feature = "fuzzing", feature = "simulation"))]
#[doc(hidden)]
pub mod proof;
mod register;
mod session;
mod shared_map;
mod snapshot;
mod state;
mod storage;
mod store;
mod vector;
mod watch;
mod wire;
mod writer;

pub use clock::{Clock, MAX_AHEAD_MS, Stamp, SystemClock};
pub use error::{TooManyOpaqueRecords, WriteError};
pub use id::{Actor, ClusterId, Dot, MachineId};
pub use kind::{Class, Kind, MAX_KEY, MAX_RECORD, MAX_TRANSACTION, RecordId};
pub use local::{Retention, Write};
pub use metrics::{COMMIT_BUCKETS_US, PeerStatus, Status};
pub use op::MAX_GROUPS;
pub use register::MAX_SIBLINGS;
pub use session::{Session, SessionEnd, SessionError};
pub use snapshot::{Conflict, Entry, Holder, Quarantined, Sibling, Snapshot};
pub use state::MemberStatus;
pub use storage::OpenError;
pub use store::{BackupDone, BackupError, DEFAULT_MAX_RATE, Options, Store};
pub use vector::VersionVector;
pub use watch::{Changed, StoreClosed, Watch};
pub use wire::{FRAME_TARGET, FrameError, MAX_FRAME};
pub use writer::Commit;
