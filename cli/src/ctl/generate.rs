//! Objects from flags: `trictl create KIND …`, `trictl run`.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::create::How;
use super::errors::{CtlError, Result};

/// Kinds that flags can make.
#[derive(Debug, Clone, Subcommand)]
pub enum Generator {
    /// Create a namespace
    #[command(visible_alias = "ns")]
    Namespace(Named),
    /// Create a service account
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(Named),
    /// Create a config map from files, folders or literals
    #[command(name = "configmap", visible_alias = "cm")]
    ConfigMap(Contents),
    /// Create a secret
    Secret {
        /// Which kind of secret
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// Create a deployment
    #[command(visible_alias = "deploy")]
    Deployment(DeploymentArgs),
    /// Create a service
    #[command(visible_alias = "svc")]
    Service {
        /// Which kind of service
        #[command(subcommand)]
        kind: ServiceKind,
    },
}

/// Kinds of secrets.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretKind {
    /// From files, folders or literals
    Generic(Contents),
    /// From a certificate and its key
    Tls(TlsArgs),
}

/// Kinds of services.
#[derive(Debug, Clone, Subcommand)]
pub enum ServiceKind {
    /// With an address inside the cluster
    #[command(name = "clusterip")]
    ClusterIp(ServiceArgs),
    /// With a port on every node
    #[command(name = "nodeport")]
    NodePort(ServiceArgs),
}

/// An object that only has a name.
#[derive(Debug, Clone, Args)]
pub struct Named {
    /// Name of the object
    pub name: String,
    #[command(flatten)]
    pub how: How,
}

/// What a config map or a secret holds.
#[derive(Debug, Clone, Args)]
pub struct Contents {
    /// Name of the object
    pub name: String,
    /// A file, key=file, or a folder of files
    #[arg(long)]
    pub from_file: Vec<String>,
    /// key=value
    #[arg(long)]
    pub from_literal: Vec<String>,
    /// A file of key=value lines
    #[arg(long)]
    pub from_env_file: Vec<String>,
    /// Type of the secret
    #[arg(long, default_value = "")]
    pub r#type: String,
    #[command(flatten)]
    pub how: How,
}

/// A certificate with its key.
#[derive(Debug, Clone, Args)]
pub struct TlsArgs {
    /// Name of the object
    pub name: String,
    /// Path to the certificate
    #[arg(long)]
    pub cert: String,
    /// Path to the key
    #[arg(long)]
    pub key: String,
    #[command(flatten)]
    pub how: How,
}

/// A deployment from flags.
#[derive(Debug, Clone, Args)]
pub struct DeploymentArgs {
    /// Name of the object
    pub name: String,
    /// Image to run (several for several containers)
    #[arg(long, required = true)]
    pub image: Vec<String>,
    /// Number of replicas
    #[arg(short, long, default_value_t = 1)]
    pub replicas: i32,
    /// Port that the container serves on
    #[arg(long)]
    pub port: Option<i32>,
    #[command(flatten)]
    pub how: How,
    /// Command and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// A service from flags.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// Name of the object
    pub name: String,
    /// port or port:targetPort
    #[arg(long, value_delimiter = ',')]
    pub tcp: Vec<String>,
    /// Address to use; None for a headless service
    #[arg(long)]
    pub clusterip: Option<String>,
    /// Port on the nodes
    #[arg(long)]
    pub node_port: Option<i32>,
    #[command(flatten)]
    pub how: How,
}

/// The object with the flags that say how to create it.
pub fn object(generator: &Generator) -> Result<(Value, &How)> {
    Ok(match generator {
        Generator::Namespace(args) => {
            (json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": args.name}}), &args.how)
        }
        Generator::ServiceAccount(args) => {
            (json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": args.name}}), &args.how)
        }
        Generator::ConfigMap(args) => (config_map(args)?, &args.how),
        Generator::Secret { kind: SecretKind::Generic(args) } => (secret(args)?, &args.how),
        Generator::Secret { kind: SecretKind::Tls(args) } => (tls_secret(args)?, &args.how),
        Generator::Deployment(args) => (deployment(args)?, &args.how),
        Generator::Service { kind: ServiceKind::ClusterIp(args) } => (service(args, "ClusterIP")?, &args.how),
        Generator::Service { kind: ServiceKind::NodePort(args) } => (service(args, "NodePort")?, &args.how),
    })
}

fn config_map(args: &Contents) -> Result<Value> {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in contents(args)? {
        match String::from_utf8(bytes) {
            Ok(text) => data.insert(key, Value::from(text)),
            Err(error) => binary.insert(key, Value::from(STANDARD.encode(error.as_bytes()))),
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": args.name}});
    if !data.is_empty() {
        object["data"] = Value::Object(data);
    }
    if !binary.is_empty() {
        object["binaryData"] = Value::Object(binary);
    }
    Ok(object)
}

fn secret(args: &Contents) -> Result<Value> {
    let data: Map<String, Value> =
        contents(args)?.into_iter().map(|(key, bytes)| (key, Value::from(STANDARD.encode(bytes)))).collect();
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": args.name}});
    if !data.is_empty() {
        object["data"] = Value::Object(data);
    }
    if !args.r#type.is_empty() {
        object["type"] = Value::from(args.r#type.clone());
    }
    Ok(object)
}

fn tls_secret(args: &TlsArgs) -> Result<Value> {
    let (cert, key) = (read(Path::new(&args.cert))?, read(Path::new(&args.key))?);
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": args.name}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": STANDARD.encode(cert), "tls.key": STANDARD.encode(key)},
    }))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| CtlError::plain(format!("error reading {}: {error}", path.display())))
}

