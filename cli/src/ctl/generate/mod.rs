//! Objects from flags: `trictl create KIND …`.

pub mod batch;
pub mod contents;
pub mod ingress;
mod pair;
pub mod policy;
pub mod rbac;
mod service;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::batch::{CronJobArgs, JobArgs};
pub use self::contents::content_hash;
use self::contents::{ConfigMapArgs, DockerArgs, SecretArgs, TlsArgs};
use self::ingress::IngressArgs;
use self::policy::{BudgetArgs, QuotaArgs};
use self::rbac::{ClusterRoleArgs, ClusterRoleBindingArgs, RoleArgs, RoleBindingArgs};
use self::service::{ExternalNameArgs, ServiceArgs, ServiceKind};
use super::create::How;
use super::errors::{CtlError, Result};
use super::session::Session;

/// Kinds that flags can make.
#[derive(Debug, Clone, Subcommand)]
pub enum Generator {
    /// Create a namespace with the specified name
    #[command(visible_alias = "ns")]
    Namespace(Named),
    /// Create a service account with the specified name
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(Named),
    /// Create a config map from a local file, directory or literal value
    #[command(name = "configmap", visible_alias = "cm")]
    ConfigMap(ConfigMapArgs),
    /// Create a secret using a specified subcommand
    Secret {
        /// Which kind of secret
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// Create a deployment with the specified name
    #[command(visible_alias = "deploy")]
    Deployment(DeploymentArgs),
    /// Create a service using a specified subcommand
    #[command(visible_alias = "svc")]
    Service {
        /// Which kind of service
        #[command(subcommand)]
        kind: ServiceGenerator,
    },
    /// Create a priority class with the specified name
    #[command(name = "priorityclass", visible_alias = "pc")]
    PriorityClass(PriorityClassArgs),
    /// Create a job with the specified name
    Job(Box<JobArgs>),
    /// Create a cron job with the specified name
    #[command(name = "cronjob", visible_alias = "cj")]
    CronJob(Box<CronJobArgs>),
    /// Create a quota with the specified name
    #[command(visible_alias = "resourcequota")]
    Quota(Box<QuotaArgs>),
    /// Create a pod disruption budget with the specified name
    #[command(name = "poddisruptionbudget", visible_alias = "pdb")]
    Budget(Box<BudgetArgs>),
    /// Create an ingress with the specified name
    #[command(visible_alias = "ing")]
    Ingress(Box<IngressArgs>),
    /// Create a role with single rule
    Role(Box<RoleArgs>),
    /// Create a cluster role
    #[command(name = "clusterrole")]
    ClusterRole(Box<ClusterRoleArgs>),
    /// Create a role binding for a particular role or cluster role
    #[command(name = "rolebinding")]
    RoleBinding(Box<RoleBindingArgs>),
    /// Create a cluster role binding for a particular cluster role
    #[command(name = "clusterrolebinding")]
    ClusterRoleBinding(Box<ClusterRoleBindingArgs>),
    /// Request a service account token
    Token(super::token::TokenArgs),
}

/// Kinds of secrets.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretKind {
    /// Create a secret for use with a Docker registry
    #[command(name = "docker-registry")]
    DockerRegistry(DockerArgs),
    /// Create a secret from a local file, directory, or literal value
    Generic(SecretArgs),
    /// Create a TLS secret
    Tls(TlsArgs),
}

/// Kinds of services.
#[derive(Debug, Clone, Subcommand)]
pub enum ServiceGenerator {
    /// Create a ClusterIP service
    #[command(name = "clusterip")]
    ClusterIp(ServiceArgs),
    /// Create an ExternalName service
    #[command(name = "externalname")]
    ExternalName(ExternalNameArgs),
    /// Create a LoadBalancer service
    #[command(name = "loadbalancer")]
    LoadBalancer(ServiceArgs),
    /// Create a NodePort service
    #[command(name = "nodeport")]
    NodePort(ServiceArgs),
}

