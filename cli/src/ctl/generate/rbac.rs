//! Roles and bindings from flags.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::create::How;
use super::super::discovery::{Discovery, Resource};
use super::super::errors::{CtlError, Result};
use super::{name, typed};

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Verbs of resources that nothing is said about.
const RESOURCE_VERBS: [&str; 14] = [
    "*",
    "get",
    "delete",
    "list",
    "create",
    "update",
    "patch",
    "watch",
    "proxy",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
];

/// Verbs of paths.
const PATH_VERBS: [&str; 8] = ["*", "get", "post", "put", "delete", "patch", "head", "options"];

/// Verbs that only some resources have: verb, group, resource.
const SPECIAL: [(&str, &str, &str); 10] = [
    ("use", "policy", "podsecuritypolicies"),
    ("use", "extensions", "podsecuritypolicies"),
    ("bind", GROUP, "roles"),
    ("bind", GROUP, "clusterroles"),
    ("escalate", GROUP, "roles"),
    ("escalate", GROUP, "clusterroles"),
    ("impersonate", "", "users"),
    ("impersonate", "", "serviceaccounts"),
    ("impersonate", "", "groups"),
    ("impersonate", "authentication.k8s.io", "userextras"),
];

/// What a rule is about.
#[derive(Debug, Clone, Args)]
pub struct RuleArgs {
    /// Verb that applies to the resources contained in the rule
    #[arg(long, value_delimiter = ',')]
    pub verb: Vec<String>,
    /// Resource that the rule applies to
    #[arg(long, value_delimiter = ',')]
    pub resource: Vec<String>,
    /// Resource in the white list that the rule applies to, any number of times
    #[arg(long)]
    pub resource_name: Vec<String>,
}

/// A role from flags.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub rule: RuleArgs,
    #[command(flatten)]
    pub how: How,
}

/// A cluster role from flags.
#[derive(Debug, Clone, Args)]
pub struct ClusterRoleArgs {
    /// NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub rule: RuleArgs,
    /// A partial URL that users should have access to
    #[arg(long = "non-resource-url", value_delimiter = ',')]
    pub paths: Vec<String>,
    /// Labels of the cluster roles to combine, KEY=VALUE separated by commas
    #[arg(long, value_delimiter = ',')]
    pub aggregation_rule: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

/// Whom a role is bound to.
#[derive(Debug, Clone, Default, Args)]
pub struct Subjects {
    /// Groups to bind to the role
    #[arg(long)]
    pub group: Vec<String>,
    /// Service accounts to bind to the role, in the format <namespace>:<name>
    #[arg(long)]
    pub serviceaccount: Vec<String>,
    /// Usernames to bind to the role (not a user of the kubeconfig, as elsewhere)
    #[arg(long)]
    pub user: Vec<String>,
}

/// A role binding from flags.
#[derive(Debug, Clone, Args)]
pub struct RoleBindingArgs {
    /// NAME
    pub words: Vec<String>,
    /// ClusterRole this RoleBinding should reference
    #[arg(long, default_value = "", hide_default_value = true)]
    pub clusterrole: String,
    /// Role this RoleBinding should reference
    #[arg(long, default_value = "", hide_default_value = true)]
    pub role: String,
    #[command(flatten)]
    pub subjects: Subjects,
    #[command(flatten)]
    pub how: How,
}

/// A cluster role binding from flags.
#[derive(Debug, Clone, Args)]
pub struct ClusterRoleBindingArgs {
    /// NAME
    pub words: Vec<String>,
    /// ClusterRole this ClusterRoleBinding should reference
    #[arg(long)]
    pub clusterrole: Option<String>,
    #[command(flatten)]
    pub subjects: Subjects,
    #[command(flatten)]
    pub how: How,
}

/// What a flag that was given without a value leaves: nothing.
fn given(words: &[String]) -> &[String] {
    match words {
        [only] if only.is_empty() => &[],
        words => words,
    }
}

/// Words in their order, each once.
fn once(words: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in given(words) {
        if !all.contains(word) {
            all.push(word.clone());
        }
    }
    all
}

/// `deployments.apps/scale` taken apart.
struct Asked {
    resource: String,
    group: String,
    subresource: String,
}

impl RuleArgs {
    /// Each verb once; `*` stands for all.
    fn verbs(&self) -> Vec<String> {
        if self.verb.iter().any(|verb| verb == "*") { vec!["*".to_owned()] } else { once(&self.verb) }
    }

    fn resources(&self) -> Vec<Asked> {
        let mut all = Vec::new();
        for word in given(&self.resource) {
            let (path, subresource) = word.split_once('/').unwrap_or((word, ""));
            let (resource, group) = path.split_once('.').unwrap_or((path, ""));
            let asked =
                Asked { resource: resource.to_owned(), group: group.to_owned(), subresource: subresource.to_owned() };
            if word == "*" {
                return vec![asked];
            }
            all.push(asked);
        }
        all
    }

