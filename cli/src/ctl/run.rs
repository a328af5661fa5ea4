//! `trictl run` and `trictl expose`.

pub mod attached;

use clap::Args;
use serde_json::{Map, Value, json};

use super::change::patched;
use super::create::{How, Making, create_generated};
use super::errors::{CtlError, Result};
use super::flags::boolean;
use super::generate::typed;
use super::manifest::Files;
use super::mutate::{DryRun, JSON_PATCH, MERGE, STRATEGIC};
use super::session::Session;
use super::targets::{self, Selection};

/// Run an image in a pod.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// NAME
    pub names: Vec<String>,
    /// The image for the container to run
    #[arg(long)]
    pub image: Option<String>,
    /// Port that the container exposes
    #[arg(long, default_value = "", hide_default_value = true)]
    pub port: String,
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
    /// Run the container in privileged mode
    #[arg(long)]
    pub privileged: bool,
    /// Create a service for the pod's port too
    #[arg(long)]
    pub expose: bool,
    /// An inline JSON override of the object
    #[arg(long)]
    pub overrides: Option<String>,
    /// How to override: merge, strategic or json
    #[arg(long, default_value = "merge")]
    pub override_type: String,
    /// Keep the container's standard input open, and attach to it
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Wait for the pod and attach to it; the default is whether -i is given
    #[arg(long, value_parser = boolean, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub attach: Option<bool>,
    /// Delete the pod after the session
    #[arg(long)]
    pub rm: bool,
    /// With -i, leave the container's input open after the session
    #[arg(long)]
    pub leave_stdin_open: bool,
    /// No prompts
    #[arg(short, long)]
    pub quiet: bool,
    /// How long to wait for the pod
    #[arg(long, default_value = "1m0s", value_parser = super::flags::duration_text)]
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

    /// Name of the pod.
    fn name(&self) -> &str {
        self.names.first().map(String::as_str).unwrap_or_default()
    }
}

/// Runs `run`.
pub async fn run(session: &Session, args: &RunArgs) -> Result<()> {
    if args.image.is_none() {
        return Err(CtlError::plain("required flag(s) \"image\" not set"));
    }
    if args.names.is_empty() {
        return Err(CtlError::usage("NAME is required for run"));
    }
    refusals(args)?;
    if !["Always", "OnFailure", "Never"].contains(&args.restart.as_str()) {
        return Err(CtlError::usage(format!("invalid restart policy: {}", args.restart)));
    }
    let image = args.image.as_deref().unwrap_or_default();
    if !super::image::is_valid(image) {
        return Err(CtlError::plain(format!("Invalid image name {image:?}: invalid reference format")));
    }
    let making = Making { manager: "kubectl-run", done: "created", refusal: "" };
    let pod = overridden(pod(args)?, args.overrides.as_deref(), &args.override_type)?;
    let service = if args.expose { Some(service_of(args, &pod)?) } else { None };
    if args.attaches() {
        return attached::run(session, args, pod, service).await;
    }
    if let Some(service) = service {
        create_generated(session, service, &args.how, &making).await?;
        if args.how.mode.client_only() && args.how.mode.print.output.as_deref() == Some("yaml") {
            super::print::emit("---\n")?;
        }
    }
    create_generated(session, pod, &args.how, &making).await
}

/// Flags that do not go together.
fn refusals(args: &RunArgs) -> Result<()> {
    let usage = |text: &str| Err(CtlError::usage(text));
    if args.tty && !args.stdin {
        return usage("-i/--stdin is required for containers with -t/--tty=true");
    }
    if args.expose && args.port.is_empty() {
        return usage("--port must be set when exposing a service");
    }
    if args.rm && !args.attaches() {
        return usage("--rm should only be used for attached containers");
    }
    if args.attaches() && args.how.mode.dry_run != DryRun::None {
        return usage(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        );
    }
    Ok(())
}