/// An object that only has a name.
#[derive(Debug, Clone, Args)]
pub struct Named {
    /// NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

/// A deployment from flags.
#[derive(Debug, Clone, Args)]
pub struct DeploymentArgs {
    /// NAME
    pub words: Vec<String>,
    /// Image names to run
    #[arg(long, value_delimiter = ',')]
    pub image: Vec<String>,
    /// Number of replicas to create
    #[arg(short, long, default_value_t = 1)]
    pub replicas: i32,
    /// The containerPort that this deployment exposes
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    pub port: i32,
    #[command(flatten)]
    pub how: How,
    /// Command and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// A priority class from flags.
#[derive(Debug, Clone, Args)]
pub struct PriorityClassArgs {
    /// NAME
    pub words: Vec<String>,
    /// The value of this priority class
    #[arg(long, default_value_t = 0)]
    pub value: i32,
    /// Whether this class is the default one
    #[arg(long)]
    pub global_default: bool,
    /// When this class should be used
    #[arg(long, default_value = "")]
    pub description: String,
    /// Preempt pods of lower priority (PreemptLowerPriority) or not (Never)
    #[arg(long, default_value = "PreemptLowerPriority")]
    pub preemption_policy: String,
    #[command(flatten)]
    pub how: How,
}

/// What flags made.
pub struct Made<'a> {
    /// The object, its fields in the order in which Go prints them.
    pub object: Value,
    /// How to create it.
    pub how: &'a How,
    /// What comes before the server's refusal; nothing leaves it as the server's.
    pub refusal: String,
}

/// The one name among the words.
pub fn name(words: &[String]) -> Result<&str> {
    match words {
        [name] => Ok(name),
        other => Err(CtlError::usage(format!("exactly one NAME is required, got {}", other.len()))),
    }
}

/// Kind, version and metadata of an object to be created, as Go prints them.
pub fn typed(version: &str, kind: &str, name: &str) -> Value {
    json!({"kind": kind, "apiVersion": version, "metadata": {"name": name, "creationTimestamp": null}})
}

/// As [`object`], of kinds too for which the server is asked.
pub async fn made<'a>(session: &Session, generator: &'a Generator) -> Result<Made<'a>> {
    let (object, how, refusal) = match generator {
        Generator::Role(args) => {
            let discovery = session.discovery().await?;
            (args.object(&discovery)?, &args.how, String::new())
        }
        Generator::ClusterRole(args) => {
            let discovery = session.discovery().await?;
            (args.object(&discovery)?, &args.how, String::new())
        }
        Generator::Job(args) => (args.made(session).await?, &args.how, "failed to create job:".to_owned()),
        other => return object(other),
    };
    Ok(Made { object, how, refusal })
}

/// The object with the flags that say how to create it.
pub fn object(generator: &Generator) -> Result<Made<'_>> {
    let made = |object, how, what: &str| {
        let refusal = if what.is_empty() { String::new() } else { format!("failed to create {what}") };
        Ok(Made { object, how, refusal })
    };
    match generator {
        Generator::Namespace(args) => {
            let mut object = typed("v1", "Namespace", name(&args.words)?);
            object["spec"] = json!({});
            object["status"] = json!({});
            made(object, &args.how, "")
        }
        Generator::ServiceAccount(args) => {
            made(typed("v1", "ServiceAccount", name(&args.words)?), &args.how, "serviceaccount:")
        }
        Generator::ConfigMap(args) => made(args.object()?, &args.how, "configmap:"),
        Generator::Secret { kind: SecretKind::Generic(args) } => made(args.object()?, &args.how, "secret"),
        Generator::Secret { kind: SecretKind::Tls(args) } => made(args.object()?, &args.how, "secret"),
        Generator::Secret { kind: SecretKind::DockerRegistry(args) } => made(args.object()?, &args.how, "secret"),
        Generator::Deployment(args) => made(deployment(args)?, &args.how, "deployment:"),
        Generator::Service { kind } => {
            let (kind, args) = match kind {
                ServiceGenerator::ClusterIp(args) => (ServiceKind::ClusterIp, args),
                ServiceGenerator::NodePort(args) => (ServiceKind::NodePort, args),
                ServiceGenerator::LoadBalancer(args) => (ServiceKind::LoadBalancer, args),
                ServiceGenerator::ExternalName(args) => {
                    return made(args.object()?, &args.service.how, "ExternalName service:");
                }
            };
            made(args.object(kind)?, &args.how, &format!("{kind:?} service:").replace("Ip ", "IP "))
        }
        Generator::PriorityClass(args) => made(priority_class(args)?, &args.how, "priorityclass:"),
        Generator::Job(args) => made(args.object()?, &args.how, "job:"),
        Generator::CronJob(args) => made(args.object()?, &args.how, "cronjob:"),
        Generator::Quota(args) => made(args.object()?, &args.how, "quota:"),
        Generator::Budget(args) => made(args.object()?, &args.how, "poddisruptionbudgets:"),
        Generator::Ingress(args) => made(args.object()?, &args.how, "ingress:"),
        Generator::RoleBinding(args) => made(args.object()?, &args.how, "rolebinding:"),
        Generator::ClusterRoleBinding(args) => made(args.object()?, &args.how, "clusterrolebinding:"),
        Generator::Role(_) | Generator::ClusterRole(_) | Generator::Token(_) => {
            Err(CtlError::plain("this cannot be made without a server"))
        }
    }
}

fn priority_class(args: &PriorityClassArgs) -> Result<Value> {
    let mut object = typed("scheduling.k8s.io/v1", "PriorityClass", name(&args.words)?);
    object["value"] = json!(args.value);
    if args.global_default {
        object["globalDefault"] = json!(true);
    }
    if !args.description.is_empty() {
        object["description"] = json!(args.description);
    }
    object["preemptionPolicy"] = json!(args.preemption_policy);
    Ok(object)
}

/// A container's name from its image: `docker.io/library/busybox:1.35` gives `busybox`. A name that had to be changed gets
/// something behind it that makes it unique.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last);
    match bare.contains(['_', '.']) {
        true => format!("{}-{}", bare.replace(['_', '.'], "-"), super::debug::suffix()),
        false => bare.to_owned(),
    }
}