fn contents(args: &Contents) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for literal in &args.from_literal {
        let (key, value) = literal
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| CtlError::plain(format!("invalid literal source {literal}, expected key=value")))?;
        found.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    for source in &args.from_file {
        let (key, path) = match source.split_once('=') {
            Some((key, path)) => (Some(key.to_owned()), Path::new(path)),
            None => (None, Path::new(source)),
        };
        if !path.is_dir() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            found.push((key.unwrap_or(name), read(path)?));
            continue;
        }
        let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries.into_iter().filter(|entry| entry.path().is_file()) {
            found.push((entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?));
        }
    }
    for source in &args.from_env_file {
        let text = String::from_utf8_lossy(&read(Path::new(source))?).into_owned();
        for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            found.push((key.to_owned(), value.as_bytes().to_vec()));
        }
    }
    for (index, (key, _)) in found.iter().enumerate() {
        if found[..index].iter().any(|(other, _)| other == key) {
            return Err(CtlError::plain(format!("cannot add key {key:?}, another key by that name already exists")));
        }
    }
    Ok(found)
}

/// A container's name from its image: `docker.io/library/busybox:1.35` gives `busybox`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last);
    bare.to_lowercase().replace(['_', '.'], "-")
}

fn deployment(args: &DeploymentArgs) -> Result<Value> {
    if args.image.len() > 1 && !args.command.is_empty() {
        return Err(CtlError::plain("cannot specify multiple --image options and command"));
    }
    let containers: Vec<Value> = args
        .image
        .iter()
        .map(|image| {
            let mut container = json!({"image": image, "name": container_name(image), "resources": {}});
            if !args.command.is_empty() {
                container["command"] = json!(args.command);
            }
            if let Some(port) = args.port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            container
        })
        .collect();
    let labels = json!({"app": args.name});
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": args.name, "labels": labels},
        "spec": {
            "replicas": args.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

fn service(args: &ServiceArgs, kind: &str) -> Result<Value> {
    let headless = args.clusterip.as_deref() == Some("None");
    if args.tcp.is_empty() && !headless {
        return Err(CtlError::plain("at least one tcp port specifier must be provided"));
    }
    let mut ports = Vec::new();
    for spec in &args.tcp {
        let (port, target) = spec.split_once(':').unwrap_or((spec, spec));
        let number: i32 = port.parse().map_err(|_| CtlError::plain(format!("invalid port {port:?}")))?;
        let target = target.parse::<i32>().map(Value::from).unwrap_or_else(|_| Value::from(target));
        let mut entry =
            json!({"name": spec.replace(':', "-"), "port": number, "protocol": "TCP", "targetPort": target});
        if let Some(node_port) = args.node_port {
            entry["nodePort"] = Value::from(node_port);
        }
        ports.push(entry);
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": args.name, "labels": {"app": args.name}},
        "spec": {"selector": {"app": args.name}, "type": kind, "ports": ports},
    });
    if let Some(address) = &args.clusterip {
        object["spec"]["clusterIP"] = Value::from(address.clone());
    }
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

    fn make(line: &str) -> Value {
        let words = std::iter::once("create").chain(line.split(' '));
        object(&Line::try_parse_from(words).unwrap().generator).unwrap().0
    }

    #[test]
    fn flags_become_objects() {
        assert_eq!(make("ns a")["metadata"]["name"], "a");
        let map = make("configmap c --from-literal=a=b=c --from-literal x=");
        assert_eq!(map["data"], json!({"a": "b=c", "x": ""}));
        assert_eq!(make("secret generic s --from-literal=k=v")["data"]["k"], "dg==");
        let deploy = make("deployment web --image=docker.io/library/busybox:1.35 -r 2 --port=80 -- httpd -f");
        let container = &deploy["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["name"], "busybox");
        assert_eq!(container["command"], json!(["httpd", "-f"]));
        assert_eq!(deploy["spec"]["replicas"], 2);
        let service = make("service clusterip s --tcp=80:http");
        assert_eq!(
            service["spec"]["ports"][0],
            json!({"name": "80-http", "port": 80, "protocol": "TCP", "targetPort": "http"})
        );
    }
}
