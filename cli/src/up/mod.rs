//! Local clusters: `trireme up`, `down`, `status`.
