//! Quotas and pod disruption budgets from flags.

use clap::Args;
use serde_json::{Map, Value, json};
use trireme_api::quantity::Quantity;
use trireme_api::selector::{LabelSelector, Operator};

use super::super::create::How;
use super::super::errors::{CtlError, Result};
use super::{name, typed};

/// A quota from flags.
#[derive(Debug, Clone, Args)]
pub struct QuotaArgs {
    /// NAME
    pub words: Vec<String>,
    /// Hard limits: resource=quantity, separated by commas
    #[arg(long, default_value = "", hide_default_value = true)]
    pub hard: String,
    /// Scopes that must all match each object that the quota tracks, separated by commas
    #[arg(long, default_value = "", hide_default_value = true)]
    pub scopes: String,
    #[command(flatten)]
    pub how: How,
}

/// A pod disruption budget from flags.
#[derive(Debug, Clone, Args)]
pub struct BudgetArgs {
    /// NAME
    pub words: Vec<String>,
    /// The number or percentage of pods that have to be available
    #[arg(long, default_value = "", hide_default_value = true)]
    pub min_available: String,
    /// The number or percentage of pods that may be unavailable
    #[arg(long, default_value = "", hide_default_value = true)]
    pub max_unavailable: String,
    /// The pods that this is about
    #[arg(long, default_value = "", hide_default_value = true)]
    pub selector: String,
    #[command(flatten)]
    pub how: How,
}

impl QuotaArgs {
    /// The quota.
    pub fn object(&self) -> Result<Value> {
        let mut object = typed("v1", "ResourceQuota", name(&self.words)?);
        let mut spec = Map::new();
        if !self.hard.is_empty() {
            spec.insert("hard".to_owned(), hard(&self.hard)?);
        }
        if !self.scopes.is_empty() {
            let scopes: Vec<&str> = self.scopes.split(',').collect();
            if scopes.contains(&"") {
                return Err(CtlError::plain("invalid resource quota scope \"\""));
            }
            spec.insert("scopes".to_owned(), json!(scopes));
        }
        object["spec"] = Value::Object(spec);
        object["status"] = json!({});
        Ok(object)
    }
}

fn hard(text: &str) -> Result<Value> {
    let mut limits = std::collections::BTreeMap::new();
    for pair in text.split(',') {
        let (resource, amount) = match pair.split('=').collect::<Vec<_>>().as_slice() {
            [resource, amount] => (*resource, *amount),
            _ => {
                return Err(CtlError::plain(format!("Invalid argument syntax {pair}, expected <resource>=<value>")));
            }
        };
        let amount = Quantity::parse(amount).map_err(|error| CtlError::plain(error.to_string()))?;
        limits.insert(resource.to_owned(), amount.to_string());
    }
    Ok(json!(limits))
}

impl BudgetArgs {
    /// The budget.
    pub fn object(&self) -> Result<Value> {
        let mut object = typed("policy/v1", "PodDisruptionBudget", name(&self.words)?);
        let plain = |text: &str| Err(CtlError::plain(text));
        if self.selector.is_empty() {
            return plain("a selector must be specified");
        }
        let mut spec = Map::new();
        match (self.min_available.as_str(), self.max_unavailable.as_str()) {
            ("", "") => return plain("one of min-available or max-unavailable must be specified"),
            (min, "") => {
                spec.insert("minAvailable".to_owned(), amount(min, "min-available")?);
                spec.insert("selector".to_owned(), selector(&self.selector)?);
            }
            ("", max) => {
                spec.insert("selector".to_owned(), selector(&self.selector)?);
                spec.insert("maxUnavailable".to_owned(), amount(max, "max-unavailable")?);
            }
            _ => return plain("min-available and max-unavailable cannot be both specified"),
        }
        object["spec"] = Value::Object(spec);
        object["status"] =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        Ok(object)
    }
}

/// A number, or a percentage as a text.
fn amount(text: &str, flag: &str) -> Result<Value> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CtlError::plain(format!("invalid format specified for {flag}")));
    }
    Ok(text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number)))
}

/// A selector's text as the API's object.
fn selector(text: &str) -> Result<Value> {
    let bad = |reason: String| CtlError::plain(format!("couldn't parse the selector string {text:?}: {reason}"));
    let parsed = LabelSelector::parse(text).map_err(|error| bad(error.to_string()))?;
    let (mut labels, mut expressions) = (Map::new(), Vec::new());
    for requirement in parsed.requirements {
        let operator = match requirement.operator {
            Operator::Equals => {
                labels.insert(requirement.key, json!(requirement.values.first()));
                continue;
            }
            Operator::In => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => {
                return Err(bad("only = , == , != , in and notin are supported".to_owned()));
            }
        };
        let mut expression = json!({"key": requirement.key, "operator": operator});
        if !requirement.values.is_empty() {
            expression["values"] = json!(requirement.values);
        }
        expressions.push(expression);
    }
    let mut object = Map::new();
    if !labels.is_empty() {
        object.insert("matchLabels".to_owned(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        object.insert("matchExpressions".to_owned(), json!(expressions));
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn limits_are_canonical() {
        assert_eq!(
            hard("pods=4,cpu=1500m,memory=1024Mi").unwrap(),
            json!({"cpu": "1500m", "memory": "1Gi", "pods": "4"})
        );
        assert_eq!(hard("cpu").unwrap_err().reason_text(), "Invalid argument syntax cpu, expected <resource>=<value>");
        assert!(hard("cpu=x").is_err());
    }

    #[test]
    fn amounts_and_selectors() {
        assert_eq!((amount("50%", "x").unwrap(), amount("3", "x").unwrap()), (json!("50%"), json!(3)));
        assert_eq!(
            amount("3Gi", "min-available").unwrap_err().reason_text(),
            "invalid format specified for min-available"
        );
        assert_eq!(
            selector("a=b,c in (d,e),!f").unwrap(),
            json!({"matchLabels": {"a": "b"}, "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]})
        );
    }
}