    fn check_resources(&self, discovery: &Discovery) -> Result<()> {
        for verb in self.verbs() {
            if !RESOURCE_VERBS.contains(&verb.as_str()) {
                eprintln!("Warning: '{verb}' is not a standard resource verb");
            }
        }
        for asked in self.resources() {
            if asked.resource.is_empty() {
                return Err(CtlError::plain("resource must be specified if apiGroup/subresource specified"));
            }
            if asked.resource == "*" {
                return Ok(());
            }
            asked.check(discovery, &self.verbs())?;
        }
        Ok(())
    }

    /// One rule for each group.
    fn rules(&self, discovery: &Discovery, paths: &[String]) -> Vec<Value> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for asked in self.resources() {
            let (group, mut plural) = asked.found(discovery);
            if !asked.subresource.is_empty() {
                plural = format!("{plural}/{}", asked.subresource);
            }
            let known = groups.entry(group).or_default();
            if !known.contains(&plural) {
                known.push(plural);
            }
        }
        let (verbs, names) = (self.verbs(), once(&self.resource_name));
        let mut rules: Vec<Value> = Vec::new();
        for (group, resources) in groups {
            let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rules.push(rule);
        }
        if !paths.is_empty() {
            rules.push(json!({"verbs": verbs, "nonResourceURLs": paths}));
        }
        rules
    }
}

impl Asked {
    fn known(&self, discovery: &Discovery) -> Option<std::sync::Arc<Resource>> {
        match self.group.as_str() {
            "" => discovery.find(&self.resource),
            group => discovery.find(&format!("{}.{group}", self.resource)),
        }
    }

    /// Group and plural, as the server has them, or as they were given.
    fn found(&self, discovery: &Discovery) -> (String, String) {
        match self.known(discovery) {
            Some(known) => (known.group.clone(), known.plural.clone()),
            None => (self.group.clone(), self.resource.clone()),
        }
    }

    fn check(&self, discovery: &Discovery, verbs: &[String]) -> Result<()> {
        let (group, plural) = self.found(discovery);
        let mut known = self.known(discovery).is_some();
        for verb in verbs {
            let mut special = SPECIAL.iter().filter(|(name, _, _)| name == verb).peekable();
            if special.peek().is_none() {
                continue;
            }
            if !special.any(|(_, of, resource)| *of == group && *resource == plural) {
                return Err(CtlError::plain(format!("can not perform '{verb}' on '{plural}' in group '{group}'")));
            }
            known = true;
        }
        if known {
            return Ok(());
        }
        let within = if self.group.is_empty() { String::new() } else { format!(" in group {:?}", self.group) };
        Err(CtlError::bare(format!("the server doesn't have a resource type {:?}{within}", self.resource)))
    }
}

impl RoleArgs {
    /// The role.
    pub fn object(&self, discovery: &Discovery) -> Result<Value> {
        let mut object = typed(VERSION, "Role", name(&self.words)?);
        if given(&self.rule.verb).is_empty() {
            return Err(CtlError::plain("at least one verb must be specified"));
        }
        if given(&self.rule.resource).is_empty() {
            // Verbs are looked at first.
            self.rule.check_resources(discovery)?;
            return Err(CtlError::plain("at least one resource must be specified"));
        }
        self.rule.check_resources(discovery)?;
        object["rules"] = json!(self.rule.rules(discovery, &[]));
        Ok(object)
    }
}

impl ClusterRoleArgs {
    /// The cluster role.
    pub fn object(&self, discovery: &Discovery) -> Result<Value> {
        let mut object = typed(VERSION, "ClusterRole", name(&self.words)?);
        if !self.aggregation_rule.is_empty() {
            return self.aggregated(object);
        }
        if given(&self.rule.verb).is_empty() {
            return Err(CtlError::plain("at least one verb must be specified"));
        }
        if given(&self.rule.resource).is_empty() && given(&self.paths).is_empty() {
            return Err(CtlError::plain("one of resource or nonResourceURL must be specified"));
        }
        if !given(&self.rule.resource).is_empty() {
            self.rule.check_resources(discovery)?;
        }
        self.check_paths()?;
        object["rules"] = json!(self.rule.rules(discovery, &once(&self.paths)));
        Ok(object)
    }

    fn aggregated(&self, mut object: Value) -> Result<Value> {
        let rule = &self.rule;
        let others = [&self.paths, &rule.verb, &rule.resource, &rule.resource_name];
        if others.iter().any(|words| !words.is_empty()) {
            return Err(CtlError::plain(
                "aggregation rule must be specified without nonResourceURLs, verbs, resources or resourceNames",
            ));
        }
        let mut labels = Map::new();
        for pair in &self.aggregation_rule {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| CtlError::plain(format!("malformed pair, expect string=string, got {pair:?}")))?;
            labels.insert(key.trim().to_owned(), json!(value.trim()));
        }
        object["rules"] = Value::Null;
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        Ok(object)
    }

    fn check_paths(&self) -> Result<()> {
        if given(&self.paths).is_empty() {
            return Ok(());
        }
        if let Some(verb) = self.rule.verbs().iter().find(|verb| !PATH_VERBS.contains(&verb.as_str())) {
            return Err(CtlError::plain(format!("invalid verb: '{verb}' for nonResourceURL")));
        }
        for path in self.paths.iter().filter(|path| *path != "*") {
            if !path.starts_with('/') {
                return Err(CtlError::plain("nonResourceURL should start with /"));
            }
            if path.strip_suffix('*').unwrap_or(path).contains('*') {
                return Err(CtlError::plain("nonResourceURL only supports wildcard matches when '*' is at the end"));
            }
        }
        Ok(())
    }
}

