//! What members say to each other: HTTP/2 over mutual TLS on persistent connections.
//!
//! Each member keeps several connections to each other one, by kind of traffic, so that a heartbeat waits neither
//! behind entries nor behind a snapshot. Every request names the lineage, the sender and whom it is meant for.

pub(crate) mod frames;
pub(crate) mod incoming;
pub(crate) mod peers;
pub(crate) mod pulse;
pub(crate) mod server;
pub(crate) mod snapshots;
pub(crate) mod tls;
pub(crate) mod wire;

/// Header with the lineage of the sender's data.
const LINEAGE_HEADER: &str = "trireme-lineage";
/// Header of a refusal: how long ago the lineage of the sender was left for this one, in milliseconds. Clocks of different
/// machines are not compared.
const SUCCESSION_HEADER: &str = "trireme-succeeded-ago";
/// Header with the id of the sender.
const FROM_HEADER: &str = "trireme-from";
/// Header with the id of the member that is meant.
const TO_HEADER: &str = "trireme-to";
/// Header with the kind of traffic that the request belongs to.
const LANE_HEADER: &str = "trireme-lane";
