//! The functions that templates can call.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::text::{go_value, quoted, truth, type_name};

/// Whether a template may call it.
pub fn is_known(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "and",
        "or",
        "not",
        "len",
        "index",
        "slice",
        "print",
        "printf",
        "println",
        "html",
        "js",
        "urlquery",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "exists",
        "base64decode",
    ];
    NAMES.contains(&name)
}

/// Calls a function.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wanted = match name {
        "not" | "len" | "base64decode" => Some(1),
        "ne" | "lt" | "le" | "gt" | "ge" => Some(2),
        _ => None,
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != arguments.len()) {
        return Err(format!("wrong number of args for {name}: want {wanted} got {}", arguments.len()));
    }
    let failed = |reason: String| format!("error calling {name}: {reason}");
    match name {
        "not" => Ok(json!(!truth(&arguments[0]))),
        "len" => length(&arguments[0]).map_err(failed),
        "index" => index(arguments).map_err(failed),
        "slice" => slice(arguments).map_err(failed),
        "print" => Ok(json!(print(arguments))),
        "println" => {
            let words: Vec<String> = arguments.iter().map(go_value).collect();
            Ok(json!(words.join(" ") + "\n"))
        }
        "printf" => Ok(json!(printf(arguments))),
        "html" => Ok(json!(html(&print(arguments)))),
        "js" => Ok(json!(js(&print(arguments)))),
        "urlquery" => Ok(json!(urlquery(&print(arguments)))),
        "eq" => equal(arguments).map(|same| json!(same)).map_err(failed),
        "ne" => equal(arguments).map(|same| json!(!same)).map_err(failed),
        "lt" | "le" | "gt" | "ge" => {
            let order = compare(&arguments[0], &arguments[1]).map_err(failed)?;
            Ok(json!(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        "exists" => Ok(json!(exists(arguments))),
        "base64decode" => {
            let text = go_value(&arguments[0]);
            let bytes =
                STANDARD.decode(text.trim()).map_err(|error| failed(format!("base64 decode failed: {error}")))?;
            Ok(json!(String::from_utf8_lossy(&bytes)))
        }
        _ => Err(format!("{name:?} is not a defined function")),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(json!(text.len())),
        Value::Array(items) => Ok(json!(items.len())),
        Value::Object(map) => Ok(json!(map.len())),
        Value::Null => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", type_name(other))),
    }
}

fn position(value: &Value, length: usize) -> Result<usize, String> {
    let Some(at) = value.as_i64() else {
        return Err(format!("cannot index slice/array with type {}", type_name(value)));
    };
    usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| format!("index out of range: {at}"))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let Some((first, keys)) = arguments.split_first() else { return Err("wrong number of args for index".to_owned()) };
    let mut here = first.clone();
    for key in keys {
        here = match here {
            Value::Array(mut items) => match position(key, items.len())? {
                at if at < items.len() => items.swap_remove(at),
                at => return Err(format!("reflect: slice index out of range: {at}")),
            },
            Value::Object(mut map) => match key {
                Value::String(name) => map.remove(name).unwrap_or_default(),
                other => return Err(format!("value has type {}; should be string", type_name(other))),
            },
            Value::String(text) => json!(text.as_bytes().get(position(key, text.len())?).copied()),
            Value::Null => return Err("index of untyped nil".to_owned()),
            other => return Err(format!("can't index item of type {}", type_name(&other))),
        };
    }
    Ok(here)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let Some((first, bounds)) = arguments.split_first() else { return Err("slice of untyped nil".to_owned()) };
    let length = length(first).map_err(|_| format!("can't slice item of type {}", type_name(first)))?;
    let length = length.as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let from = bounds.first().map_or(Ok(0), |bound| position(bound, length))?;
    let to = bounds.get(1).map_or(Ok(length), |bound| position(bound, length))?;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match first {
        Value::String(text) => Ok(json!(String::from_utf8_lossy(&text.as_bytes()[from..to]))),
        Value::Array(items) => Ok(Value::Array(items[from..to].to_vec())),
        other => Err(format!("can't slice item of type {}", type_name(other))),
    }
}

/// As Go's `Sprint`: spaces between operands when neither is a text.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (at, argument) in arguments.iter().enumerate() {
        if at > 0 && !argument.is_string() && !arguments[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&go_value(argument));
    }
    out
}

