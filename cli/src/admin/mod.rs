//! Admin commands: `trireme token`, `trireme member`.
