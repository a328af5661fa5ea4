//! jsonpath as kubectl has it: templates with `{…}`, ranges, filters, slices, unions, recursive descent.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::errors::{CtlError, Result};
use super::jsonpath_parse::Parser;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text between braces' expressions, or a quoted text in braces.
    Text(String),
    /// `{.a.b}`
    Path(Path),
    /// `{range .items[*]}…{end}`
    Range(Path, Vec<Piece>),
    /// `{end}` without a range, which only filling the template complains about
    StrayEnd,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// `$`: the root, wherever one is.
    Root,
    /// `.name`, `['name']`
    Field(String),
    /// `.*`, `[*]`
    All,
    /// `[n]`, from the end where negative
    Index(i64),
    /// `[from:to:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `..`
    Descend,
    /// `[a,b]`
    Union(Vec<Vec<Step>>),
    /// `[?(left op right)]`
    Filter(Operand, Option<(Comparison, Operand)>),
}

/// A side of a filter's comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Path(Path),
    Value(Value),
}

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A path to values inside a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    pub(super) steps: Vec<Step>,
}

/// A template of texts and paths.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Template> {
        let pieces = Parser::new(text)
            .template()
            .map_err(|reason| CtlError::plain(format!("error parsing jsonpath {text}, {reason}")))?;
        Ok(Template { source: text.to_owned(), pieces })
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Fills the template from a value; without `lenient`, what is missing is an error.
    pub fn render(&self, root: &Value, lenient: bool) -> std::result::Result<String, String> {
        let mut out = String::new();
        render(&self.pieces, root, root, lenient, &mut |found| {
            match found {
                Found::Text(text) => out.push_str(text),
                Found::Values(values) => {
                    out.push_str(&values.into_iter().map(text_of).collect::<Vec<_>>().join(" "));
                }
            };
        })?;
        Ok(out)
    }

    /// All values that the template finds; its texts are left out.
    pub fn collect(&self, root: &Value, lenient: bool) -> std::result::Result<Vec<Value>, String> {
        let mut all = Vec::new();
        render(&self.pieces, root, root, lenient, &mut |found| {
            if let Found::Values(values) = found {
                all.extend(values.into_iter().cloned());
            }
        })?;
        Ok(all)
    }
}

/// What a piece of a template gives.
enum Found<'a> {
    Text(&'a str),
    Values(Vec<&'a Value>),
}

fn render(
    pieces: &[Piece],
    root: &Value,
    here: &Value,
    lenient: bool,
    out: &mut dyn FnMut(Found<'_>),
) -> std::result::Result<(), String> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out(Found::Text(text)),
            Piece::Path(path) => out(Found::Values(walk(&path.steps, root, vec![here], lenient)?)),
            Piece::Range(path, body) => {
                for item in walk(&path.steps, root, vec![here], lenient)? {
                    render(body, root, item, lenient, out)?;
                }
            }
            Piece::StrayEnd => return Err("not in range, nothing to end".to_owned()),
        }
    }
    Ok(())
}

/// A value as jsonpath prints it: texts bare, everything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => super::sorted(other).to_string(),
    }
}

impl Path {
    /// Parses `{.a.b}`, `.a.b` or `a.b`, as `--sort-by` and custom columns take them.
    pub fn relaxed(text: &str) -> Result<Path> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner).trim();
        let dotted = match inner.chars().next() {
            Some('.' | '[' | '$' | '@') => inner.to_owned(),
            _ => format!(".{inner}"),
        };
        Parser::new(&dotted).whole_path().map_err(|reason| {
            CtlError::plain(format!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or \
                 '{{.name1.name2}}': {text}: {reason}"
            ))
        })
    }

    /// The values at this path.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.find_from(root, root)
    }

    fn find_from<'a>(&self, root: &'a Value, here: &'a Value) -> Vec<&'a Value> {
        walk(&self.steps, root, vec![here], true).unwrap_or_default()
    }
}

fn walk<'a>(
    steps: &[Step],
    root: &'a Value,
    mut found: Vec<&'a Value>,
    lenient: bool,
) -> std::result::Result<Vec<&'a Value>, String> {
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            take(step, root, value, lenient, &mut next)?;
        }
        match step {
            Step::Field(name) if next.is_empty() && !lenient => return Err(format!("{name} is not found")),
            _ => found = next,
        }
    }
    Ok(found)
}

fn index(value: &Value, index: i64) -> std::result::Result<Option<&Value>, String> {
    let items = match value {
        Value::Array(items) => items,
        Value::Null => return Ok(None),
        Value::Object(_) => return Err("map[string]interface {} is not array or slice".to_owned()),
        Value::String(_) => return Err("string is not array or slice".to_owned()),
        _ => return Err("interface {} is not array or slice".to_owned()),
    };
    let length = items.len() as i64;
    let at = if index < 0 { index + length } else { index };
    let found = usize::try_from(at).ok().and_then(|at| items.get(at));
    found.map(Some).ok_or_else(|| format!("array index out of bounds: index {at}, length {length}"))
}