/// The service of `--expose`.
fn service_of(args: &RunArgs, pod: &Value) -> Result<Value> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let port = port_number(&args.port)?;
    let mut service = typed("v1", "Service", name);
    service["spec"] = json!({
        "ports": [{"protocol": "TCP", "port": port, "targetPort": port}],
        "selector": pod["metadata"]["labels"],
    });
    service["status"] = json!({"loadBalancer": {}});
    Ok(service)
}

fn port_number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| CtlError::plain(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

/// The object with `--overrides`.
fn overridden(object: Value, overrides: Option<&str>, kind: &str) -> Result<Value> {
    let Some(text) = overrides else { return Ok(object) };
    let patch: Value =
        serde_norway::from_str(text).map_err(|error| CtlError::plain(format!("invalid --overrides: {error}")))?;
    let kind = match kind {
        "merge" => MERGE,
        "strategic" => STRATEGIC,
        "json" => JSON_PATCH,
        other => return Err(CtlError::plain(format!("invalid override type: {other:?}"))),
    };
    let target = targets::of_object(&targets::guess(&object).into(), object.clone());
    patched(&target, &object, kind, &patch)
}

fn pairs(words: &[String], what: &str) -> Result<Map<String, Value>> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Value::from(value))),
        _ => Err(CtlError::plain(format!("{what}: {word}"))),
    };
    words.iter().map(pair).collect()
}

