//! Deployments: plan (pure), then execute.
pub mod plan;
