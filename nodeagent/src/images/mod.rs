//! Image store: import, pull, unpack.
