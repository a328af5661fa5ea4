//! Volumes: what must be on the disk before a pod's containers can mount it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection};
use kube::Api;
use trireme_api::quantity::Quantity;

use crate::pods::env::{self, Facts};
use crate::pods::slots::definitions;
use crate::shim::protocol::Tmpfs;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    SetUp { volume: String, message: String },
}

/// A file of a volume: content and mode.
type Files = BTreeMap<String, (Vec<u8>, i32)>;

/// Where a volume lives, for the containers' bind mounts.
pub(crate) fn path(pod_directory: &Path, volume: &Volume) -> PathBuf {
    match &volume.host_path {
        Some(host) => PathBuf::from(&host.path),
        None => pod_directory.join("v").join(&volume.name),
    }
}

/// Memory file systems that the shim must mount: `/dev/shm` of the pod and `emptyDir`s in memory.
pub(crate) fn tmpfs(pod: &Pod, pod_directory: &Path) -> Vec<Tmpfs> {
    let mut all = vec![Tmpfs { target: pod_directory.join("shm"), options: "mode=1777,size=65536k".to_owned() }];
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(empty) = volume.empty_dir.as_ref().filter(|e| e.medium.as_deref() == Some("Memory")) else { continue };
        let size = empty.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.value());
        let size = size.filter(|bytes| *bytes > 0).map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        all.push(Tmpfs { target: path(pod_directory, volume), options: format!("mode=1777{size}") });
    }
    all
}

/// Makes all volumes of a pod that need no sandbox. May be repeated: content is brought up to date.
pub(crate) async fn set_up(
    client: &kube::Client,
    pod: &Pod,
    directory: &Path,
    facts: &Facts,
) -> Result<(), VolumeError> {
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let result = one(client, pod, volume, directory, facts).await;
        result.map_err(|message| VolumeError::SetUp { volume: volume.name.clone(), message })?;
    }
    Ok(())
}

async fn one(client: &kube::Client, pod: &Pod, volume: &Volume, directory: &Path, facts: &Facts) -> Result<(), String> {
    let target = path(directory, volume);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if volume.empty_dir.is_some() {
        return empty_directory(pod, &target).map_err(|error| error.to_string());
    }
    if let Some(host) = &volume.host_path {
        return host_path(&target, host.type_.as_deref().unwrap_or_default());
    }
    let files = if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(0o644);
        config_map(client, namespace, &source.name, source.items.as_deref(), source.optional, mode).await?
    } else if let Some(source) = &volume.secret {
        let (mode, name) = (source.default_mode.unwrap_or(0o644), source.secret_name.as_deref().unwrap_or_default());
        secret(client, namespace, name, source.items.as_deref(), source.optional, mode).await?
    } else if let Some(source) = &volume.downward_api {
        downward(pod, facts, source.items.as_deref(), source.default_mode.unwrap_or(0o644))?
    } else if let Some(source) = &volume.projected {
        let mut files = Files::new();
        for part in source.sources.iter().flatten() {
            files.extend(projection(client, pod, part, source.default_mode.unwrap_or(0o644), facts).await?);
        }
        files
    } else {
        return Err("this kind of volume is not supported".to_owned());
    };
    publish(&target, &files).map_err(|error| error.to_string())
}

async fn projection(
    client: &kube::Client,
    pod: &Pod,
    part: &VolumeProjection,
    mode: i32,
    facts: &Facts,
) -> Result<Files, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(source) = &part.config_map {
        return config_map(client, namespace, &source.name, source.items.as_deref(), source.optional, mode).await;
    }
    if let Some(source) = &part.secret {
        return secret(client, namespace, &source.name, source.items.as_deref(), source.optional, mode).await;
    }
    if let Some(source) = &part.downward_api {
        return downward(pod, facts, source.items.as_deref(), mode);
    }
    Err("this kind of projection is not supported".to_owned())
}

/// A config map's entries as bytes; `None` if it does not exist.
pub(crate) async fn config_map_data(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(found) = api.get_opt(name).await.map_err(|error| error.to_string())? else { return Ok(None) };
    let text = found.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = found.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    Ok(Some(text.chain(binary).collect()))
}

/// A secret's entries; `None` if it does not exist.
pub(crate) async fn secret_data(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(found) = api.get_opt(name).await.map_err(|error| error.to_string())? else { return Ok(None) };
    Ok(Some(found.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()))
}

