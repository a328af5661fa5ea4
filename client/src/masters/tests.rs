//! Tests of fail-over against local TLS servers, one dead, one hanging, one without quorum.
