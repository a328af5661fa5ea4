//! Rows cli-* and architecture-001.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trireme_chaos_tests::eventually;

use super::{Row, controller, holds, text};

const SLEEP: &str = "trap exit TERM; while :; do sleep 0.1; done";

pub fn untainted_nodes(row: &Row<'_>) -> Result<()> {
    let nodes = row.sees(&["get", "nodes"])?;
    let usable = |node: &&Value| {
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        node["spec"]["unschedulable"] != true
            && !taints.clone().any(|taint| taint["effect"] != "PreferNoSchedule")
            && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let count = nodes["items"].as_array().into_iter().flatten().filter(usable).count();
    ensure!(count >= 2, "{count} nodes without taints");
    Ok(())
}

pub fn api_versions(row: &Row<'_>) -> Result<()> {
    let text = row.does(&["api-versions"])?;
    ensure!(text.lines().any(|line| line == "v1"), "{text}");
    Ok(())
}

pub fn cluster_info(row: &Row<'_>) -> Result<()> {
    holds(&row.does(&["cluster-info"])?, &["Kubernetes control plane", "is running at"])
}

pub fn describe(row: &Row<'_>) -> Result<()> {
    let labels = json!({"app": "agnhost", "role": "primary"});
    row.creates(&controller("agnhost-primary", &labels, 1, SLEEP))?;
    row.creates(&json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "agnhost-primary", "labels": labels},
        "spec": {"ports": [{"port": 6379, "targetPort": "server"}], "selector": labels}}))?;
    let pods = row.pods("app=agnhost", 1)?;
    let namespace = row.namespace.as_str();
    let page = row.does(&["describe", "pod", &pods[0]])?;
    holds(
        &page,
        &["Name:", "agnhost-primary-", "Namespace:", namespace, "Node:", "Labels:", "app=agnhost", "role=primary"],
    )?;
    let rest = ["Annotations:", "Status:", "Running", "IP:", "Controlled By:", "ReplicationController/agnhost-primary"];
    holds(&page, &rest)?;
    holds(&page, &["Image:", "busybox:1.35", "State:", "Running", "QoS Class:", "BestEffort"])?;
    let page = row.does(&["describe", "rc", "agnhost-primary"])?;
    let labels = ["app=agnhost", "role=primary"];
    let head =
        ["Name:", "agnhost-primary", "Namespace:", namespace, "Selector:", "app=agnhost,role=primary", "Labels:"];
    holds(&page, &[&head[..], &labels[..], &["Annotations:"]].concat())?;
    let counts = ["Replicas:", "1 current", "1 desired", "Pods Status:", "1 Running", "0 Waiting", "0 Succeeded"];
    holds(&page, &counts)?;
    holds(&page, &["0 Failed", "Pod Template:", "app=agnhost", "role=primary", "Image:", "busybox:1.35", "Events:"])?;
    let page = row.does(&["describe", "service", "agnhost-primary"])?;
    holds(&page, &["Name:", "agnhost-primary", "Namespace:", namespace, "Labels:", "app=agnhost", "role=primary"])?;
    holds(&page, &["Annotations:", "Selector:", "app=agnhost", "role=primary", "Type:", "ClusterIP", "IP:"])?;
    holds(&page, &["Port:", "<unset>", "6379/TCP", "Endpoints:", "Session Affinity:", "None"])?;
    let nodes = row.sees(&["get", "nodes"])?;
    let page = row.does(&["describe", "node", &text(&nodes["items"][0]["metadata"]["name"])])?;
    holds(&page, &["Name:", "Labels:", "Annotations:", "CreationTimestamp:", "Conditions:", "Type", "Status"])?;
    holds(&page, &["LastHeartbeatTime", "LastTransitionTime", "Reason", "Message", "Addresses:", "Capacity:"])?;
    holds(&page, &["Kernel Version:", "OS Image:", "Container Runtime Version:", "Kubelet Version:"])?;
    holds(&row.does(&["describe", "namespace", namespace])?, &["Name:", namespace, "Labels:", "Annotations:", "Active"])
}

pub fn diff(row: &Row<'_>) -> Result<()> {
    let deployment = |image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "httpd-deployment"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "httpd"}},
                "template": {"metadata": {"labels": {"app": "httpd"}},
                    "spec": {"containers": [{"name": "httpd", "image": image, "command": ["sleep", "1000"]}]}}}})
    };
    row.creates(&deployment("busybox:1.35"))?;
    let outcome = row.fed(&deployment("busybox:latest"), &["diff", "-f", "-"])?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    let line = |mark: &str, image: &str| outcome.out.lines().any(|line| line.starts_with(mark) && line.contains(image));
    ensure!(line("-", "image: busybox:1.35") && line("+", "image: busybox:latest"), "{}", outcome.out);
    Ok(())
}

