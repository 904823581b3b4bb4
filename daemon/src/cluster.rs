//! The cluster as this machine knows it: the records, the connections to other machines, and what
//! users ask about them.

pub(crate) mod audience;
pub(crate) mod backup;
pub(crate) mod conflicts;
pub(crate) mod cordon;
pub(crate) mod deployments;
pub(crate) mod events;
pub(crate) mod examine;
pub(crate) mod executing;
pub(crate) mod history;
pub(crate) mod labels;
pub(crate) mod machines;
pub(crate) mod member;
pub(crate) mod neighbours;
pub(crate) mod peers;
pub(crate) mod readiness;
pub(crate) mod records;
pub(crate) mod view;
