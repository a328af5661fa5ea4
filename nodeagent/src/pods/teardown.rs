//! Removing what a pod has on the machine.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::network::NetworkError;
use crate::pods::{Context, launch, resources};
use crate::shim::client::Shim;
use crate::shim::protocol::{CONTAINERS, STATE};

/// What is still there of a pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TearDownError {
    /// Mostly because processes in it do not die.
    #[error("cgroup {path} not removed: {source}")]
    Cgroup { path: String, source: io::Error },
    #[error("network not removed: {0}")]
    Network(#[from] NetworkError),
    #[error("interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Removes everything of a pod from the machine; repeated until its processes and its network are gone. Blocking parts
/// are short.
pub(crate) async fn tear_down(context: &Context, pod: &Pod, keep_volumes: bool) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let directory = context.pod_directory(&uid);
    let cgroups = [resources::pod_cgroup(&context.config.cgroup_root, pod)];
    let mut failures = 0_u32;
    while let Err(error) = remove_pod(context, &uid, &cgroups).await {
        tracing::warn!(%uid, %error, "a pod is not torn down yet");
        tokio::time::sleep(Duration::from_millis(250 << failures.min(6))).await;
        failures += 1;
    }
    let removed = match keep_volumes {
        true => [CONTAINERS, STATE].iter().try_for_each(|name| remove(&directory.join(name))),
        false => remove(&directory),
    };
    if let Err(error) = removed {
        tracing::warn!(%uid, %error, "pod directory not removed");
    }
}

/// Ends a pod's processes and takes its network away. Everything is tried, also if something fails.
pub(crate) async fn remove_pod(context: &Context, uid: &str, pod_cgroups: &[String]) -> Result<(), TearDownError> {
    let shim = Shim::at(&context.pod_directory(uid));
    if let Err(error) = shim.shut_down().await {
        // The end of its cgroup ends it.
        tracing::warn!(%uid, %error, "the pod's shim did not end by itself");
    }
    let mut cgroups = pod_cgroups.to_vec();
    cgroups.push(launch::shim_cgroup(context, uid));
    let all = context.cgroups.clone();
    let removed = tokio::task::spawn_blocking(move || {
        let mut result = Ok(());
        for path in cgroups {
            all.kill(&path);
            if let Err(source) = all.remove(&path) {
                result = Err(TearDownError::Cgroup { path, source });
            }
        }
        result
    });
    let removed = removed.await;
    context.network.detach(uid).await?;
    removed?
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
