//! Values that are either an integer or text, such as `maxSurge: 25%` or `targetPort: http`.

use serde_json::Value;

/// An integer or text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntOrString {
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
}

impl IntOrString {
    /// Reads a JSON value.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => n.as_i64().map(Self::Int),
            Value::String(s) => Some(Self::Text(s.clone())),
            _ => None,
        }
    }

    /// The percentage of `25%`.
    pub fn percent(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.strip_suffix('%').and_then(|digits| digits.parse().ok()),
            Self::Int(_) => None,
        }
    }

    /// The value scaled to a total, rounding percentages up or down; nothing for other texts.
    pub fn scaled(&self, total: i64, round_up: bool) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Text(_) => {
                let product = self.percent()?.checked_mul(total)?;
                Some(if round_up {
                    product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0)
                } else {
                    product.div_euclid(100)
                })
            }
        }
    }
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scaling() {
        let cases =
            [("25%", 10, true, Some(3)), ("25%", 10, false, Some(2)), ("x", 10, true, None), ("0%", 3, true, Some(0))];
        for (text, total, up, want) in cases {
            assert_eq!(IntOrString::Text(text.into()).scaled(total, up), want, "{text}");
        }
        assert_eq!(IntOrString::Int(4).scaled(10, true), Some(4));
    }
}
