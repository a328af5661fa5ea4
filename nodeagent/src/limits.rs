//! The limit of open files. The agent and its shims raise theirs as far as they may; containers get the one that the agent was
//! started with, as under upstream's runtimes.

use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Tells a shim the limit that its containers get.
pub(crate) const VARIABLE: &str = "TRIREME_NOFILE";

/// The soft limit that this process was started with.
static FIRST: OnceLock<u64> = OnceLock::new();

/// Raises this process's soft limit to the hard one.
pub(crate) fn raise() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    FIRST.get_or_init(|| soft);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// For containers: the soft limit before it was raised, if it was.
pub(crate) fn first() -> Option<u64> {
    FIRST.get().copied()
}

/// In a shim's child: lowers the soft limit to what the agent has told.
pub(crate) fn restore() -> io::Result<()> {
    let told = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    told.map_or(Ok(()), lower)
}

fn lower(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_limit_is_raised_and_the_first_one_remembered() {
        let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(first(), None);
        raise().unwrap();
        raise().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        assert_eq!(first(), Some(before));
        lower(before).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (before, hard));
        lower(u64::MAX).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