fn deployment(args: &DeploymentArgs) -> Result<Value> {
    if args.image.is_empty() {
        return Err(CtlError::plain("required flag(s) \"image\" not set"));
    }
    let name = name(&args.words)?;
    if args.image.len() > 1 && !args.command.is_empty() {
        return Err(CtlError::plain("cannot specify multiple --image options and command"));
    }
    let containers: Vec<Value> = args
        .image
        .iter()
        .filter(|image| !image.is_empty())
        .map(|image| {
            let mut container = json!({"name": container_name(image), "image": image});
            if !args.command.is_empty() {
                container["command"] = json!(args.command);
            }
            if args.port >= 0 {
                container["ports"] = json!([{"containerPort": args.port}]);
            }
            container["resources"] = json!({});
            container
        })
        .collect();
    let labels = json!({"app": name});
    let mut object = typed("apps/v1", "Deployment", name);
    object["metadata"]["labels"] = labels.clone();
    object["spec"] = json!({
        "replicas": args.replicas,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"creationTimestamp": null, "labels": labels},
            "spec": {"containers": containers},
        },
        "strategy": {},
    });
    object["status"] = json!({});
    Ok(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        generator: Generator,
    }

    fn make(line: &str) -> Result<Value> {
        let words = std::iter::once("create").chain(line.split(' '));
        object(&Line::try_parse_from(words).unwrap().generator).map(|made| made.object)
    }

    #[test]
    fn flags_become_objects() {
        let made = |line: &str| make(line).unwrap();
        assert_eq!(made("ns a")["metadata"]["name"], "a");
        let map = made("configmap c --from-literal=a=b=c --from-literal x=");
        assert_eq!(map["data"], json!({"a": "b=c", "x": ""}));
        assert_eq!(made("secret generic s --from-literal=k=v")["data"]["k"], "dg==");
        let deploy = made("deployment web --image=docker.io/library/busybox:1.35 -r 2 --port=80 -- httpd -f");
        let container = &deploy["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["name"], "busybox");
        assert_eq!(container["command"], json!(["httpd", "-f"]));
        assert_eq!(deploy["spec"]["replicas"], 2);
        let service = made("service clusterip s --tcp=80:http");
        assert_eq!(
            service["spec"]["ports"][0],
            json!({"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http"})
        );
        assert_eq!(made("svc externalname e --external-name=a.b")["spec"]["externalName"], "a.b");
        assert_eq!(
            made("secret docker-registry d --docker-username=u --docker-password=p --docker-email=e@x")["data"],
            json!({".dockerconfigjson": "eyJhdXRocyI6eyJodHRwczovL2luZGV4LmRvY2tlci5pby92MS8iOnsidXNlcm5hbWUiOiJ1IiwicGFzc3dvcmQiOiJwIiwiZW1haWwiOiJlQHgiLCJhdXRoIjoiZFRwdyJ9fX0="})
        );
        assert_eq!(
            made("job j --image=b -- a b")["spec"]["template"]["spec"]["containers"][0]["command"],
            json!(["a", "b"])
        );
        let cron = made("cj c --image=b --schedule=1");
        assert_eq!(cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"], "OnFailure");
        let binding = made("rolebinding r --role=x --user=u --user=v --serviceaccount=n:s --group=g");
        assert_eq!(binding["subjects"].as_array().unwrap().len(), 4);
        assert_eq!(binding["subjects"][3], json!({"kind": "ServiceAccount", "name": "s", "namespace": "n"}));
        // As kubectl names it.
        assert_eq!(made("configmap c3 --append-hash --from-literal=a=b")["metadata"]["name"], "c3-52d48g29tt");
    }

    #[test]
    fn mistakes() {
        let said = |line: &str| make(line).unwrap_err().reason_text();
        assert_eq!(said("ns"), "exactly one NAME is required, got 0");
        assert_eq!(said("cm a b"), "exactly one NAME is required, got 2");
        assert_eq!(said("deployment d"), "required flag(s) \"image\" not set");
        assert_eq!(
            said("cm c --from-literal=a=b --from-literal=a=c"),
            "cannot add key \"a\", another key by that name already exists in Data for ConfigMap \"c\""
        );
        assert_eq!(said("job j"), "either --image or --from must be specified");
        assert_eq!(said("job j --from=cj/x -- a"), "cannot specify --from and command");
        assert_eq!(said("cronjob c"), "required flag(s) \"image\", \"schedule\" not set");
        assert_eq!(said("rolebinding r"), "exactly one of clusterrole or role must be specified");
        assert_eq!(said("rolebinding r --role=x --serviceaccount=s"), "serviceaccount must be <namespace>:<name>");
        assert_eq!(said("clusterrolebinding r"), "required flag(s) \"clusterrole\" not set");
        assert_eq!(said("quota"), "exactly one NAME is required, got 0");
        assert_eq!(said("pdb p"), "a selector must be specified");
        assert_eq!(
            said("ing i --rule=x"),
            "rule x is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
        );
        assert_eq!(said("svc clusterip v --tcp=x"), "strconv.ParseUint: parsing \"x\": invalid syntax");
    }
}
