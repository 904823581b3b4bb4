//! Docker Compose files in, service specs and diagnostics out.
//!
//! Pure: texts and variables come in as a [`LoadRequest`], a resolved [`Project`] and
//! [`Diagnostic`]s with file, line and column come out. No Docker, no network, no clock, no
//! environment of its own; the one file a compose file may name (`env_file`) is read through
//! [`ReadFile`], which the caller provides. Which keys are honoured is one table in `schema`; the
//! loader and `docs/compose.md` both come from it.

mod canonical;
mod check;
mod comparison;
mod decode;
mod diagnostic;
mod document;
mod dotenv;
mod duration;
mod emit;
mod environment;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod honour;
mod implied;
mod interpolate;
mod ledger;
mod listing;
mod load;
mod merge;
mod name;
mod node;
mod parse;
mod project;
mod render;
mod report;
mod request;
mod reset;
mod scalar;
mod schema;
mod selection;
mod shell;
mod template;

pub use comparison::same_reading;
pub use diagnostic::{Diagnostic, Rule, Severity};
pub use emit::to_yaml;
pub use environment::environment;
pub use files::{DefaultFiles, default_files};
pub use interpolate::Variable;
pub use ledger::ledger;
pub use load::{load_with, variables};
pub use project::{Build, BuildContext, BuildSecret, LocalFile, LocalSource, Project, Service};
pub use render::{render, render_summary, render_within};
pub use request::{LoadRequest, Loaded, ReadFile, SourceFile};
pub use selection::own_name;
pub use template::{GitFacts, TemplateFacts};
