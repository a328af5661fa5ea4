//! `trictl run` and `trictl expose`.

mod attached;

use clap::Args;
use serde_json::{Map, Value, json};

use super::create::{How, create_generated};
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::mutate::DryRun;
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
    /// Keep the container's standard input open, and attach to it
    #[arg(short = 'i', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub stdin: bool,
    /// Give the container a terminal
    #[arg(short = 't', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub tty: bool,
    /// Wait for the pod and attach to it; the default is whether -i is given
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub attach: Option<bool>,
    /// Delete the pod after the session
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub rm: bool,
    /// With -i, leave the container's input open after the session
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub leave_stdin_open: bool,
    /// No prompts
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub quiet: bool,
    /// Run the container in privileged mode
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub privileged: bool,
    /// Make a service for the pod too; needs --port
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub expose: bool,
    /// How long to wait for the pod
    #[arg(long, default_value = "1m0s")]
    pub pod_running_timeout: String,
    #[command(flatten)]
    pub how: How,
    /// Arguments, or with --command the whole command
    #[arg(last = true)]
    pub words: Vec<String>,
}

impl RunArgs {
    fn attaches(&self) -> bool {
        self.attach.unwrap_or(self.stdin)
    }
}

/// Runs `run`.
pub async fn run(session: &Session, args: &RunArgs) -> Result<()> {
    let plain = |text: &str| Err(CtlError::plain(text));
    if args.tty && !args.stdin {
        return plain("-i/--stdin is required for containers with -t/--tty=true");
    }
    if args.expose && args.port.is_none() {
        return plain("--port must be set when exposing a service");
    }
    if args.rm && !args.attaches() {
        return plain("--rm should only be used for attached containers");
    }
    if args.attaches() && args.how.mode.dry_run != DryRun::None {
        return plain(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        );
    }
    let pod = pod(args)?;
    let service = if args.expose { Some(service_of(args, &pod)) } else { None };
    if args.attaches() {
        return attached::run(session, args, pod, service).await;
    }
    if let Some(service) = service {
        create_generated(session, service, &args.how).await?;
    }
    create_generated(session, pod, &args.how).await
}

/// The service of `--expose`.
fn service_of(args: &RunArgs, pod: &Value) -> Value {
    let port = args.port.unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": args.name},
        "spec": {"selector": pod["metadata"]["labels"],
                 "ports": [{"port": port, "protocol": "TCP", "targetPort": port}]},
    })
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
    if args.stdin {
        container["stdin"] = json!(true);
        container["stdinOnce"] = json!(!args.leave_stdin_open);
    }
    if args.tty {
        container["tty"] = json!(true);
    }
    if args.privileged {
        container["securityContext"] = json!({"privileged": true});
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
    fn a_pod_to_attach_to() {
        let args = RunArgs { name: "x".into(), stdin: true, tty: true, restart: "Never".into(), ..RunArgs::default() };
        let made = pod(&args).unwrap();
        let container = &made["spec"]["containers"][0];
        assert!(container["stdin"] == true && container["stdinOnce"] == true && container["tty"] == true);
        assert!(args.attaches() && !RunArgs { attach: Some(false), ..args.clone() }.attaches());
        let open = pod(&RunArgs { leave_stdin_open: true, ..args }).unwrap();
        assert_eq!(open["spec"]["containers"][0]["stdinOnce"], false);
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
