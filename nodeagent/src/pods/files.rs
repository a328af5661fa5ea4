//! The files that every pod gets: hosts, hostname and resolv.conf. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

/// The pod's host name inside its namespaces.
pub(crate) fn hostname(pod: &Pod, node: &str) -> String {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network).unwrap_or(false) {
        return node.to_owned();
    }
    let name = spec.and_then(|s| s.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = name.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // The kernel takes 64 bytes, the kubelet 63; a name must not end in a separator.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// `hostname.subdomain.namespace.svc.domain`, if the pod has a subdomain.
fn full_hostname(pod: &Pod, node: &str, domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|s| !s.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{}.{subdomain}.{namespace}.svc.{domain}", hostname(pod, node)))
}

/// `/etc/hosts` of a pod. `host` is the node's own file, used for pods on the node's network.
pub(crate) fn hosts(pod: &Pod, ips: &[String], node: &str, domain: &str, host: &str) -> String {
    let on_host = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    let mut text = if on_host {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::0\tip6-localnet\n\
            fe00::0\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\n\
            fe00::2\tip6-allrouters\n"
            .to_owned();
        let name = hostname(pod, node);
        for ip in ips {
            text.push_str(&match full_hostname(pod, node, domain) {
                Some(full) => format!("{ip}\t{full}\t{name}\n"),
                None => format!("{ip}\t{name}\n"),
            });
        }
        text
    };
    let aliases: Vec<String> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten())
        .map(|alias| {
            format!("{}\t{}\n", alias.ip, alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"))
        })
        .collect();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.push_str(&aliases.concat());
    }
    text
}

/// `/etc/resolv.conf` of a pod. `host` is the node's own file.
pub(crate) fn resolv_conf(pod: &Pod, dns: &[IpAddr], domain: &str, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|s| s.host_network).unwrap_or(false);
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !on_host);
    let words = |key: &str| -> Vec<String> {
        let lines = host.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.flat_map(|rest| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let (mut servers, mut searches, mut options) = match policy {
        "None" => (Vec::new(), Vec::new(), Vec::new()),
        _ => (words("nameserver "), words("search "), words("options ")),
    };
    if cluster && !dns.is_empty() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        servers = dns.iter().map(ToString::to_string).collect();
        let mut own = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        own.append(&mut searches);
        searches = own;
        options = vec!["ndots:5".to_owned()];
    }
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        servers.extend(config.nameservers.iter().flatten().cloned());
        searches.extend(config.searches.iter().flatten().cloned());
        options.extend(config.options.iter().flatten().filter_map(|option| {
            let name = option.name.clone()?;
            Some(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")))
        }));
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    // The resolver library reads three.
    for server in servers.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(spec: &str) -> Pod {
        let text = format!(r#"{{"metadata":{{"name":"web-0","namespace":"shop"}},"spec":{spec}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod = pod(r#"{"containers":[],"subdomain":"web","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]}"#);
        let text = hosts(&pod, &["10.1.0.5".to_owned()], "node", "cluster.local", "");
        assert!(text.contains("10.1.0.5\tweb-0.web.shop.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn names_are_resolved_in_the_cluster_first() {
        let host = "nameserver 9.9.9.9\nsearch example.org\n";
        let dns = [IpAddr::from([10, 96, 0, 10])];
        let text = resolv_conf(&pod(r#"{"containers":[]}"#), &dns, "cluster.local", host);
        assert_eq!(
            text,
            "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        let plain = resolv_conf(&pod(r#"{"containers":[],"dnsPolicy":"Default"}"#), &dns, "cluster.local", host);
        assert_eq!(plain, "search example.org\nnameserver 9.9.9.9\n");
    }
}
