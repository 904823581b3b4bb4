//! The host side of the cluster network.
