//! What goes on to a node or into a container: logs, sessions, proxies.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::NAMESPACE;
use super::api::Api;
use super::operations::Ledger;
use crate::command::run_for;
use crate::kubectl::Kubectl;

const POD: &str = "/api/v1/namespaces/{namespace}/pods/{name}";
const SERVICE: &str = "/api/v1/namespaces/{namespace}/services/{name}";
const NODE: &str = "/api/v1/nodes/{name}";
/// Answers any method with its name and path.
const SERVER: &str = r#"echo listening
cat > /tmp/answer <<'END'
#!/bin/sh
read method path rest
while read line; do [ "${#line}" -le 1 ] && break; done
text="did $method $path"
printf 'HTTP/1.1 200 OK\r\nX-Did: %s\r\nContent-Length: %s\r\nConnection: close\r\n\r\n' "$method" "${#text}"
[ "$method" = HEAD ] || printf '%s' "$text"
END
chmod +x /tmp/answer
nc -ll -p 8080 -e /tmp/answer &
exec cat"#;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What `ONLY` calls the sessions.
pub const NAME: &str = "streams";
/// The first kubectl that speaks WebSockets with exec, attach and port-forward when it is asked to.
const WEBSOCKETS_SINCE: u32 = 30;

/// The newest kubectl. For the sessions, if they are not left out, it has to speak WebSockets: those are the GETs.
///
/// # Errors
/// When there is none.
pub fn kubectl(only: &str, found: Vec<Kubectl>) -> Result<PathBuf> {
    let newest = found.into_iter().max_by_key(|one| (!one.version.contains("dispatcher"), one.minor));
    let newest = newest.context("no kubectl on this machine")?;
    ensure!(
        newest.minor >= WEBSOCKETS_SINCE || !(only.is_empty() || only == NAME),
        "the newest kubectl here is {} ({}), which does not speak WebSockets: exec, attach and port-forward by GET need 1.{WEBSOCKETS_SINCE} \
         or newer; put one into $PATH",
        newest.version,
        newest.path.display()
    );
    Ok(newest.path)
}

/// A kubectl and its kubeconfig, for what takes more than a request.
pub struct Sessions {
    /// The program.
    pub kubectl: PathBuf,
    /// The file.
    pub kubeconfig: PathBuf,
}

impl Sessions {
    /// Runs kubectl over WebSockets (GET) or SPDY (POST).
    fn run(&self, websockets: bool, script: &str) -> Result<String> {
        let mut command = Command::new("sh");
        let quoted =
            format!("k() {{ timeout ${{T:-20}} '{}' -n {NAMESPACE} \"$@\"; }}; {script}", self.kubectl.display());
        let chosen = if websockets { "true" } else { "false" };
        command.args(["-c", &quoted]).env("KUBECONFIG", &self.kubeconfig);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", chosen).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", chosen);
        let outcome = run_for(&mut command, Duration::from_secs(40))?;
        Ok(format!("{}{}", outcome.out, outcome.err))
    }
}

/// All of it, against a pod that this starts.
pub async fn try_all(api: &Api, ledger: &mut Ledger, sessions: &Sessions, node: &str) {
    if let Err(error) = start(api).await {
        eprintln!("the pod that answers does not start: {error:#}");
    }
    let (pod, service) = (POD.replace("{namespace}", NAMESPACE), SERVICE.replace("{namespace}", NAMESPACE));
    let log = async {
        let answer = api.send("GET", &format!("{}/log", pod.replace("{name}", "compat-server")), "", None).await?;
        let text = answer.body.as_str().unwrap_or_default().to_owned();
        ensure!(answer.code == 200 && text.contains("listening"), "{}: {text:?}", answer.code);
        Ok(())
    };
    ledger.judge("GET", &format!("{POD}/log"), log.await);
    for (method, websockets) in [("GET", true), ("POST", false)] {
        for (what, found) in tokio::task::block_in_place(|| streams(sessions, websockets)) {
            ledger.judge(method, &format!("{POD}/{what}"), found);
        }
    }
    for method in METHODS {
        for (template, path, name) in [(POD, &pod, "compat-server:8080"), (SERVICE, &service, "compat-server:80")] {
            let root = format!("{}/proxy", path.replace("{name}", name));
            let found = proxied(api, method, &format!("{root}/"), "/").await;
            ledger.judge(method, &format!("{template}/proxy"), found);
            let found = proxied(api, method, &format!("{root}/some/where"), "/some/where").await;
            ledger.judge(method, &format!("{template}/proxy/{{path}}"), found);
        }
        let root = format!("{}/proxy", NODE.replace("{name}", node));
        ledger.judge(method, &format!("{NODE}/proxy"), agent(api, method, &format!("{root}/")).await);
        ledger.judge(method, &format!("{NODE}/proxy/{{path}}"), agent(api, method, &format!("{root}/healthz")).await);
    }
}

