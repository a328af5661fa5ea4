//! api of Trireme.
