//! Ingresses from flags.

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::create::How;
use super::super::errors::{CtlError, Result};
use super::{name, typed};

/// An ingress from flags.
#[derive(Debug, Clone, Args)]
pub struct IngressArgs {
    /// NAME
    pub words: Vec<String>,
    /// Ingress class to be used
    #[arg(long, default_value = "", hide_default_value = true)]
    pub class: String,
    /// host/path=service:port[,tls[=secret]], any number of times; a path that ends with * is a prefix
    #[arg(long)]
    pub rule: Vec<String>,
    /// Default service: svcname:port
    #[arg(long, default_value = "", hide_default_value = true)]
    pub default_backend: String,
    /// Annotation of the ingress: annotation=value, any number of times
    #[arg(long)]
    pub annotation: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

/// One `--rule`.
#[derive(Debug, Clone, PartialEq)]
struct Rule {
    host: String,
    path: String,
    prefix: bool,
    service: String,
    port: String,
    /// `tls`, with the secret's name or nothing.
    tls: Option<String>,
}

impl IngressArgs {
    /// The ingress.
    pub fn object(&self) -> Result<Value> {
        let mut object = typed("networking.k8s.io/v1", "Ingress", name(&self.words)?);
        if self.default_backend.is_empty() && self.rule.is_empty() {
            return Err(CtlError::plain(
                "not enough information provided: every ingress has to either specify a default-backend (which catches \
                 all traffic) or a list of rules (which catch specific paths)",
            ));
        }
        let rules = self.rule.iter().map(|text| Rule::parse(text)).collect::<Result<Vec<Rule>>>()?;
        let annotations = self.annotations()?;
        if !annotations.is_empty() {
            object["metadata"]["annotations"] = Value::Object(annotations);
        }
        let mut spec = Map::new();
        if !self.class.is_empty() {
            spec.insert("ingressClassName".to_owned(), json!(self.class));
        }
        if !self.default_backend.is_empty() {
            let [service, port] = self.default_backend.split(':').collect::<Vec<_>>()[..] else {
                return Err(CtlError::plain("default-backend should be in format servicename:serviceport"));
            };
            spec.insert("defaultBackend".to_owned(), backend(service, port));
        }
        let tls = tls(&rules);
        if !tls.is_empty() {
            spec.insert("tls".to_owned(), json!(tls));
        }
        if !rules.is_empty() {
            spec.insert("rules".to_owned(), json!(by_host(&rules)));
        }
        object["spec"] = Value::Object(spec);
        object["status"] = json!({"loadBalancer": {}});
        Ok(object)
    }

    fn annotations(&self) -> Result<Map<String, Value>> {
        let pair = |text: &String| {
            let bad = || CtlError::plain(format!("annotation {text} is invalid and should be in format key=[value]"));
            text.split_once('=').map(|(key, value)| (key.to_owned(), json!(value))).ok_or_else(bad)
        };
        self.annotation.iter().map(pair).collect()
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Rule> {
        Rule::read(text).ok_or_else(|| {
            CtlError::plain(format!(
                "rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
            ))
        })
    }

    fn read(text: &str) -> Option<Rule> {
        let word = |text: &str, more: &[char]| {
            text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || more.contains(&c))
        };
        let (target, tls) = match text.split_once(',') {
            None => (text, None),
            Some((target, tls)) => {
                let rest = tls.strip_prefix("tls")?;
                (target, Some(rest.strip_prefix('=').unwrap_or(rest).to_owned()))
            }
        };
        let (at, service) = target.split_once('=')?;
        let (host, path) = at.split_at(at.find('/')?);
        let (service, port) = service.split_once(':')?;
        let sound = word(host, &['*', '.']) && word(service, &[]) && word(port, &[]) && !path.contains('\n');
        if !sound || service.is_empty() || port.is_empty() || tls.as_ref().is_some_and(|secret| !word(secret, &[])) {
            return None;
        }
        Some(Rule {
            host: host.to_owned(),
            path: path.strip_suffix('*').unwrap_or(path).to_owned(),
            prefix: path.ends_with('*'),
            service: service.to_owned(),
            port: port.to_owned(),
            tls,
        })
    }
}

fn backend(service: &str, port: &str) -> Value {
    let port = match port.parse::<i32>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    json!({"service": {"name": service, "port": port}})
}

/// Hosts by the secret that holds their certificates; a host counts once.
fn tls(rules: &[Rule]) -> Vec<Value> {
    let mut seen: Vec<&str> = Vec::new();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for rule in rules {
        let Some(secret) = &rule.tls else { continue };
        if seen.contains(&rule.host.as_str()) {
            continue;
        }
        seen.push(&rule.host);
        match groups.iter_mut().find(|(known, _)| known == secret) {
            Some((_, hosts)) => hosts.push(rule.host.clone()),
            None if rule.host.is_empty() && secret.is_empty() => {}
            None => {
                let hosts = if rule.host.is_empty() { Vec::new() } else { vec![rule.host.clone()] };
                groups.push((secret.clone(), hosts));
            }
        }
    }
    let entry = |(secret, hosts): (String, Vec<String>)| {
        let mut entry = Map::new();
        if !hosts.is_empty() {
            entry.insert("hosts".to_owned(), json!(hosts));
        }
        if !secret.is_empty() {
            entry.insert("secretName".to_owned(), json!(secret));
        }
        Value::Object(entry)
    };
    groups.into_iter().map(entry).collect()
}

/// The rules of one host together, hosts in their order.
fn by_host(rules: &[Rule]) -> Vec<Value> {
    let mut hosts: Vec<(&str, Vec<Value>)> = Vec::new();
    for rule in rules {
        let path = json!({
            "path": rule.path,
            "pathType": if rule.prefix { "Prefix" } else { "Exact" },
            "backend": backend(&rule.service, &rule.port),
        });
        match hosts.iter_mut().find(|(host, _)| *host == rule.host) {
            Some((_, paths)) => paths.push(path),
            None => hosts.push((&rule.host, vec![path])),
        }
    }
    let entry = |(host, paths): (&str, Vec<Value>)| {
        let mut entry = Map::new();
        if !host.is_empty() {
            entry.insert("host".to_owned(), json!(host));
        }
        entry.insert("http".to_owned(), json!({"paths": paths}));
        Value::Object(entry)
    };
    hosts.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rules_are_read() {
        let rule = Rule::parse("foo.com/bar*=svc1:8080,tls=my-cert").unwrap();
        assert_eq!((rule.host.as_str(), rule.path.as_str(), rule.prefix), ("foo.com", "/bar", true));
        assert_eq!((rule.service.as_str(), rule.port.as_str(), rule.tls.as_deref()), ("svc1", "8080", Some("my-cert")));
        assert_eq!(Rule::parse("/=s:http,tls").unwrap().tls.as_deref(), Some(""));
        for bad in ["", "foo.com=s:1", "foo.com/=s", "foo.com/=s:1,ssl", "f o/=s:1", "a/=s:1,tls=x,y", "a/=:1"] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_gathered() {
        let rules: Vec<Rule> = ["a/=s:1,tls=x", "b/=s:1,tls=x", "a/c=t:web", "/d=u:2,tls"]
            .iter()
            .map(|text| Rule::parse(text).unwrap())
            .collect();
        assert_eq!(tls(&rules), [json!({"hosts": ["a", "b"], "secretName": "x"})]);
        let hosts = by_host(&rules);
        assert_eq!(hosts.len(), 3);
        assert_eq!(hosts[0]["http"]["paths"][1]["backend"]["service"]["port"], json!({"name": "web"}));
        assert_eq!(hosts[2].get("host"), None);
    }
}
