//! chaos-tests of Trireme.
