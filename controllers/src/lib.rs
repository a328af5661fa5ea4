//! The control loops that the leading master runs.
