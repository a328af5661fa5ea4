//! Environment variables: `$(NAME)` references, service variables, fields of the pod. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, Service};
use trireme_api::quantity::Quantity;

/// Replaces `$(NAME)` by the value of `NAME`; unknown names stay as they are, `$$` is a `$`.
pub(crate) fn expand(text: &str, lookup: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables that tell of the services of a namespace, as Docker links once did.
pub(crate) fn service_variables<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let Some(ports) = spec.ports.as_ref().filter(|ports| !ports.is_empty()) else { continue };
        let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
        all.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
        all.insert(format!("{name}_SERVICE_PORT"), ports[0].port.to_string());
        for (index, port) in ports.iter().enumerate() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_ascii_uppercase().replace('-', "_");
                all.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{address}:{}", protocol.to_ascii_lowercase(), port.port);
            if index == 0 {
                all.insert(format!("{name}_PORT"), url.clone());
            }
            let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
            all.insert(prefix.clone(), url);
            all.insert(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
            all.insert(format!("{prefix}_PORT"), port.port.to_string());
            all.insert(format!("{prefix}_ADDR"), address.to_owned());
        }
    }
    all
}

/// What the downward API may show beyond the object itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ip: String,
    /// Of the node, where a container has no limit of its own.
    pub(crate) node_cpu_milli: i64,
    pub(crate) node_memory: i64,
}

/// The value of a `fieldRef`.
pub(crate) fn field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |field: Option<&String>| field.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => {
            let key = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
            if let Some(key) = key("metadata.labels") {
                text(meta.labels.as_ref().and_then(|map| map.get(key)))
            } else if let Some(key) = key("metadata.annotations") {
                text(meta.annotations.as_ref().and_then(|map| map.get(key)))
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    })
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let each = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    each.collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`, rounded up to whole divisors.
pub(crate) fn resource(
    container: &Container,
    facts: &Facts,
    name: &str,
    divisor: Option<&str>,
) -> Result<String, String> {
    let (list, kind) = name.split_once('.').ok_or_else(|| format!("unsupported container resource: {name}"))?;
    let resources = container.resources.as_ref();
    let of = |list: &str| {
        let map = resources.and_then(|r| if list == "limits" { r.limits.as_ref() } else { r.requests.as_ref() });
        map.and_then(|map| map.get(kind)).and_then(|q| Quantity::parse(&q.0).ok())
    };
    let found = of(list);
    let milli = match (kind, found) {
        ("cpu", Some(quantity)) => quantity.milli_value(),
        (_, Some(quantity)) => quantity.value().saturating_mul(1000),
        ("cpu", None) if list == "limits" => facts.node_cpu_milli,
        ("memory", None) if list == "limits" => facts.node_memory.saturating_mul(1000),
        ("cpu" | "memory" | "ephemeral-storage", None) => 0,
        _ => return Err(format!("unsupported container resource: {name}")),
    };
    let divisor = divisor.filter(|d| !d.is_empty() && *d != "0").unwrap_or("1");
    let divisor = Quantity::parse(divisor).map_err(|error| error.to_string())?.milli_value().max(1);
    Ok((milli + divisor - 1).div_euclid(divisor).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_are_expanded_as_upstream_does() {
        let lookup = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A)", "$(A)"),
            ("$(NO)", "$(NO)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
    }

    #[test]
    fn services_become_variables() {
        let text =
            r#"{"metadata":{"name":"my-db"},"spec":{"clusterIP":"10.0.0.1","ports":[{"name":"sql","port":5432}]}}"#;
        let services: Vec<Service> = vec![serde_json::from_str(text).unwrap()];
        let all = service_variables(services.iter());
        assert_eq!(all["MY_DB_SERVICE_HOST"], "10.0.0.1");
        assert_eq!(all["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(all["MY_DB_PORT_5432_TCP_ADDR"], "10.0.0.1");
        assert_eq!(all["MY_DB_PORT"], "tcp://10.0.0.1:5432");
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn fields_and_resources() {
        let text = r#"{"metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","resources":{"limits":{"memory":"64Mi"}}}]}}"#;
        let pod: Pod = serde_json::from_str(text).unwrap();
        let facts = Facts { node_cpu_milli: 2000, ..Facts::default() };
        assert_eq!(field(&pod, &facts, "metadata.labels['a']").unwrap(), "b");
        assert_eq!(field(&pod, &facts, "metadata.labels").unwrap(), "a=\"b\"");
        assert!(field(&pod, &facts, "spec.nope").is_err());
        let container = &pod.spec.unwrap().containers[0];
        assert_eq!(resource(container, &facts, "limits.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(resource(container, &facts, "limits.cpu", None).unwrap(), "2");
        assert_eq!(resource(container, &facts, "requests.cpu", None).unwrap(), "0");
    }
}
