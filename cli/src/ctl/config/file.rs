//! Kubeconfig files as plain data: which one is changed, how it is written, in which order its fields stand.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use trireme_client::kubeconfig::{Kubeconfig, KubeconfigError};

use super::super::errors::{CtlError, Result};
use super::super::print::{os_reason, yaml};
use super::super::session::Global;

/// The merged kubeconfigs; one that does not exist yet has nothing in it.
pub fn load(global: &Global) -> Result<Kubeconfig> {
    match Kubeconfig::load(global.kubeconfig.as_deref()) {
        Err(KubeconfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Kubeconfig::default())
        }
        other => other.map_err(|error| super::super::session::kubeconfig_error(&error)),
    }
}

/// The file that new entries go to: the first that exists, or the last.
pub fn default_path(global: &Global) -> PathBuf {
    let paths = Kubeconfig::paths(global.kubeconfig.as_deref());
    paths.iter().find(|path| path.exists()).or(paths.last()).cloned().unwrap_or_default()
}

/// The file that holds an entry, or the one for new entries.
fn holder(global: &Global, list: &str, name: &str) -> Result<PathBuf> {
    let merged = load(global)?;
    let origin = match list {
        "clusters" => merged.clusters.iter().find(|entry| entry.name == name).and_then(|entry| entry.origin.clone()),
        "contexts" => merged.contexts.iter().find(|entry| entry.name == name).and_then(|entry| entry.origin.clone()),
        "users" => merged.users.iter().find(|entry| entry.name == name).and_then(|entry| entry.origin.clone()),
        _ => None,
    };
    Ok(origin.unwrap_or_else(|| default_path(global)))
}

/// Name of the object that a list's entries hold.
pub fn inner(list: &str) -> &'static str {
    match list {
        "clusters" => "cluster",
        "contexts" => "context",
        _ => "user",
    }
}