fn printf(arguments: &[Value]) -> String {
    let Some(format) = arguments.first() else { return String::new() };
    let format = go_value(format);
    let mut rest = arguments[1..].iter();
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | '#' | ' ')) {
            spec.push(c);
        }
        match chars.next() {
            Some('%') => out.push('%'),
            None => out.push_str("%!(NOVERB)"),
            Some(verb) => match rest.next() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(argument) => out.push_str(&one(verb, &spec, argument)),
            },
        }
    }
    let extra: Vec<String> = rest.map(|value| format!("{}={}", type_name(value), go_value(value))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn one(verb: char, spec: &str, value: &Value) -> String {
    let flags = spec.trim_start_matches(['-', '+', '0', '#', ' ']);
    let (width, precision) = flags.split_once('.').map_or((flags, None), |(width, rest)| (width, rest.parse().ok()));
    let width: usize = width.parse().unwrap_or_default();
    let head = &spec[..spec.len() - flags.len()];
    let text = match (verb, value) {
        ('v', value) => go_value(value),
        ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
        ('s', Value::String(text)) => match precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.clone(),
        },
        ('s', Value::Array(_) | Value::Object(_)) => go_value(value),
        ('q', Value::String(text)) => quoted(text),
        ('t', Value::Bool(value)) => value.to_string(),
        ('f' | 'F', Value::Number(number)) if number.is_f64() => {
            format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or_default())
        }
        ('g' | 'e', Value::Number(number)) if number.is_f64() => go_value(value),
        ('x', Value::Number(number)) if number.is_i64() => format!("{:x}", number.as_i64().unwrap_or_default()),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('T', value) => type_name(value).to_owned(),
        (verb, value) => format!("%!{verb}({}={})", type_name(value), go_value(value)),
    };
    let missing = width.saturating_sub(text.chars().count());
    if head.contains('-') {
        return text + &" ".repeat(missing);
    }
    let fill = if head.contains('0') && value.is_number() { "0" } else { " " };
    fill.repeat(missing) + &text
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    super::super::super::api::encode(text).replace("%20", "+")
}

fn equal(arguments: &[Value]) -> Result<bool, String> {
    let Some((first, others)) = arguments.split_first() else {
        return Err("missing argument for comparison".to_owned());
    };
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        let same = match (first, other) {
            (Value::Number(left), Value::Number(right)) if left.is_f64() != right.is_f64() => {
                return Err("incompatible types for comparison".to_owned());
            }
            (Value::Null, other) | (other, Value::Null) => other.is_null(),
            (left, right) if std::mem::discriminant(left) != std::mem::discriminant(right) => {
                return Err("incompatible types for comparison".to_owned());
            }
            (left, right) => left == right,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compare(left: &Value, right: &Value) -> Result<Ordering, String> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) if left.is_f64() == right.is_f64() => {
            Ok(left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal))
        }
        (Value::Bool(_), Value::Bool(_)) | (Value::Array(_), _) | (Value::Object(_), _) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

/// Whether a path of keys and indexes leads to a value.
fn exists(arguments: &[Value]) -> bool {
    let Some((first, keys)) = arguments.split_first() else { return false };
    let mut here = first;
    for key in keys {
        let next = match (here, key) {
            (Value::Array(items), Value::Number(at)) => at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?)),
            (Value::Object(map), Value::String(name)) => map.get(name),
            _ => None,
        };
        match next {
            Some(next) => here = next,
            None => return false,
        }
    }
    true
}
