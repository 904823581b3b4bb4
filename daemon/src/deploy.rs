//! Deployments: what `uc_planner` planned is carried out.

mod contents;
mod execute;
mod fleet;
mod images;
mod journal;
pub(crate) mod lock;
mod look;
mod restore;
pub(crate) mod resume;
mod retire;
pub(crate) mod run;
mod undo;
