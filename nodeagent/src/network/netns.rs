//! Work in another network namespace.
//!
//! A thread that has entered a namespace must never go back to a pool: every use has a thread of its own, which ends with
//! the work. Sockets keep the namespace that they were opened in, so that netlink can then be driven from anywhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

use super::NetworkError;

/// A network namespace: this process' own, or another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Netns(Option<Arc<OwnedFd>>);

impl Netns {
    /// The namespace at a path such as `/run/netns/x`; this process' own for `None`.
    pub fn open(path: Option<&Path>) -> Result<Self, NetworkError> {
        let open = |path: &Path| {
            let context = format!("cannot open network namespace {}", path.display());
            File::open(path).map_err(|source| NetworkError::Io { context, source })
        };
        Ok(Self(path.map(open).transpose()?.map(|file| Arc::new(OwnedFd::from(file)))))
    }

    /// The namespace behind a descriptor, which is duplicated.
    pub fn of(fd: impl AsFd) -> Result<Self, NetworkError> {
        let fd = fd.as_fd().try_clone_to_owned();
        fd.map(|fd| Self(Some(Arc::new(fd))))
            .map_err(|source| NetworkError::Io { context: "cannot keep a network namespace".into(), source })
    }

    /// Runs blocking work inside.
    pub async fn run<T: Send + 'static>(
        &self,
        context: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let namespace = self.0.clone();
        let task = tokio::task::spawn_blocking(move || match namespace {
            None => work(),
            Some(namespace) => {
                let inside = move || {
                    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
                    work()
                };
                let thread = std::thread::Builder::new().name("netns".into()).spawn(inside)?;
                thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
            }
        });
        let result = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|source| NetworkError::Io { context: context.to_owned(), source })
    }

    /// A netlink handle for the namespace. Its connection ends when the last handle is dropped.
    pub async fn netlink(&self) -> Result<rtnetlink::Handle, NetworkError> {
        let runtime = tokio::runtime::Handle::current();
        let connect = move || {
            let _runtime = runtime.enter();
            rtnetlink::new_connection()
        };
        let (connection, handle, _) = self.run("cannot open a netlink socket", connect).await?;
        tokio::spawn(connection);
        Ok(handle)
    }

    /// Writes network sysctls, given below `/proc/sys/net` with slashes.
    pub async fn sysctl(&self, settings: Vec<(String, &'static str)>) -> Result<(), NetworkError> {
        let write = move || {
            for (key, value) in settings {
                let path = format!("/proc/sys/net/{key}");
                // Unchanged ones are left alone: /proc/sys may be read-only for us, yet right.
                if std::fs::read_to_string(&path).is_ok_and(|old| old.trim() == value) {
                    continue;
                }
                std::fs::write(&path, value)
                    .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
            }
            Ok(())
        };
        self.run("cannot set a sysctl", write).await
    }
}
