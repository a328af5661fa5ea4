//! Archives made by hand, entry by entry, also such as no tool would make.

use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// One entry of a layer.
#[derive(Clone)]
pub struct Entry {
    path: String,
    header: Header,
    content: Vec<u8>,
    link: Option<String>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(path: &str, kind: EntryType, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        Self { path: path.into(), header, content: content.to_vec(), link: None, xattrs: Vec::new() }
    }

    pub fn file(path: &str, content: &[u8]) -> Self {
        Self::new(path, EntryType::Regular, content)
    }

    pub fn dir(path: &str) -> Self {
        Self::new(path, EntryType::Directory, &[])
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: Some(target.into()), ..Self::new(path, EntryType::Symlink, &[]) }
    }

    pub fn hard_link(path: &str, target: &str) -> Self {
        Self { link: Some(target.into()), ..Self::new(path, EntryType::Link, &[]) }
    }

    pub fn device(path: &str, major: u32, minor: u32) -> Self {
        let mut entry = Self::new(path, EntryType::Char, &[]);
        entry.header.set_device_major(major).unwrap();
        entry.header.set_device_minor(minor).unwrap();
        entry
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    pub fn time(mut self, time: u64) -> Self {
        self.header.set_mtime(time);
        self
    }

    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        self
    }

    /// Straight into the header: the crate's own checks would refuse what is to be tested.
    fn append(mut self, tar: &mut Builder<Vec<u8>>) {
        if !self.xattrs.is_empty() {
            tar.append_pax_extensions(self.xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
                .unwrap();
        }
        let ustar = self.header.as_ustar_mut().unwrap();
        if self.path.len() <= 100 {
            ustar.name[..self.path.len()].copy_from_slice(self.path.as_bytes());
        } else {
            self.header.set_path(&self.path).unwrap();
        }
        if let Some(link) = &self.link {
            self.header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        self.header.set_cksum();
        tar.append(&self.header, self.content.as_slice()).unwrap();
    }
}

/// A layer, as an uncompressed tar.
#[derive(Clone)]
pub struct Layer(pub Vec<u8>);

impl Layer {
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut tar = Builder::new(Vec::new());
        for entry in entries {
            entry.append(&mut tar);
        }
        Self(tar.into_inner().unwrap())
    }

    pub fn file(path: &str, content: &str) -> Self {
        Self::new(vec![Entry::file(path, content.as_bytes())])
    }
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn config(architecture: &str, layers: &[Layer]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(&layer.0)).collect();
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"], "Env": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    config.to_string().into_bytes()
}

/// Manifest over a configuration and blobs.
pub fn manifest(config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(layer),
            "size": layer.len()})
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config),
            "size": config.len()}, "layers": layers})
    .to_string()
    .into_bytes()
}

fn archive(files: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    Layer::new(files.into_iter().map(|(path, content)| Entry::file(&path, &content)).collect()).0
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/{}", digest(bytes).replace(':', "/"))
}

fn layout(entries: Vec<Value>, blobs: Vec<Vec<u8>>) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes();
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    files.extend(blobs.into_iter().map(|blob| (blob_path(&blob), blob)));
    files.push(("index.json".to_owned(), index));
    archive(files)
}

/// An OCI layout of several images, layers compressed, names in the annotation that containerd writes.
pub fn oci_layout(images: &[(&str, &[Layer])]) -> Vec<u8> {
    let (mut entries, mut blobs) = (Vec::new(), Vec::new());
    for (name, layers) in images {
        let config = config(architecture(), layers);
        let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(&layer.0)).collect();
        let manifest = manifest(&config, &packed);
        entries.push(json!({"digest": digest(&manifest), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": name}}));
        blobs.extend(packed);
        blobs.extend([config, manifest]);
    }
    layout(entries, blobs)
}

/// What `docker save` wrote before version 25.
pub fn docker_save(images: &[(&[&str], &[Layer])]) -> Vec<u8> {
    let (mut entries, mut files) = (Vec::new(), Vec::new());
    for (tags, layers) in images {
        let config = config(architecture(), layers);
        let name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let mut paths = Vec::new();
        for layer in *layers {
            let path = format!("{}/layer.tar", digest(&layer.0).trim_start_matches("sha256:"));
            if !files.iter().any(|(known, _)| *known == path) {
                files.push((path.clone(), layer.0.clone()));
            }
            paths.push(path);
        }
        entries.push(json!({"Config": name, "RepoTags": tags, "Layers": paths}));
        files.push((name, config));
    }
    files.push(("manifest.json".to_owned(), Value::from(entries).to_string().into_bytes()));
    archive(files)
}

/// Changes a byte of a blob's content, not of the archive's form.
pub fn corrupt(archive: &[u8]) -> Vec<u8> {
    let at = archive.windows(4).position(|window| window == b"\"Cmd").unwrap();
    let mut archive = archive.to_vec();
    archive[at + 1] = b'D';
    archive
}

pub fn foreign_platform(name: &str) -> Vec<u8> {
    let layers = [Layer::file("f", "x")];
    let config = config("vax", &layers);
    let manifest = manifest(&config, &[layers[0].0.clone()]);
    let entry = json!({"digest": digest(&manifest), "annotations": {"io.containerd.image.name": name}});
    layout(vec![entry], vec![config, manifest, layers[0].0.clone()])
}

pub fn wrong_diff_id(name: &str) -> Vec<u8> {
    let (said, real) = (Layer::file("f", "said"), Layer::file("f", "real"));
    let config = config(architecture(), &[said]);
    let manifest = manifest(&config, std::slice::from_ref(&real.0));
    let entry = json!({"digest": digest(&manifest), "annotations": {"io.containerd.image.name": name}});
    layout(vec![entry], vec![config, manifest, real.0])
}
