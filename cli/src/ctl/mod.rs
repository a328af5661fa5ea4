//! kubectl-style verbs (`trictl`).

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `trictl` with the arguments after the program's name, on a runtime of its own.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
