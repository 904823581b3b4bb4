//! Proofs of the store's promises, on its own functions. `docs/replication.md` lists what each
//! covers. No part of what users run.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod convergence;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod model;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
