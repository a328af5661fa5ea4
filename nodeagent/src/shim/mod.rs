//! The shim: one small single-threaded process per pod, which is the parent of the pod's containers.
//!
//! It lives on when the agent dies: it holds the pod's namespaces, owns log pipes and terminals, reaps every
//! process and writes exit records. The agent starts it and later finds it again by its socket.

#[doc(hidden)]
pub mod client;
mod containers;
mod helper;
mod logs;
pub(crate) mod packet;
#[doc(hidden)]
pub mod protocol;
mod sandbox;
mod server;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// True if the program was started to be a shim. Then [`main`] must be called at once.
pub fn is_shim(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|arg| arg == "shim")
}

/// Runs the shim; never returns. To be called before the program starts any thread.
///
/// The arguments are `trireme shim <pod directory>`. The first line on standard output is `ready`, or what failed.
pub fn main(args: &[OsString]) -> ! {
    let Some(directory) = args.get(2).map(PathBuf::from) else {
        eprintln!("usage: trireme shim <pod directory>");
        std::process::exit(64)
    };
    match start(&directory) {
        Ok(server) => {
            let _ = std::io::stdout().write_all(b"ready\n");
            // The agent waits for the end of this stream; nothing may keep it open.
            if let Err(error) = detach_stdio() {
                eprintln!("{error}");
            }
            std::process::exit(server.serve())
        }
        Err(error) => {
            println!("{error}");
            eprintln!("shim of {}: {error}", directory.display());
            std::process::exit(1)
        }
    }
}

fn start(directory: &Path) -> std::io::Result<server::Server> {
    std::env::set_current_dir(directory)?;
    let text = std::fs::read(protocol::SHIM_FILE)?;
    let pod: protocol::PodShim = serde_json::from_slice(&text)?;
    if pod.version > protocol::VERSION {
        return Err(std::io::Error::other(format!("the agent speaks version {} of the shim's protocol", pod.version)));
    }
    server::Server::start(directory.to_owned(), pod)
}

fn detach_stdio() -> std::io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}