impl Subjects {
    fn list(&self) -> Result<Vec<Value>> {
        let of = |kind: &str, name: &String| json!({"kind": kind, "apiGroup": GROUP, "name": name});
        let mut all: Vec<Value> = self.user.iter().map(|name| of("User", name)).collect();
        all.extend(self.group.iter().map(|name| of("Group", name)));
        for word in &self.serviceaccount {
            match word.split(':').collect::<Vec<_>>().as_slice() {
                [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                    all.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
                }
                _ => return Err(CtlError::plain("serviceaccount must be <namespace>:<name>")),
            }
        }
        Ok(all)
    }

    fn fill(&self, mut object: Value, kind: &str, name: &str) -> Result<Value> {
        let subjects = self.list()?;
        if !subjects.is_empty() {
            object["subjects"] = json!(subjects);
        }
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name});
        Ok(object)
    }
}

impl RoleBindingArgs {
    /// The role binding.
    pub fn object(&self) -> Result<Value> {
        let object = typed(VERSION, "RoleBinding", name(&self.words)?);
        if self.clusterrole.is_empty() == self.role.is_empty() {
            return Err(CtlError::plain("exactly one of clusterrole or role must be specified"));
        }
        match self.role.as_str() {
            "" => self.subjects.fill(object, "ClusterRole", &self.clusterrole),
            role => self.subjects.fill(object, "Role", role),
        }
    }
}

impl ClusterRoleBindingArgs {
    /// The cluster role binding.
    pub fn object(&self) -> Result<Value> {
        let Some(role) = &self.clusterrole else {
            return Err(CtlError::plain("required flag(s) \"clusterrole\" not set"));
        };
        let object = typed(VERSION, "ClusterRoleBinding", name(&self.words)?);
        self.subjects.fill(object, "ClusterRole", role)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::discovery::tests::sample;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        role: ClusterRoleArgs,
    }

    fn role(line: &str) -> Result<Value> {
        let words = std::iter::once("clusterrole").chain(line.split(' '));
        Line::try_parse_from(words).unwrap().role.object(&sample())
    }

    #[test]
    fn rules_are_sorted_by_group_and_name_resources_as_the_server_does() {
        let made = role("r --verb=get,list --verb=get --resource=deploy,po,pods/log,deployments.apps/scale").unwrap();
        assert_eq!(
            made["rules"],
            json!([
                {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
                {"verbs": ["get", "list"], "apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"]},
            ])
        );
        let all = role("r --verb=* --verb=get --resource=*").unwrap();
        assert_eq!(all["rules"], json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}]));
        let path = role("r --verb=get --non-resource-url=/logs/*,/logs/*").unwrap();
        assert_eq!(path["rules"], json!([{"verbs": ["get"], "nonResourceURLs": ["/logs/*"]}]));
        let aggregated = role("r --aggregation-rule=a/b=true").unwrap();
        assert_eq!(aggregated["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"], json!({"a/b": "true"}));
    }

    #[test]
    fn mistakes() {
        for (line, said) in [
            ("r", "at least one verb must be specified"),
            ("r --verb= --resource=pods", "at least one verb must be specified"),
            ("r --verb=get --resource=", "one of resource or nonResourceURL must be specified"),
            ("r --verb=get", "one of resource or nonResourceURL must be specified"),
            ("r --verb=get --resource=nope", "the server doesn't have a resource type \"nope\""),
            ("r --verb=get --resource=po.x", "the server doesn't have a resource type \"po\" in group \"x\""),
            ("r --verb=bind --resource=pods", "can not perform 'bind' on 'pods' in group ''"),
            ("r --verb=get --resource=/log", "resource must be specified if apiGroup/subresource specified"),
            ("r --verb=watch --non-resource-url=/x", "invalid verb: 'watch' for nonResourceURL"),
            ("r --verb=get --non-resource-url=x", "nonResourceURL should start with /"),
            (
                "r --verb=get --non-resource-url=/a/*/b",
                "nonResourceURL only supports wildcard matches when '*' is at the end",
            ),
            ("r --aggregation-rule=a", "malformed pair, expect string=string, got \"a\""),
            (
                "r --aggregation-rule=a=b --verb=get",
                "aggregation rule must be specified without nonResourceURLs, verbs, resources or resourceNames",
            ),
        ] {
            assert_eq!(role(line).unwrap_err().reason_text(), said, "{line}");
        }
        assert!(role("r --verb=impersonate --resource=users").is_ok());
    }
}
