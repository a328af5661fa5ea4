//! `trictl run -i`: makes a pod, attaches to it, and ends as its container ends.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::super::api::Call;
use super::super::attach::{self, AttachArgs};
use super::super::errors::{CtlError, Result};
use super::super::print::emit;
use super::super::session::Session;
use super::super::targets::{self, Target};
use super::super::time;
use super::RunArgs;

const PAUSE: Duration = Duration::from_millis(100);

/// Makes the objects, runs the session, and with `--rm` deletes them, however the session ended.
pub async fn run(session: &Session, args: &RunArgs, pod: Value, service: Option<Value>) -> Result<()> {
    let mut made = Vec::new();
    let outcome = session_of(session, args, pod, service, &mut made).await;
    let mut failures: Vec<CtlError> = Vec::new();
    if args.rm {
        for target in &made {
            if let Err(error) = delete(session, target, args.quiet).await {
                failures.push(error);
            }
        }
    }
    let ended = outcome?;
    CtlError::gather(failures)?;
    ended.map_or(Ok(()), |pod| verdict(&pod))
}

/// The answer is the pod that has ended, if its end was waited for.
async fn session_of(
    session: &Session,
    args: &RunArgs,
    pod: Value,
    service: Option<Value>,
    made: &mut Vec<Target>,
) -> Result<Option<Value>> {
    let target = create(session, pod).await?;
    made.push(target.clone());
    if let Some(service) = service {
        let service = create(session, service).await?;
        emit(&format!("{} created\n", service.label()))?;
        made.push(service);
    }
    let timeout = time::duration(&args.pod_running_timeout).map_err(CtlError::Usage)?;
    let (deadline, name) = (Instant::now() + timeout, args.name());
    let object = wait(session, &target, deadline, |pod| is_completed(pod) || is_running(pod)).await?;
    if is_completed(&object) {
        logs(session, &target, name).await?;
    } else {
        let attach = AttachArgs { stdin: args.stdin, tty: args.tty, quiet: args.quiet, ..AttachArgs::default() };
        if let Err(error) = attach::to(session, &target, &object, name, &attach).await {
            let text = error.text();
            let text = text.trim().trim_start_matches("error: ");
            eprintln!("warning: couldn't attach to pod/{name}, falling back to streaming logs: {text}");
            logs(session, &target, name).await?;
        }
    }
    if args.leave_stdin_open || args.restart == "Always" {
        return Ok(None);
    }
    let ended = |pod: &Value| match args.restart.as_str() {
        "OnFailure" => pod["status"]["phase"] == "Succeeded",
        _ => is_completed(pod),
    };
    wait(session, &target, Instant::now() + timeout, ended).await.map(Some)
}

/// What the container's end means for this process.
fn verdict(pod: &Value) -> Result<()> {
    if pod["status"]["phase"] == "Succeeded" {
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    match terminated["exitCode"].as_u64() {
        None | Some(0) => Err(CtlError::plain(format!("pod {namespace}/{name} failed with unknown exit code"))),
        Some(code) => {
            let (reason, message) = (text(&terminated["reason"]), text(&terminated["message"]));
            let said = format!("pod {namespace}/{name} terminated ({reason})\n{message}");
            eprintln!("{}", said.trim_end());
            Err(CtlError::Exit(u8::try_from(code).unwrap_or(1)))
        }
    }
}

async fn create(session: &Session, object: Value) -> Result<Target> {
    let discovery = session.discovery().await?;
    let target = targets::locate(session, &discovery, object.clone(), "flags")?;
    let call = Call::new(Method::POST, target.collection()).query("fieldManager", "kubectl-run").body(&object);
    session.api.json(&call).await?;
    Ok(Target { object: None, source: None, ..target })
}

async fn delete(session: &Session, target: &Target, quiet: bool) -> Result<()> {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    match session.api.json(&Call::new(Method::DELETE, target.path()).body(&body)).await {
        Ok(_) if quiet => Ok(()),
        Ok(_) => emit(&format!("{} {:?} deleted\n", target.resource.label(), target.name)),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until the pod is as wanted; returns it.
async fn wait(session: &Session, target: &Target, deadline: Instant, done: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let object = session.api.json(&Call::get(target.path())).await?;
        if done(&object) {
            return Ok(object);
        }
        if Instant::now() >= deadline {
            return Err(CtlError::plain("timed out waiting for the condition"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_completed(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Running, and its containers ready: then there is something to attach to.
fn is_running(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["status"]["phase"] == "Running" && conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Prints what a container has said so far.
pub async fn logs(session: &Session, target: &Target, container: &str) -> Result<()> {
    let call = Call::get(format!("{}/log", target.path())).accept("*/*").query("container", container);
    let bytes = session.api.bytes(&call).await?;
    use std::io::Write;
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_end_is_this_programs() {
        let pod = |phase: &str, code: u64| {
            json!({"metadata": {"namespace": "d", "name": "x"}, "status": {"phase": phase, "containerStatuses": [
                {"state": {"terminated": {"exitCode": code, "reason": "Error"}}}]}})
        };
        assert!(verdict(&pod("Succeeded", 0)).is_ok());
        assert!(matches!(verdict(&pod("Failed", 7)), Err(CtlError::Exit(7))));
        assert!(matches!(verdict(&pod("Failed", 0)), Err(CtlError::Plain(_))));
    }

    #[test]
    fn a_pod_is_attached_to_when_it_is_ready() {
        let mut pod = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(!is_running(&pod) && !is_completed(&pod));
        pod["status"]["conditions"][0]["status"] = json!("True");
        assert!(is_running(&pod));
    }
}
