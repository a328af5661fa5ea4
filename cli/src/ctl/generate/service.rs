//! Services from flags.

use clap::Args;
use serde_json::{Value, json};

use super::super::create::How;
use super::super::errors::{CtlError, Result};
use super::{name, typed};

/// A service from flags.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// NAME
    pub words: Vec<String>,
    /// Port pairs: port or port:targetPort
    #[arg(long, value_delimiter = ',')]
    pub tcp: Vec<String>,
    /// Address to use; None for a headless service (clusterip only)
    #[arg(long)]
    pub clusterip: Option<String>,
    /// Port to expose on each node (nodeport only)
    #[arg(long, default_value_t = 0)]
    pub node_port: i32,
    #[command(flatten)]
    pub how: How,
}

/// A service that stands for a name outside.
#[derive(Debug, Clone, Args)]
pub struct ExternalNameArgs {
    #[command(flatten)]
    pub service: ServiceArgs,
    /// External name of service
    #[arg(long)]
    pub external_name: Option<String>,
}

/// Types of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// An address inside the cluster.
    ClusterIp,
    /// A port on every node.
    NodePort,
    /// A load balancer outside.
    LoadBalancer,
    /// A name outside.
    ExternalName,
}

impl ExternalNameArgs {
    /// The service.
    pub fn object(&self) -> Result<Value> {
        let Some(external) = &self.external_name else {
            return Err(CtlError::plain("required flag(s) \"external-name\" not set"));
        };
        if !trireme_api::names::dns1123_subdomain(external).is_empty() {
            return Err(CtlError::plain(format!("invalid service external name {external}")));
        }
        let mut object = self.service.object(ServiceKind::ExternalName)?;
        object["spec"]["externalName"] = json!(external);
        Ok(object)
    }
}

impl ServiceArgs {
    /// The service.
    pub fn object(&self, kind: ServiceKind) -> Result<Value> {
        let name = name(&self.words)?;
        let headless = self.clusterip.as_deref() == Some("None");
        if self.tcp.is_empty() && !headless && kind != ServiceKind::ExternalName {
            return Err(CtlError::plain("at least one tcp port specifier must be provided"));
        }
        let ports = self.tcp.iter().map(|spec| self.port(spec)).collect::<Result<Vec<Value>>>()?;
        let mut object = typed("v1", "Service", name);
        object["metadata"]["labels"] = json!({"app": name});
        object["spec"] = json!({});
        if !ports.is_empty() {
            object["spec"]["ports"] = json!(ports);
        }
        object["spec"]["selector"] = json!({"app": name});
        if let Some(address) = self.clusterip.as_ref().filter(|_| kind == ServiceKind::ClusterIp) {
            object["spec"]["clusterIP"] = json!(address);
        }
        object["spec"]["type"] = json!(match kind {
            ServiceKind::ClusterIp => "ClusterIP",
            ServiceKind::NodePort => "NodePort",
            ServiceKind::LoadBalancer => "LoadBalancer",
            ServiceKind::ExternalName => "ExternalName",
        });
        object["status"] = json!({"loadBalancer": {}});
        Ok(object)
    }

    fn port(&self, spec: &str) -> Result<Value> {
        let mut parts = spec.split(':');
        let port = parts.next().unwrap_or_default();
        let number: u16 = port.parse().map_err(|_| {
            let reason = if port.parse::<u64>().is_ok() { "value out of range" } else { "invalid syntax" };
            CtlError::plain(format!("strconv.ParseUint: parsing {port:?}: {reason}"))
        })?;
        let target = parts.next().unwrap_or(port);
        let (target, wrong) = match target.parse::<i64>() {
            Ok(number) => (Value::from(number), trireme_api::names::port_number(number)),
            Err(_) => (Value::from(target), trireme_api::names::port_name(target)),
        };
        // A service may have the port 0 in its flags, as kubectl's.
        if spec.contains(':') && !wrong.is_empty() {
            return Err(CtlError::plain(wrong.join(",")));
        }
        let mut entry =
            json!({"name": spec.replace(':', "-"), "protocol": "TCP", "port": number, "targetPort": target});
        if self.node_port != 0 {
            entry["nodePort"] = json!(self.node_port);
        }
        Ok(entry)
    }
}