async fn config_map(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<Files, String> {
    let data = config_map_data(client, namespace, name).await?;
    pick(data, items, optional, mode, &format!("configmap \"{name}\" not found"))
}

async fn secret(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<Files, String> {
    let data = secret_data(client, namespace, name).await?;
    pick(data, items, optional, mode, &format!("secret \"{name}\" not found"))
}

fn pick(
    data: Option<BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
    missing: &str,
) -> Result<Files, String> {
    let optional = optional.unwrap_or(false);
    let Some(data) = data else {
        return if optional { Ok(Files::new()) } else { Err(missing.to_owned()) };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, (value, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => drop(files.insert(item.path.clone(), (value.clone(), item.mode.unwrap_or(mode)))),
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

fn downward(pod: &Pod, facts: &Facts, items: Option<&[DownwardAPIVolumeFile]>, mode: i32) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items.into_iter().flatten() {
        let text = if let Some(reference) = &item.field_ref {
            env::field(pod, facts, &reference.field_path)?
        } else if let Some(reference) = &item.resource_field_ref {
            let all = definitions(pod);
            let name = reference.container_name.as_deref().unwrap_or_default();
            let container = all.get(name).ok_or_else(|| format!("container {name:?} not found"))?;
            let divisor = reference.divisor.as_ref().map(|q| q.0.as_str());
            env::resource(container, facts, &reference.resource, divisor)?
        } else {
            continue;
        };
        files.insert(item.path.clone(), (text.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(files)
}

fn empty_directory(pod: &Pod, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o777))?;
    let group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|s| s.fs_group);
    if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
        std::os::unix::fs::chown(target, None, Some(group))?;
        fs::set_permissions(target, fs::Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

fn host_path(path: &Path, kind: &str) -> Result<(), String> {
    let meta = fs::metadata(path).ok();
    let fail = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    match kind {
        "DirectoryOrCreate" if meta.is_none() => fs::create_dir_all(path).map_err(|error| error.to_string()),
        "FileOrCreate" if meta.is_none() => fs::write(path, b"").map_err(|error| error.to_string()),
        "" if meta.is_none() => fs::create_dir_all(path).map_err(|error| error.to_string()),
        "Directory" | "DirectoryOrCreate" if !meta.as_ref().is_some_and(|m| m.is_dir()) => fail("a directory"),
        "File" | "FileOrCreate" if !meta.as_ref().is_some_and(|m| m.is_file()) => fail("a file"),
        _ => Ok(()),
    }
}

/// Writes files so that a reader sees the old set or the new one: a directory per version, `..data` points to one.
fn publish(target: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let link = target.join("..data");
    if fs::read_link(&link).is_ok_and(|current| same(&target.join(current), files)) {
        return Ok(());
    }
    let version = format!("..{}", uuid::Uuid::new_v4().simple());
    let directory = target.join(&version);
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    for (name, (content, mode)) in files {
        let relative = Path::new(name);
        if relative.is_absolute() || relative.components().any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a path inside a volume")));
        }
        let file = directory.join(relative);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(u32::try_from(*mode).unwrap_or(0o644) & 0o777))?;
    }
    let old = fs::read_link(&link).ok();
    let next = target.join("..data_tmp");
    let _ = fs::remove_file(&next);
    std::os::unix::fs::symlink(&version, &next)?;
    fs::rename(&next, &link)?;
    let tops: std::collections::BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for top in &tops {
        let visible = target.join(top);
        if fs::symlink_metadata(&visible).is_err() {
            std::os::unix::fs::symlink(Path::new("..data").join(top), &visible)?;
        }
    }
    for entry in fs::read_dir(target)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        let _ = fs::remove_dir_all(target.join(old));
    }
    Ok(())
}

fn same(directory: &Path, files: &Files) -> bool {
    let count = fs::read_dir(directory).map(Iterator::count).unwrap_or(usize::MAX);
    let tops: std::collections::BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    count == tops.len()
        && files.iter().all(|(name, (content, _))| fs::read(directory.join(name)).is_ok_and(|c| c == *content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(name, text)| ((*name).to_owned(), (text.as_bytes().to_vec(), 0o640))).collect()
    }

    #[test]
    fn versions_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("v");
        publish(&at, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(at.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(at.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(at.join("..data")).unwrap();
        publish(&at, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_link(at.join("..data")).unwrap(), before, "nothing changed, nothing written");
        publish(&at, &files(&[("a", "3")])).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(!at.join("sub").exists());
        assert!(publish(&at, &files(&[("../x", "")])).is_err());
    }

    #[test]
    fn missing_keys_and_objects() {
        let item = KeyToPath { key: "k".into(), path: "p".into(), mode: None };
        let data = Some(BTreeMap::from([("k".to_owned(), b"v".to_vec())]));
        let picked = pick(data, Some(std::slice::from_ref(&item)), None, 0o600, "").unwrap();
        assert_eq!(picked["p"], (b"v".to_vec(), 0o600));
        assert!(pick(Some(BTreeMap::new()), Some(std::slice::from_ref(&item)), None, 0, "").is_err());
        assert_eq!(pick(None, None, None, 0, "gone").unwrap_err(), "gone");
        assert!(pick(None, None, Some(true), 0, "gone").unwrap().is_empty());
    }
}
