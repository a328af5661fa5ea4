//! Variables: `$(NAME)` in commands, arguments, environments and the like, for a value of some object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::errors::{CtlError, Result};
use super::fields::Tables;
use super::{Item, text};

/// A variable with the index of its object, which may get another name before it is looked at.
#[derive(Debug, Clone)]
pub struct Var {
    name: String,
    kind: String,
    group: String,
    object: String,
    path: String,
}

/// The variables that a kustomization defines.
pub fn of(config: &Value) -> Vec<Var> {
    let var = |entry: &Value| {
        let of = &entry["objref"];
        let version = text(of, "apiVersion");
        let group = version.split_once('/').map_or(text(of, "group"), |(group, _)| group);
        Var {
            name: text(entry, "name").to_owned(),
            kind: text(of, "kind").to_owned(),
            group: group.to_owned(),
            object: text(of, "name").to_owned(),
            path: entry["fieldref"]["fieldpath"].as_str().unwrap_or("metadata.name").to_owned(),
        }
    };
    config["vars"].as_array().into_iter().flatten().map(var).collect()
}

/// Puts the values in, when all names are what they will be.
pub fn resolve(vars: &[Var], tables: &Tables, items: &mut [Item]) -> Result<()> {
    if vars.is_empty() {
        return Ok(());
    }
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for var in vars {
        if values.insert(&var.name, value(var, items)?).is_some() {
            return Err(CtlError::plain(format!("var '{}' already encountered", var.name)));
        }
    }
    let mut used = std::collections::BTreeSet::new();
    for item in items.iter_mut() {
        let mut change = |slot: &mut Value| each_text(slot, &mut |old| expand(old, &values, &mut used));
        let fields = Tables::builtin().variables.iter().chain(&tables.variables);
        fields.for_each(|field| field.change(item, &mut change));
    }
    let unused: Vec<&str> = values.keys().filter(|name| !used.contains(**name)).copied().collect();
    if !unused.is_empty() {
        eprintln!("well-defined vars that were never replaced: {}", unused.join(","));
    }
    Ok(())
}

fn value(var: &Var, items: &[Item]) -> Result<String> {
    let is_it = |item: &&Item| {
        let version = text(&item.object, "apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        item.kind() == var.kind && group == var.group && (item.original == var.object || item.name() == var.object)
    };
    let missing = |what: &str| CtlError::plain(format!("var '{}' {what}", var.name));
    let item = items.iter().find(is_it).ok_or_else(|| {
        missing(&format!("cannot be mapped to a field in the set of known resources: no {} {:?}", var.kind, var.object))
    })?;
    let mut here = &item.object;
    for part in var.path.split('.') {
        let (field, index) = part.split_once('[').map_or((part, None), |(field, rest)| (field, Some(rest)));
        here = &here[field];
        if let Some(index) = index.and_then(|rest| rest.strip_suffix(']')).and_then(|index| index.parse::<usize>().ok())
        {
            here = &here[index];
        }
    }
    match here {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(here.to_string()),
        _ => Err(missing(&format!("has no value at {}", var.path))),
    }
}

/// `$(NAME)` with what is known of it; `$$` is a dollar.
fn expand<'a>(
    text: &'a str,
    values: &BTreeMap<&'a str, String>,
    used: &mut std::collections::BTreeSet<String>,
) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match name.and_then(|(name, behind)| values.get(name).map(|value| (name, value, behind))) {
            Some((name, value, behind)) => {
                used.insert(name.to_owned());
                out.push_str(value);
                rest = behind;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

/// Changes a text, or each in a map.
fn each_text(slot: &mut Value, change: &mut dyn FnMut(&str) -> String) {
    match slot {
        Value::String(old) => *old = change(old),
        Value::Object(map) => map.values_mut().for_each(|inner| each_text(inner, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_replaced() {
        let values = BTreeMap::from([("A", "x".to_owned())]);
        let mut used = std::collections::BTreeSet::new();
        for (text, expected) in
            [("$(A).b", "x.b"), ("$(B) $A $", "$(B) $A $"), ("$$(A)", "$(A)"), ("$(A$(A)", "$(Ax"), ("ä$(A", "ä$(A")]
        {
            assert_eq!(expand(text, &values, &mut used), expected, "{text}");
        }
        assert!(used.contains("A"));
    }
}
