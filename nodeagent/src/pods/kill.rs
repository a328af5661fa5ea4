//! Stopping a container: its `preStop` hook, the signal, and after the grace period the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::pods::probes;
use crate::pods::{Context, PodView};
use crate::shim::client::Shim;

/// Longest time that is really waited; more, added to a time, could overflow.
const LONGEST: i64 = 10 * 365 * 24 * 3600;

/// A number of seconds that a user gave.
fn seconds(given: i64) -> Duration {
    Duration::from_secs(given.clamp(0, LONGEST).unsigned_abs())
}

/// Stops a container. Returns when everything was sent; that it ended comes as an exit from the shim.
pub(crate) async fn kill(
    context: Arc<Context>,
    view: Arc<PodView>,
    container: Container,
    id: String,
    grace: i64,
    stop_signal: i32,
) {
    let deadline = Instant::now() + seconds(grace);
    let shim = view.shim();
    if grace > 0 {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(hook) = hook {
            let done = timeout_at(deadline, run_hook(&shim, &view.pod, &container, &id, hook)).await;
            let failure = match done {
                Ok(Ok(())) => None,
                Ok(Err(message)) => Some(message),
                Err(_) => Some("it did not end within the grace period".to_owned()),
            };
            if let Some(message) = failure {
                let message = format!("PreStopHook failed: {message}");
                context.emit(&view.pod, Some((&container.name, false)), true, "FailedPreStopHook", &message);
            }
        }
        // Gone already, or about to be: then the exit is on its way.
        let _ = shim.signal(&id, stop_signal).await;
        let least = Instant::now() + Duration::from_secs(2);
        sleep_until(deadline.max(least.min(deadline + Duration::from_secs(2)))).await;
    }
    let _ = shim.signal(&id, Signal::SIGKILL as i32).await;
}

/// Runs a lifecycle hook to its end.
pub(crate) async fn run_hook(
    shim: &Shim,
    pod: &Pod,
    container: &Container,
    id: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let (code, output) = exec_to_end(shim, id, exec.command.clone().unwrap_or_default()).await?;
        return match code {
            0 => Ok(()),
            code => Err(format!("command exited with {code}: {output}")),
        };
    }
    if let Some(http) = &hook.http_get {
        return probes::http_get(pod, container, http).await.map(drop);
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(seconds(sleep.seconds)).await;
    }
    Ok(())
}

/// Runs a command in a container; returns its exit status and the beginning of what it wrote.
pub(crate) async fn exec_to_end(shim: &Shim, id: &str, command: Vec<String>) -> Result<(i32, String), String> {
    use nix::fcntl::OFlag;
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe::Receiver;

    let text = |error: std::io::Error| error.to_string();
    let null = OwnedFd::from(std::fs::File::open("/dev/null").map_err(text)?);
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| errno.to_string())?;
    let errors = write_end.try_clone().map_err(text)?;
    let read_end = Receiver::from_owned_fd(read_end).map_err(text)?;
    let mut process = shim.exec(id, command, [null, write_end, errors]).await.map_err(|error| error.to_string())?;
    let mut output = Vec::new();
    let mut limited = read_end.take(10 << 10);
    let read = async {
        let _ = limited.read_to_end(&mut output).await;
        // The rest is of no interest, but the process must not block on it.
        let mut rest = limited.into_inner();
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let code = tokio::select! {
        biased;
        code = process.wait() => code,
        () = read => process.wait().await,
    };
    let code = code.map_err(|error| error.to_string())?;
    Ok((code, String::from_utf8_lossy(&output).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_seconds_can_be_waited() {
        assert_eq!([seconds(-1), seconds(30)], [Duration::ZERO, Duration::from_secs(30)]);
        assert!(std::time::Instant::now().checked_add(seconds(i64::MAX)).is_some());
    }
}
