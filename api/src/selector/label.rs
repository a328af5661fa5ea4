//! Label selectors as requirements on labels.

use super::{SelectorError, parse};
use crate::names;
use serde_json::{Map, Value};
use std::fmt;

/// How a label must relate to the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=` or `==`.
    Equals,
    /// `!=`.
    NotEquals,
    /// `in`.
    In,
    /// `notin`.
    NotIn,
    /// The key alone.
    Exists,
    /// `!key`.
    DoesNotExist,
    /// `>`.
    GreaterThan,
    /// `<`.
    LessThan,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The relation.
    pub operator: Operator,
    /// The values, sorted.
    pub values: Vec<String>,
}

impl Requirement {
    /// A checked requirement.
    ///
    /// # Errors
    /// For bad keys and values and wrong numbers of values.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        let bad = |text: String| Err(SelectorError(text));
        let quoted = crate::field::quote(key);
        if let Some(error) = names::qualified_name(key).first() {
            return bad(format!("key: Invalid value: {quoted}: {error}"));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return bad("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return bad("values: Invalid value: values set must be empty for exists and does not exist".into());
            }
            Operator::Equals | Operator::NotEquals | Operator::GreaterThan | Operator::LessThan
                if values.len() != 1 =>
            {
                return bad("values: Invalid value: exact-match compatibility requires one single value".into());
            }
            _ => {}
        }
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && values[0].parse::<i64>().is_err() {
            let value = crate::field::quote(&values[0]);
            return bad(format!(
                "values[0]: Invalid value: {value}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        for (i, value) in values.iter().enumerate() {
            if let Some(error) = names::label_value(value).first() {
                return bad(format!("values[{i}][{key}]: Invalid value: {}: {error}", crate::field::quote(value)));
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label's value (or its absence) satisfies it.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        let has = |value: &str| self.values.iter().any(|v| v == value);
        let number = |text: &str| text.parse::<i64>().ok();
        match (self.operator, value) {
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::Equals | Operator::In, value) => value.is_some_and(has),
            (Operator::NotEquals | Operator::NotIn, value) => !value.is_some_and(has),
            (Operator::GreaterThan, value) => value.and_then(number) > self.values.first().and_then(|v| number(v)),
            (Operator::LessThan, value) => {
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(value), Some(limit)) => value < limit,
                    _ => false,
                }
            }
        }
    }
}

/// A conjunction of requirements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
    /// Matches nothing at all (an absent `LabelSelector` object).
    pub nothing: bool,
}

impl LabelSelector {
    /// The selector that everything matches.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector that nothing matches.
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// Reads the query parameter's syntax.
    ///
    /// # Errors
    /// With upstream's text (`unable to parse requirement: …`).
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` object; null matches nothing and an empty object everything.
    ///
    /// # Errors
    /// For unknown operators, bad keys and values.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if !selector.is_object() {
            return Ok(Self::nothing());
        }
        let mut out = Self::from_map(crate::value::map(selector, "matchLabels"))?;
        for expression in crate::value::list(selector, "matchExpressions") {
            let values = crate::value::list(expression, "values");
            let values = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match crate::value::text(expression, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        crate::field::quote(other)
                    )));
                }
            };
            out.requirements.push(Requirement::new(crate::value::text(expression, "key"), operator, values)?);
        }
        out.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(out)
    }

    /// Reads a map of labels that must be equal, as ReplicationControllers and Services have it.
    ///
    /// # Errors
    /// For bad keys and values.
    pub fn from_map(labels: &Map<String, Value>) -> Result<Self, SelectorError> {
        let mut requirements = Vec::with_capacity(labels.len());
        for (key, value) in labels {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether labels match.
    pub fn matches(&self, labels: &Map<String, Value>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|r| r.matches_value(labels.get(&r.key).map(|v| v.as_str().unwrap_or_default())))
    }

    /// Whether labels match, given by a look-up.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches_value(label(&r.key)))
    }

    /// Whether an object's `metadata.labels` match.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(crate::value::map(&object["metadata"], "labels"))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let (key, values) = (&requirement.key, requirement.values.join(","));
            match requirement.operator {
                Operator::Equals => write!(f, "{key}={values}")?,
                Operator::NotEquals => write!(f, "{key}!={values}")?,
                Operator::In => write!(f, "{key} in ({values})")?,
                Operator::NotIn => write!(f, "{key} notin ({values})")?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan => write!(f, "{key}>{values}")?,
                Operator::LessThan => write!(f, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn parsing_and_matching() {
        let labels = json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
        let cases = [
            ("", Some(true)),
            ("app=web", Some(true)),
            ("app==web,tier=front", Some(true)),
            ("app!=web", Some(false)),
            ("other!=web", Some(true)),
            ("app in (web, db)", Some(true)),
            ("app notin (web)", Some(false)),
            ("other notin (web)", Some(true)),
            ("app", Some(true)),
            ("!app", Some(false)),
            ("! other", Some(true)),
            ("n>4", Some(true)),
            ("n<4", Some(false)),
            ("other>4", Some(false)),
            ("empty=", Some(true)),
            ("empty", Some(true)),
            ("app in ()", Some(false)),
            ("app=,tier", Some(false)),
            ("in=x", Some(false)),
            ("app=web=db", None),
            ("app in web", None),
            ("app in (web", None),
            (",", None),
            ("a,,b", None),
            ("app=we b", None),
            ("-a=b", None),
            ("n>x", None),
            ("!app=web", None),
        ];
        for (text, want) in cases {
            let parsed = LabelSelector::parse(text);
            match want {
                None => assert!(parsed.is_err(), "{text}: {parsed:?}"),
                Some(want) => {
                    let parsed = parsed.unwrap_or_else(|e| panic!("{text}: {e}"));
                    assert_eq!(parsed.matches(labels.as_object().unwrap()), want, "{text}");
                    let again = LabelSelector::parse(&parsed.to_string()).unwrap();
                    assert_eq!(again, parsed, "{text}");
                }
            }
        }
    }

    #[test]
    fn objects() {
        let object = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_object(&object).unwrap();
        assert_eq!(selector.to_string(), "a=b,!c");
        assert!(LabelSelector::from_object(&json!({})).unwrap().is_everything());
        assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches_object(&json!({})));
        let bad = json!({"matchExpressions": [{"key": "c", "operator": "Like"}]});
        assert_eq!(
            LabelSelector::from_object(&bad).unwrap_err().to_string(),
            "\"Like\" is not a valid label selector operator"
        );
    }
}