fn take<'a>(
    step: &Step,
    root: &'a Value,
    value: &'a Value,
    lenient: bool,
    next: &mut Vec<&'a Value>,
) -> std::result::Result<(), String> {
    match step {
        Step::Root => next.push(root),
        Step::Field(name) => next.extend(value.get(name.as_str())),
        Step::All => match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                next.extend(entries.into_iter().map(|(_, value)| value));
            }
            Value::Array(items) => next.extend(items),
            _ => {}
        },
        Step::Index(at) => next.extend(index(value, *at)?),
        Step::Slice(from, to, step) => {
            if let Value::Array(items) = value {
                let bound = |bound: i64| (if bound < 0 { bound + items.len() as i64 } else { bound }).max(0) as usize;
                let end = to.map_or(items.len(), bound).min(items.len());
                let start = from.map_or(0, bound).min(end);
                next.extend(items[start..end].iter().step_by(usize::try_from(*step).unwrap_or(1).max(1)));
            }
        }
        Step::Descend => descend(value, next),
        Step::Union(paths) => {
            for path in paths {
                next.extend(walk(path, root, vec![value], lenient)?);
            }
        }
        Step::Filter(left, comparison) => {
            if let Value::Array(items) = value {
                next.extend(items.iter().filter(|item| holds(left, comparison.as_ref(), root, item)));
            }
        }
    }
    Ok(())
}

fn descend<'a>(value: &'a Value, next: &mut Vec<&'a Value>) {
    next.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|inner| descend(inner, next)),
        Value::Array(items) => items.iter().for_each(|inner| descend(inner, next)),
        _ => {}
    }
}

fn holds(left: &Operand, comparison: Option<&(Comparison, Operand)>, root: &Value, item: &Value) -> bool {
    let values = |operand: &Operand| -> Vec<Value> {
        match operand {
            Operand::Value(value) => vec![value.clone()],
            Operand::Path(path) => path.find_from(root, item).into_iter().cloned().collect(),
        }
    };
    let left = values(left);
    let Some((comparison, right)) = comparison else { return !left.is_empty() };
    let right = values(right);
    let (Some(left), Some(right)) = (left.first(), right.first()) else { return false };
    let order = compare(left, right);
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// Order of two scalars of the same type.
pub fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn data() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "n1", "labels": {"app.io/x": "y"}}, "n": 1, "a": [{"t": "IP", "v": "1"}, {"t": "H", "v": "h1"}]},
            {"metadata": {"name": "n2"}, "n": 2, "a": [{"t": "IP", "v": "2"}]}],
            "users": [{"name": "m", "user": {}}, {"name": "e", "user": {"password": "s"}}]})
    }

    fn eval(template: &str) -> String {
        Template::parse(template).unwrap().render(&data(), true).unwrap()
    }

    #[test]
    fn upstreams_documented_examples() {
        assert_eq!(eval("{.kind}"), "List");
        assert_eq!(eval("{['kind']}"), "List");
        assert_eq!(eval("kind is {.kind}"), "kind is List");
        assert_eq!(eval("{..name}"), "n1 n2 m e");
        assert_eq!(eval("{.items[*].metadata.name}"), "n1 n2");
        assert_eq!(eval("{.users[0].name}"), "m");
        assert_eq!(eval("{.items[*]['metadata.name', 'n']}"), "n1 1 n2 2");
        assert_eq!(eval("{.users[?(@.name==\"e\")].user.password}"), "s");
        assert_eq!(eval("{range .items[*]}[{.metadata.name}, {.n}] {end}"), "[n1, 1] [n2, 2] ");
        assert_eq!(eval("{range .items[*]}{.metadata.name}{'\\t'}{.n}{\"\\n\"}{end}"), "n1\t1\nn2\t2\n");
        assert_eq!(eval("{.items[0].metadata.labels.app\\.io/x}"), "y");
    }

    #[test]
    fn slices_unions_filters() {
        assert_eq!(eval("{.items[-1].n}"), "2");
        assert_eq!(eval("{.items[0:1].n}"), "1");
        assert_eq!(eval("{.items[-1:].n}"), "2");
        assert_eq!(eval("{.items[0,1].n}"), "1 2");
        assert_eq!(eval("{.items[?(@.n>1)].metadata.name}"), "n2");
        assert_eq!(eval("{.items[?(@.metadata.labels)].n}"), "1");
        assert_eq!(eval("{.items[*].a[?(@.t=='IP')].v}"), "1 2");
        assert_eq!(eval("{.items[?(@.n!=1)].n}"), "2");
        assert_eq!(eval("{.users[1].user}"), "{\"password\":\"s\"}");
        assert_eq!(eval("{.nope.at.all}"), "");
        assert_eq!(eval("{range .items[*]}{$.kind}{@.n}{end}"), "List1List2");
        assert_eq!(eval("{range .items[*]}{range .a[*]}{.v};{end}{end}"), "1;h1;2;");
    }

    #[test]
    fn mistakes_are_reported() {
        for bad in ["{.a", "{.a[}", "{.a[?(@.x==]}", "{\"x}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing() {
        let fails = |template: &str| Template::parse(template).unwrap().render(&data(), false).unwrap_err();
        assert_eq!(fails("{.nope}"), "nope is not found");
        assert_eq!(fails("{.items[7].n}"), "array index out of bounds: index 7, length 2");
        assert_eq!(fails("{end}"), "not in range, nothing to end");
        assert_eq!(eval("{range .nope}x"), "");
        let found = Template::parse("{.items[*].n}{'x'}").unwrap().collect(&data(), true).unwrap();
        assert_eq!(found, [json!(1), json!(2)]);
    }

    #[test]
    fn relaxed_paths() {
        let data = data();
        for text in [".kind", "kind", "{.kind}", "{kind}"] {
            assert_eq!(Path::relaxed(text).unwrap().find(&data), [&json!("List")], "{text}");
        }
    }
}
