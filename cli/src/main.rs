//! The `trireme` binary: composition root, admin commands and the kubectl-style verbs.

fn main() {}