async fn start(api: &Api) -> Result<()> {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = json!({"metadata": {"name": "compat-server", "labels": {"app": "compat-server"}}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "busybox:1.35", "stdin": true, "command": ["sh", "-c", SERVER],
            "ports": [{"containerPort": 8080}]}]}});
    api.write("POST", &pods, &pod).await?;
    let service = json!({"metadata": {"name": "compat-server"},
        "spec": {"selector": {"app": "compat-server"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    api.write("POST", &format!("/api/v1/namespaces/{NAMESPACE}/services"), &service).await?;
    let running = |answer: &super::api::Answer| answer.body["status"]["phase"] == "Running";
    api.until(&format!("{pods}/compat-server"), "running", running).await?;
    let endpoints = format!("/api/v1/namespaces/{NAMESPACE}/endpoints/compat-server");
    let there = |answer: &super::api::Answer| answer.body["subsets"][0]["addresses"][0]["ip"].is_string();
    api.until(&endpoints, "an endpoint", there).await?;
    let proxied = format!("{pods}/compat-server:8080/proxy/");
    api.until(&proxied, "listening", |answer| answer.code == 200).await.context("the pod's server")
}

/// exec, attach and port-forward as a user does them.
fn streams(sessions: &Sessions, websockets: bool) -> [(&'static str, Result<()>); 3] {
    let tried = |script: &str, wanted: &str| {
        let told = sessions.run(websockets, script)?;
        ensure!(told.contains(wanted), "{told:?} is without {wanted:?}");
        Ok(())
    };
    let port = if websockets { 28_081 } else { 28_082 };
    let forward = format!(
        "T=5 k port-forward pod/compat-server {port}:8080 & for i in 1 2 3 4 5 6 7 8 9 10; do \
         sleep 0.3; curl -s -m 5 http://127.0.0.1:{port}/forwarded && break; done; wait"
    );
    [
        // What is looked for is nowhere in the command, of which errors tell.
        ("exec", tried("k exec compat-server -- expr 600 + 66", "666")),
        ("attach", tried("(sleep 1; echo heard; sleep 2) | T=5 k attach -i compat-server", "heard")),
        ("portforward", tried(&forward, "did GET /forwarded")),
    ]
}

/// That a method reaches the server in the pod, under this path.
async fn proxied(api: &Api, method: &str, path: &str, seen: &str) -> Result<()> {
    let answer = api.send(method, path, "", None).await?;
    let text = answer.body.as_str().unwrap_or_default();
    ensure!(answer.code == 200, "{}: {}", answer.code, answer.body);
    ensure!(method == "HEAD" || text == format!("did {method} {seen}"), "the server was told: {text:?}");
    Ok(())
}

/// That a method reaches the node's agent, which knows only some.
async fn agent(api: &Api, method: &str, path: &str) -> Result<()> {
    let answer = api.send(method, path, "", None).await?;
    ensure!(answer.body["kind"] != "Status", "the API server answered itself: {}", answer.body);
    let healthz = path.ends_with("healthz");
    match (method, healthz) {
        ("GET", true) => ensure!(answer.code == 200 && answer.body == "ok", "{}: {}", answer.code, answer.body),
        ("HEAD", true) => ensure!(answer.code == 200, "{}", answer.code),
        (_, true) => ensure!(answer.code == 405, "{}: {}", answer.code, answer.body),
        (_, false) => ensure!(answer.code == 404 || answer.code == 405, "{}: {}", answer.code, answer.body),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kubectl_without_web_sockets_is_not_taken_for_the_sessions() {
        let one = |version: &str, minor| Kubectl { path: format!("/{version}").into(), version: version.into(), minor };
        let old = vec![one("v1.20.2", 20), one("v1.29.0", 29)];
        let refused = kubectl("", old.clone()).unwrap_err().to_string();
        assert!(refused.contains("v1.29.0") && refused.contains("1.30"), "{refused}");
        assert!(kubectl(NAME, old.clone()).is_err());
        assert_eq!(kubectl("pods", old.clone()).unwrap(), PathBuf::from("/v1.29.0"), "other requests need none");
        let new = [old, vec![one("v1.30.1", 30)]].concat();
        assert_eq!(kubectl("", new).unwrap(), PathBuf::from("/v1.30.1"));
        assert!(kubectl("", Vec::new()).is_err());
    }
}
