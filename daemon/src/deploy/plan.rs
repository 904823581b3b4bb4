//! What would change, and why: pure.
