//! Defaults as upstream sets them, a file for each family of kinds.
