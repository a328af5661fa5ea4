//! Joining of masters and nodes.
