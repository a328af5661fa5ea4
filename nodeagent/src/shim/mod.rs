//! The shim: one small single-threaded process per pod, which is the parent of the pod's containers.

use std::ffi::OsString;

/// True if the program was started to be a shim. Then [`main`] must be called at once.
pub fn is_shim(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|arg| arg == "shim")
}

/// Runs the shim; never returns. To be called before the program starts any thread.
pub fn main(args: &[OsString]) -> ! {
    let _ = args;
    std::process::exit(64)
}
