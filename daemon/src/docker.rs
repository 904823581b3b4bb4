//! The Docker engine of this machine.
