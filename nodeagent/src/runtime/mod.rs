//! Running containers: cgroups, OCI bundles and the one place that calls `libcontainer`.

pub(crate) mod cgroups;
pub(crate) mod launch;
pub(crate) mod rootfs;
pub(crate) mod terminal;
