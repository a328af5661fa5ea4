//! `trictl run` and `trictl expose`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::create::{How, create_generated};
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::session::Session;
use super::targets::{self, Selection};

/// Run an image in a pod.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Name of the pod
    pub name: String,
    /// Image to run
    #[arg(long)]
    pub image: String,
    /// Port that the container serves on
    #[arg(long)]
    pub port: Option<i32>,
    /// NAME=VALUE, any number of times
    #[arg(long)]
    pub env: Vec<String>,
    /// Labels of the pod, KEY=VALUE separated by commas
    #[arg(short = 'l', long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Annotations of the pod
    #[arg(long)]
    pub annotations: Vec<String>,
    /// Always, OnFailure or Never
    #[arg(long, default_value = "Always")]
    pub restart: String,
    /// Always, IfNotPresent or Never
    #[arg(long)]
    pub image_pull_policy: Option<String>,
    /// The words after -- replace the image's entry point, not only its arguments
    #[arg(long)]
    pub command: bool,
    /// Not supported: there is no attach yet
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Not supported: there is no attach yet
    #[arg(short = 't', long)]
    pub tty: bool,
    #[command(flatten)]
    pub how: How,
    /// Arguments, or with --command the whole command
    #[arg(last = true)]
    pub words: Vec<String>,
}

/// Runs `run`.
pub async fn run(session: &Session, args: &RunArgs) -> Result<()> {
    if args.stdin || args.tty {
        return Err(CtlError::plain("-i and -t are not supported: start the pod, then use 'trictl exec -it'"));
    }
    create_generated(session, pod(args)?, &args.how).await
}

fn pairs(words: &[String], what: &str) -> Result<Map<String, Value>> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Value::from(value))),
        _ => Err(CtlError::plain(format!("invalid {what}: {word}, expected KEY=VALUE"))),
    };
    words.iter().map(pair).collect()
}

fn pod(args: &RunArgs) -> Result<Value> {
    if !["Always", "OnFailure", "Never"].contains(&args.restart.as_str()) {
        return Err(CtlError::plain(format!("invalid restart policy: {}", args.restart)));
    }
    let labels = if args.labels.is_empty() {
        Map::from_iter([("run".to_owned(), Value::from(args.name.clone()))])
    } else {
        pairs(&args.labels, "label")?
    };
    let mut container = json!({"name": args.name, "image": args.image, "resources": {}});
    if !args.words.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(args.words);
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if let Some(policy) = &args.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    let env = pairs(&args.env, "env")?;
    if !env.is_empty() {
        container["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
    let mut metadata = json!({"name": args.name, "labels": labels});
    if !args.annotations.is_empty() {
        metadata["annotations"] = Value::Object(pairs(&args.annotations, "annotation")?);
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": args.restart},
    }))
}

/// Make a service for the pods of a workload.
#[derive(Debug, Clone, Default, Args)]
pub struct ExposeArgs {
    /// TYPE NAME or TYPE/NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Port of the service
    #[arg(long)]
    pub port: Option<i32>,
    /// Port or its name in the pods
    #[arg(long)]
    pub target_port: Option<String>,
    /// TCP, UDP or SCTP
    #[arg(long, default_value = "TCP")]
    pub protocol: String,
    /// ClusterIP, NodePort or LoadBalancer
    #[arg(long)]
    pub r#type: Option<String>,
    /// Name of the service
    #[arg(long)]
    pub name: Option<String>,
    /// Address; None for a headless service
    #[arg(long)]
    pub cluster_ip: Option<String>,
    /// Labels of the service
    #[arg(short = 'l', long, value_delimiter = ',')]
    pub labels: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

/// Runs `expose`.
pub async fn expose(session: &Session, args: &ExposeArgs) -> Result<()> {
    let (found, failures) = targets::resolve(session, &args.words, &args.files, &Selection::default()).await?;
    CtlError::gather(failures)?;
    for target in found {
        let object = target.fetch(session).await?;
        let service = service(args, &target.name, &target.resource.kind, &object)?;
        create_generated(session, service, &args.how).await.map_err(|error| error.during("exposing", None))?;
    }
    Ok(())
}

fn service(args: &ExposeArgs, name: &str, kind: &str, object: &Value) -> Result<Value> {
    let spec = &object["spec"];
    let selector = match kind {
        "Pod" => &object["metadata"]["labels"],
        "Service" | "ReplicationController" => &spec["selector"],
        _ => &spec["selector"]["matchLabels"],
    };
    if selector.as_object().is_none_or(Map::is_empty) {
        return Err(CtlError::plain(format!(
            "couldn't retrieve selectors via --selector flag or introspection: {kind} {name:?} has none"
        )));
    }
    let pod_spec = if kind == "Pod" { spec } else { &spec["template"]["spec"] };
    let containers = pod_spec["containers"].as_array().into_iter().flatten();
    let declared: Vec<i64> = containers
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["containerPort"].as_i64())
        .collect();
    let ports: Vec<i64> = args.port.map_or(declared, |port| vec![i64::from(port)]);
    if ports.is_empty() {
        return Err(CtlError::plain("couldn't find port via --port flag or introspection"));
    }
    let several = ports.len() > 1;
    let entries: Vec<Value> = ports
        .into_iter()
        .enumerate()
        .map(|(index, port)| {
            let target = match &args.target_port {
                Some(text) => text.parse::<i64>().map(Value::from).unwrap_or_else(|_| Value::from(text.clone())),
                None => Value::from(port),
            };
            let mut entry = json!({"port": port, "protocol": args.protocol, "targetPort": target});
            if several {
                entry["name"] = Value::from(format!("port-{}", index + 1));
            }
            entry
        })
        .collect();
    let mut labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if !args.labels.is_empty() {
        labels = pairs(&args.labels, "label")?;
    }
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": args.name.clone().unwrap_or_else(|| name.to_owned()), "labels": labels},
        "spec": {"selector": selector, "ports": entries},
    });
    if let Some(kind) = &args.r#type {
        service["spec"]["type"] = json!(kind);
    }
    if let Some(address) = &args.cluster_ip {
        service["spec"]["clusterIP"] = json!(address);
    }
    Ok(service)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pod_from_flags() {
        let args = RunArgs {
            name: "x".into(),
            image: "busybox".into(),
            env: vec!["A=b=c".into()],
            words: vec!["sleep".into(), "1".into()],
            restart: "Never".into(),
            ..RunArgs::default()
        };
        let pod = pod(&args).unwrap();
        assert_eq!(pod["metadata"]["labels"], json!({"run": "x"}));
        assert_eq!(pod["spec"]["containers"][0]["args"], json!(["sleep", "1"]));
        assert_eq!(pod["spec"]["containers"][0]["env"], json!([{"name": "A", "value": "b=c"}]));
    }

    #[test]
    fn a_service_for_a_deployment() {
        let deployment = json!({"metadata": {"labels": {"app": "w"}}, "spec": {"selector": {"matchLabels": {"app": "w"}},
            "template": {"spec": {"containers": [{"ports": [{"containerPort": 80}, {"containerPort": 443}]}]}}}});
        let args = ExposeArgs { protocol: "TCP".into(), ..ExposeArgs::default() };
        let made = service(&args, "web", "Deployment", &deployment).unwrap();
        assert_eq!(
            made["spec"]["ports"][1],
            json!({"port": 443, "protocol": "TCP", "targetPort": 443, "name": "port-2"})
        );
        assert!(service(&args, "web", "Deployment", &json!({"spec": {}})).is_err());
    }
}
