//! The scheduler that the leading master runs.
