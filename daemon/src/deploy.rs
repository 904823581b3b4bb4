//! Deployments: plan (pure), then execute.

mod contents;
pub mod execute;
mod fleet;
mod lock;
mod look;
pub mod plan;
pub mod run;
mod undo;

pub(crate) use lock::Running;
