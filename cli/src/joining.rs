//! The client side of joining a cluster.
