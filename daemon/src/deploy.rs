//! Deployments: what `uc_planner` planned is carried out.

mod contents;
mod execute;
mod fleet;
pub(crate) mod lock;
mod look;
pub(crate) mod run;
mod undo;