fn pod(args: &RunArgs) -> Result<Value> {
    let name = args.name();
    let labels = if args.labels.is_empty() {
        Map::from_iter([("run".to_owned(), Value::from(name))])
    } else {
        pairs(&args.labels, "unexpected label spec")?
    };
    let mut container = json!({"name": name, "image": args.image});
    if !args.words.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(args.words);
    }
    if !args.port.is_empty() {
        container["ports"] = json!([{"containerPort": port_number(&args.port)?}]);
    }
    let env = pairs(&args.env, "invalid env")?;
    if !env.is_empty() {
        container["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
    container["resources"] = json!({});
    if let Some(policy) = &args.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
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
    let mut object = typed("v1", "Pod", name);
    object["metadata"]["labels"] = Value::Object(labels);
    if !args.annotations.is_empty() {
        object["metadata"]["annotations"] = Value::Object(pairs(&args.annotations, "invalid annotation")?);
    }
    object["spec"] = json!({"containers": [container], "restartPolicy": args.restart, "dnsPolicy": "ClusterFirst"});
    object["status"] = json!({});
    Ok(object)
}

/// Make a service for the pods of a workload.
#[derive(Debug, Clone, Default, Args)]
pub struct ExposeArgs {
    /// TYPE NAME or TYPE/NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Port of the service, or several with commas between
    #[arg(long)]
    pub port: Option<String>,
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
    /// Labels that select the pods, instead of the object's own
    #[arg(long)]
    pub selector: Option<String>,
    /// An external address
    #[arg(long)]
    pub external_ip: Option<String>,
    /// Address for a load balancer
    #[arg(long)]
    pub load_balancer_ip: Option<String>,
    /// None or ClientIP
    #[arg(long)]
    pub session_affinity: Option<String>,
    /// An inline JSON override of the object
    #[arg(long)]
    pub overrides: Option<String>,
    /// How to override: merge, strategic or json
    #[arg(long, default_value = "merge")]
    pub override_type: String,
    #[command(flatten)]
    pub how: How,
}

/// Runs `expose`.
pub async fn expose(session: &Session, args: &ExposeArgs) -> Result<()> {
    let (found, failures) = targets::resolve(session, &args.words, &args.files, &Selection::default()).await?;
    CtlError::gather(failures)?;
    let mut failures = Vec::new();
    for target in found {
        failures.extend(expose_one(session, args, &target).await.err());
    }
    CtlError::gather(failures)
}

async fn expose_one(session: &Session, args: &ExposeArgs, target: &targets::Target) -> Result<()> {
    let object = target.fetch(session).await?;
    let service = service(args, &target.name, &target.resource.kind, &object)?;
    let service = overridden(service, args.overrides.as_deref(), &args.override_type)?;
    let making = Making { manager: "kubectl-expose", done: "exposed", refusal: "" };
    create_generated(session, service, &args.how, &making).await
}

fn service(args: &ExposeArgs, name: &str, kind: &str, object: &Value) -> Result<Value> {
    if let Some(other) = args.session_affinity.as_deref().filter(|how| !matches!(*how, "" | "None" | "ClientIP")) {
        return Err(CtlError::plain(format!("unknown session affinity: {other}")));
    }
    let spec = &object["spec"];
    let selector = match kind {
        "Pod" => &object["metadata"]["labels"],
        "Service" | "ReplicationController" => &spec["selector"],
        _ => &spec["selector"]["matchLabels"],
    };
    if !matches!(kind, "Pod" | "Service" | "ReplicationController" | "Deployment" | "ReplicaSet") {
        return Err(CtlError::plain(format!("cannot expose a {kind}")));
    }
    let given = args.selector.as_ref().map(|text| {
        let words: Vec<String> = text.split(',').map(str::to_owned).collect();
        pairs(&words, "unexpected label spec").map(Value::Object)
    });
    let given = given.transpose()?;
    let selector = given.as_ref().unwrap_or(selector);
    if selector.as_object().is_none_or(Map::is_empty) {
        return Err(CtlError::plain(format!(
            "couldn't retrieve selectors via --selector flag or introspection: {kind} {name:?} has none"
        )));
    }
    let entries = service_ports(args, kind, spec)?;
    let mut labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if !args.labels.is_empty() {
        labels = pairs(&args.labels, "unexpected label spec")?;
    }
    let mut service = typed("v1", "Service", args.name.as_deref().unwrap_or(name));
    if !labels.is_empty() {
        service["metadata"]["labels"] = Value::Object(labels);
    }
    service["spec"] = json!({"ports": entries, "selector": selector});
    let fields = [
        ("clusterIP", &args.cluster_ip),
        ("type", &args.r#type),
        ("sessionAffinity", &args.session_affinity),
        ("loadBalancerIP", &args.load_balancer_ip),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            service["spec"][field] = json!(value);
        }
    }
    if let Some(address) = &args.external_ip {
        service["spec"]["externalIPs"] = json!([address]);
    }
    service["status"] = json!({"loadBalancer": {}});
    Ok(service)
}

/// The service's ports: the one asked for, or those that the object declares.
fn service_ports(args: &ExposeArgs, kind: &str, spec: &Value) -> Result<Vec<Value>> {
    let pod_spec = if kind == "Pod" { spec } else { &spec["template"]["spec"] };
    let containers = pod_spec["containers"].as_array().into_iter().flatten();
    let of_service = spec["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_i64());
    let declared: Vec<i64> = of_service
        .chain(
            containers
                .flat_map(|container| container["ports"].as_array().into_iter().flatten())
                .filter_map(|port| port["containerPort"].as_i64()),
        )
        .collect();
    let ports: Vec<i64> = match args.port.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => text.split(',').map(port_number).collect::<Result<_>>()?,
        None => declared,
    };
    if ports.is_empty() {
        return Err(CtlError::plain("couldn't find port via --port flag or introspection"));
    }
    let several = ports.len() > 1;
    Ok(ports
        .into_iter()
        .enumerate()
        .map(|(index, port)| {
            let target = match &args.target_port {
                Some(text) => text.parse::<i64>().map(Value::from).unwrap_or_else(|_| Value::from(text.clone())),
                None => Value::from(port),
            };
            let mut entry = json!({});
            if several {
                entry["name"] = Value::from(format!("port-{}", index + 1));
            }
            entry["protocol"] = json!(args.protocol);
            entry["port"] = json!(port);
            entry["targetPort"] = target;
            entry
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pod_from_flags() {
        let args = RunArgs {
            names: vec!["x".into()],
            image: Some("busybox".into()),
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