pub fn expose(row: &Row<'_>) -> Result<()> {
    let labels = json!({"app": "agnhost", "role": "primary"});
    row.creates(&controller("agnhost-primary", &labels, 1, &format!("echo Paused; {SLEEP}")))?;
    let pods = row.pods("app=agnhost", 1)?;
    eventually(Duration::from_secs(20), || holds(&row.does(&["logs", &pods[0]])?, &["Paused"]))?;
    let serves = |name: &str, port: i64| {
        let service = row.sees(&["get", "service", name])?;
        let ports = service["spec"]["ports"].as_array().context("no ports")?;
        ensure!(ports.len() == 1 && ports[0]["port"] == port && ports[0]["targetPort"] == 6379, "{service}");
        eventually(Duration::from_secs(30), || {
            let endpoints = row.sees(&["get", "endpoints", name])?;
            let subset = &endpoints["subsets"][0];
            let (address, port) = (&subset["addresses"][0]["targetRef"]["name"], &subset["ports"][0]["port"]);
            ensure!(*address == pods[0].as_str() && *port == 6379, "{endpoints}");
            Ok(())
        })
    };
    row.does(&["expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379"])?;
    serves("rm2", 1234)?;
    row.does(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379"])?;
    serves("rm3", 2345)
}

/// A pod that does nothing.
fn pause(row: &Row<'_>, name: &str) -> Result<()> {
    row.creates(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": name, "image": "busybox:1.35", "command": ["sleep", "1000"]}]}}))?;
    row.runs(name)
}

pub fn label(row: &Row<'_>) -> Result<()> {
    pause(row, "pause")?;
    row.does(&["label", "pods", "pause", "testing-label=testing-label-value"])?;
    holds(&row.does(&["get", "pod", "pause", "-L", "testing-label"])?, &["testing-label-value"])?;
    row.does(&["label", "pods", "pause", "testing-label-"])?;
    let shown = row.does(&["get", "pod", "pause", "-L", "testing-label"])?;
    ensure!(!shown.contains("testing-label-value"), "{shown}");
    Ok(())
}

pub fn patch(row: &Row<'_>) -> Result<()> {
    let labels = json!({"app": "agnhost"});
    row.creates(&controller("agnhost-primary", &labels, 1, SLEEP))?;
    for pod in row.pods("app=agnhost", 1)? {
        row.does(&["patch", "pod", &pod, "-p", "{\"metadata\":{\"annotations\":{\"x\":\"y\"}}}"])?;
    }
    for pod in row.pods("app=agnhost", 1)? {
        let object = row.sees(&["get", "pod", &pod])?;
        ensure!(object["metadata"]["annotations"]["x"] == "y", "{object}");
    }
    Ok(())
}

fn image_of(row: &Row<'_>, pod: &str) -> Result<String> {
    Ok(text(&row.sees(&["get", "pod", pod])?["spec"]["containers"][0]["image"]))
}

pub fn replace(row: &Row<'_>) -> Result<()> {
    let name = "e2e-test-httpd-pod";
    row.does(&["run", name, "--image=busybox:1.35", "--labels=run=e2e-test-httpd-pod", "--", "sleep", "1000"])?;
    row.runs(name)?;
    let mut pod = row.sees(&["get", "pod", name])?;
    pod["spec"]["containers"][0]["image"] = json!("docker.io/library/busybox:latest");
    row.fed(&pod, &["replace", "-f", "-"])?.ok()?;
    let image = image_of(row, name)?;
    ensure!(image == "docker.io/library/busybox:latest", "{image}");
    row.does(&["delete", "pods", name, "--grace-period=0", "--force"]).map(drop)
}

pub fn run_pod(row: &Row<'_>) -> Result<()> {
    let name = "e2e-test-httpd-pod";
    row.does(&["run", name, "--restart=Never", "--image=busybox:1.35"])?;
    let pod = row.sees(&["get", "pod", name])?;
    ensure!(
        pod["spec"]["containers"][0]["image"] == "busybox:1.35" && pod["spec"]["restartPolicy"] == "Never",
        "{pod}"
    );
    row.does(&["delete", "pods", name]).map(drop)
}

pub fn dry_run(row: &Row<'_>) -> Result<()> {
    let name = "e2e-test-httpd-pod";
    row.does(&["run", name, "--image=busybox:1.35", "--labels=run=e2e-test-httpd-pod", "--", "sleep", "1000"])?;
    let patch = "{\"spec\":{\"containers\":[{\"name\": \"e2e-test-httpd-pod\",\"image\": \"busybox:latest\"}]}}";
    row.does(&["patch", "pod", name, "-p", patch, "--dry-run=server"])?;
    let image = image_of(row, name)?;
    ensure!(image == "busybox:1.35", "{image}");
    row.does(&["delete", "pods", name, "--grace-period=1"]).map(drop)
}

pub fn version(row: &Row<'_>) -> Result<()> {
    let text = row.does(&["version"])?;
    for item in ["Client Version: ", "Server Version: "] {
        // v, two numbers, and more.
        let version = text.split(item).nth(1).and_then(|rest| rest.strip_prefix('v')).unwrap_or_default();
        let parts: Vec<&str> = version.lines().next().unwrap_or_default().splitn(3, '.').collect();
        let is_number = |part: &&&str| part.parse::<u32>().is_ok();
        ensure!(parts.len() == 3 && parts.iter().take(2).filter(is_number).count() == 2, "{item}\n{text}");
    }
    Ok(())
}

/// Upstream's nautilus: pods that tell which picture they are.
fn demo(row: &Row<'_>) -> Result<Value> {
    let labels = json!({"name": "update-demo", "version": "nautilus"});
    let script = "mkdir /w; echo '{\"image\": \"nautilus.jpg\"}' > /w/data.json; exec httpd -f -p 6379 -h /w";
    let demo = controller("update-demo", &labels, 2, script);
    row.creates(&demo)?;
    shows(row, 2)?;
    Ok(demo)
}

/// So many pods run, with their image, and each tells its picture.
fn shows(row: &Row<'_>, count: usize) -> Result<()> {
    let pods = row.pods("name=update-demo", count)?;
    for pod in pods {
        ensure!(image_of(row, &pod)? == "busybox:1.35");
        eventually(Duration::from_secs(20), || {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}:6379/proxy/data.json", row.namespace);
            let data = row.does(&["get", "--raw", &path])?;
            let data: Value = serde_json::from_str(&data).with_context(|| data.clone())?;
            ensure!(data["image"] == "nautilus.jpg", "{data}");
            Ok(())
        })?;
    }
    Ok(())
}

fn cleaned(row: &Row<'_>, demo: &Value) -> Result<()> {
    row.fed(demo, &["delete", "--grace-period=0", "--force", "-f", "-"])?.ok()?;
    eventually(Duration::from_secs(30), || {
        let left = row.does(&["get", "rc,svc,pods", "-l", "name=update-demo", "--no-headers"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

pub fn update_demo(row: &Row<'_>) -> Result<()> {
    cleaned(row, &demo(row)?)
}

pub fn update_demo_scaled(row: &Row<'_>) -> Result<()> {
    let demo = demo(row)?;
    for count in [1, 2] {
        row.does(&["scale", "rc", "update-demo", &format!("--replicas={count}"), "--timeout=5m"])?;
        shows(row, count)?;
    }
    cleaned(row, &demo)
}

pub fn logs(row: &Row<'_>) -> Result<()> {
    let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; sleep 0.2; done";
    let name = "logs-generator";
    let run = ["run", name, "--image=busybox:1.35", "--restart=Never", "--pod-running-timeout=2m"];
    row.does(&[&run[..], &["--", "sh", "-c", script]].concat())?;
    row.runs(name)?;
    let logs = |words: &[&str]| row.does(&[&["logs", name, name], words].concat());
    eventually(Duration::from_secs(20), || {
        ensure!(logs(&[])?.lines().count() > 12);
        Ok(())
    })?;
    let last = logs(&["--tail=1"])?;
    ensure!(!last.is_empty() && last.lines().count() == 1, "{last:?}");
    ensure!(logs(&["--limit-bytes=1"])?.len() == 1);
    let stamped = logs(&["--tail=1", "--timestamps"])?;
    let stamp = stamped.split(' ').next().unwrap_or_default();
    stamp.parse::<jiff::Timestamp>().with_context(|| stamped.clone())?;
    let (recent, all) = (logs(&["--since=1s"])?.lines().count(), logs(&["--since=24h"])?.lines().count());
    ensure!(recent < all, "{recent} lines in the last second, {all} in all");
    row.does(&["delete", "pod", name, "--grace-period=0", "--force"]).map(drop)
}
