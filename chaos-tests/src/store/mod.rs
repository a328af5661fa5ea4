//! The store without an API server above it: members as processes of their own (raftstore's test-only server), what
//! clients see of them, and how fast they are beside etcd.

pub mod bench;
