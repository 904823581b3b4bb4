//! The JSON of a service's revisions.

use uc_api::v1;

use super::shape::{Show as _, shape};
use crate::times::rfc3339_ms;

shape! {
    /// `uc history`.
    pub(crate) struct History of v1::HistoryResponse {
        project: String,
        service: String,
        revisions: Vec<Revision>,
    }
}

shape! {
    struct Revision of v1::ServiceRevision {
        revision: String,
        current: bool,
        image: String,
        deployment: Option<String> = |revision| revision.deployment_id.show(),
        deployed_at: Option<String> = |revision| rfc3339_ms(revision.deployed_at_ms),
        fields: Vec<Field> = |revision| revision.changes.show(),
    }
}

shape! {
    /// A field that differs.
    pub(crate) struct Field of v1::FieldChange {
        field: String,
        old: Option<String>,
        new: Option<String>,
    }
}
