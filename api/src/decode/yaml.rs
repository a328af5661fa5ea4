//! YAML, with what manifests use of version 1.1 and the parser, which follows 1.2, leaves out: octal numbers such as `0644`
//! and merge keys.

use super::{DecodeError, Decoded, strict};
use serde_json::{Map, Value};

const MERGE: &str = "<<";

pub(super) fn read(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError("yaml: invalid UTF-8".into()))?;
    let mut duplicates = Vec::new();
    let mut value = parse(text, &mut duplicates)?;
    if has_octal(&value) {
        // Whether a text was quoted is not told. A plain one turns into a number when it is spelled as 1.2 has it.
        let respelled = parse(&respell(text), &mut Vec::new())?;
        take_numbers(&mut value, &respelled);
    }
    merge(&mut value)?;
    Ok(Decoded { value, duplicates })
}

fn parse(text: &str, duplicates: &mut Vec<String>) -> Result<Value, DecodeError> {
    let Some(document) = serde_norway::Deserializer::from_str(text).next() else { return Ok(Value::Null) };
    strict::read(document, duplicates).map_err(|e| DecodeError(format!("error converting YAML to JSON: yaml: {e}")))
}

fn is_octal(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| (b'0'..=b'7').contains(&b))
}

fn has_octal(value: &Value) -> bool {
    match value {
        Value::String(text) => is_octal(text),
        Value::Array(items) => items.iter().any(has_octal),
        Value::Object(map) => map.values().any(has_octal),
        _ => false,
    }
}

/// Turns every word like `0644` into `0o644`, also inside texts, whose respelling is not used.
fn respell(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let separates = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}');
    for word in text.split_inclusive(separates) {
        let bare = word.trim_end_matches(separates);
        if is_octal(bare) {
            out.push_str("0o");
            out.push_str(&word[1..]);
        } else {
            out.push_str(word);
        }
    }
    out
}

fn take_numbers(value: &mut Value, respelled: &Value) {
    match (value, respelled) {
        (value @ Value::String(_), Value::Number(number)) if value.as_str().is_some_and(is_octal) => {
            *value = Value::Number(number.clone());
        }
        (Value::Array(items), Value::Array(others)) => {
            items.iter_mut().zip(others).for_each(|(item, other)| take_numbers(item, other));
        }
        (Value::Object(map), Value::Object(others)) => {
            for (key, item) in map.iter_mut() {
                if let Some(other) = others.get(key) {
                    take_numbers(item, other);
                }
            }
        }
        _ => {}
    }
}

/// Carries out `<<`: the named mappings fill in keys that are absent.
fn merge(value: &mut Value) -> Result<(), DecodeError> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(merge),
        Value::Object(map) => {
            map.values_mut().try_for_each(merge)?;
            match map.shift_remove(MERGE) {
                None => Ok(()),
                Some(Value::Object(from)) => {
                    fill(map, from);
                    Ok(())
                }
                Some(Value::Array(sources)) if sources.iter().all(Value::is_object) => {
                    for source in sources {
                        if let Value::Object(from) = source {
                            fill(map, from);
                        }
                    }
                    Ok(())
                }
                Some(_) => Err(DecodeError(
                    "error converting YAML to JSON: yaml: map merge requires map or sequence of maps as the value"
                        .into(),
                )),
            }
        }
        _ => Ok(()),
    }
}

fn fill(map: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        if !map.contains_key(&key) {
            map.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn manifests_of_yaml_1_1() {
        let cases = [
            (
                "a: 0644\nb: '0644'\nc: |\n  x 0644\nd: [0755, 08]\n",
                json!({"a": 420, "b": "0644", "c": "x 0644\n", "d": [493, "08"]}),
            ),
            ("base: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\n", json!({"base": {"x": 1, "y": 2}, "c": {"y": 3, "x": 1}})),
            (
                "a: ~\nb:\nc: 1e3\nd: !foo x\ne: 12345678901234567890123\n",
                json!({"a": null, "b": null, "c": 1000.0, "d": "x", "e": 12_345_678_901_234_567_890_123_f64}),
            ),
            ("", json!(null)),
        ];
        for (text, want) in cases {
            assert_eq!(read(text.as_bytes()).unwrap().value, want, "{text}");
        }
        assert!(read(b"<<: 1\n").is_err());
    }
}