/// Changes an entry of one of the lists, making it if needed; the answer tells whether it was there.
pub fn change_entry(
    global: &Global,
    list: &str,
    name: &str,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> Result<bool> {
    let path = holder(global, list, name)?;
    let mut known = true;
    let folder = std::path::absolute(&path)?.parent().map(Path::to_path_buf).unwrap_or_default();
    change_file(&path, |file| {
        if !file[list].is_array() {
            file[list] = json!([]);
        }
        let Some(entries) = file[list].as_array_mut() else { return };
        if !entries.iter().any(|entry| entry["name"] == name) {
            known = false;
            entries.push(json!({"name": name, inner(list): {}}));
        }
        for entry in entries.iter_mut().filter(|entry| entry["name"] == name) {
            if !entry[inner(list)].is_object() {
                entry[inner(list)] = json!({});
            }
            if let Some(map) = entry[inner(list)].as_object_mut() {
                edit(map);
                relative(map, &folder);
                return;
            }
        }
    })?;
    Ok(known)
}

/// Files that are beside a kubeconfig or below are named as seen from it, so that all can be moved together.
fn relative(entry: &mut Map<String, Value>, folder: &Path) {
    for field in ["certificate-authority", "client-certificate", "client-key"] {
        if let Some(path) = entry.get(field).and_then(Value::as_str)
            && let Ok(rest) = Path::new(path).strip_prefix(folder)
        {
            let rest = rest.display().to_string();
            entry.insert(field.to_owned(), Value::from(rest));
        }
    }
}

/// Removes a whole list, from every file that has it.
pub fn remove_list(global: &Global, list: &str) -> Result<()> {
    for path in Kubeconfig::paths(global.kubeconfig.as_deref()).into_iter().filter(|path| path.exists()) {
        change_file(&path, |file| file[list] = Value::Null)?;
    }
    Ok(())
}

/// Removes an entry of one of the lists; the answer is the file it was in.
pub fn remove_entry(global: &Global, list: &str, name: &str) -> Result<PathBuf> {
    let path = holder(global, list, name)?;
    change_file(&path, |file| {
        if let Some(entries) = file[list].as_array_mut() {
            entries.retain(|entry| entry["name"] != name);
        }
    })?;
    Ok(path)
}

/// Changes the file that says what the current context is.
pub fn change_default(global: &Global, edit: impl FnOnce(&mut Value)) -> Result<()> {
    change_file(&default_path(global), edit)
}

fn change_file(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let mut file: Value = match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => json!({}),
        Ok(text) => serde_norway::from_str(&text)
            .map_err(|error| CtlError::plain(format!("error loading config file \"{}\": {error}", path.display())))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(CtlError::plain(format!("open {}: {}", path.display(), os_reason(&error)))),
    };
    if !file.is_object() {
        file = json!({});
    }
    edit(&mut file);
    for list in ["clusters", "contexts", "users"] {
        if file[list].as_array().is_none_or(Vec::is_empty) {
            file[list] = Value::Null;
        }
        if let Some(entries) = file[list].as_array_mut() {
            entries.sort_by_key(|entry| entry["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    for (field, value) in [("apiVersion", json!("v1")), ("kind", json!("Config")), ("preferences", json!({}))] {
        if file[field].is_null() {
            file[field] = value;
        }
    }
    if file["current-context"].is_null() {
        file["current-context"] = json!("");
    }
    write(path, &yaml::document(&file))
        .map_err(|error| CtlError::plain(format!("open {}: {}", path.display(), os_reason(&error))))
}

/// Replaces the file at once, readable for its owner alone.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Puts what files hold in place of their names, which are relative to the kubeconfig.
pub fn flatten(value: &mut Value, config: &Path) -> Result<()> {
    let base = config.parent().unwrap_or(Path::new("."));
    for (list, fields) in
        [("clusters", vec!["certificate-authority"]), ("users", vec!["client-certificate", "client-key"])]
    {
        for entry in value[list].as_array_mut().into_iter().flatten() {
            let Some(map) = entry[inner(list)].as_object_mut() else { continue };
            for field in &fields {
                if let Some(path) = map.get(*field).and_then(Value::as_str).map(|path| base.join(path)) {
                    let bytes = std::fs::read(&path)
                        .map_err(|error| CtlError::plain(format!("open {}: {}", path.display(), os_reason(&error))))?;
                    map.remove(*field);
                    map.insert(format!("{field}-data"), Value::from(STANDARD.encode(bytes)));
                }
            }
        }
    }
    Ok(())
}

/// Fields in the order in which Go prints them.
const ORDER: &[&str] = &[
    "kind",
    "apiVersion",
    "preferences",
    "clusters",
    "users",
    "contexts",
    "current-context",
    "name",
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority",
    "certificate-authority-data",
    "proxy-url",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "token",
    "tokenFile",
    "username",
    "password",
    "cluster",
    "user",
    "namespace",
    "auth-provider",
    "config",
    "exec",
    "command",
    "args",
    "env",
    "installHint",
    "provideClusterInfo",
    "interactiveMode",
    "extensions",
];

/// A kubeconfig with its entries sorted, its fields in order, and what is missing filled in.
pub fn ordered(mut value: Value) -> Value {
    for (field, empty) in [
        ("clusters", Value::Null),
        ("users", Value::Null),
        ("contexts", Value::Null),
        ("preferences", json!({})),
        ("current-context", json!("")),
    ] {
        if value[field].is_null() || value[field].as_array().is_some_and(Vec::is_empty) {
            value[field] = empty;
        }
        if let Some(entries) = value[field].as_array_mut() {
            entries.sort_by_key(|entry| entry["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    in_order(value)
}

fn in_order(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            // The version of an exec plugin stands behind its command.
            let of_exec = map.contains_key("command");
            let place = |key: &str| match key {
                "apiVersion" if of_exec => (ORDER.iter().position(|known| *known == "env"), 1),
                key => (Some(ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len())), 0),
            };
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by_key(|(key, _)| place(key));
            Value::Object(pairs.into_iter().map(|(key, value)| (key, in_order(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(in_order).collect()),
        other => other,
    }
}
