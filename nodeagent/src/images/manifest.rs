//! Manifests, indexes and configurations, of OCI and of docker, and the choice of the platform.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::types::ImageConfig;

/// No manifest or configuration that anybody uses comes near this.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;
/// overlayfs stacks no more layers than this.
pub(crate) const MAX_LAYERS: usize = 500;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// A document that a reference may lead to.
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<ImageConfig>,
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// An entry of a docker-save archive's `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerEntry {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub layers: Vec<String>,
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(format!("cannot read {what}: {error}")))
}

/// Tells manifests and indexes apart by content: archives often leave the media type out.
pub(crate) fn parse_document(bytes: &[u8], what: &str) -> Result<Document, ImageError> {
    let value: serde_json::Value = parse(bytes, what)?;
    if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
        return Err(ImageError::malformed(format!("{what} is of docker's schema 1, which is no longer supported")));
    }
    if value.get("manifests").is_some() {
        return Ok(Document::Index(parse(bytes, what)?));
    }
    let manifest: Manifest = parse(bytes, what)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(ImageError::malformed(format!(
            "{what} has {} layers, more than {MAX_LAYERS}",
            manifest.layers.len()
        )));
    }
    Ok(Document::Manifest(manifest))
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: variant.map(str::to_owned) }
    }

    /// `linux/amd64`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    fn runs(&self, offered: &Platform) -> bool {
        offered.os == self.os && offered.architecture == self.architecture
    }
}

/// The entry of an index that runs on `host`: an exact variant before any other, and without platforms the only one.
pub(crate) fn choose<'a>(index: &'a Index, host: &Platform, what: &str) -> Result<&'a Descriptor, ImageError> {
    let fitting: Vec<&Descriptor> =
        index.manifests.iter().filter(|entry| entry.platform.as_ref().is_some_and(|offer| host.runs(offer))).collect();
    let exact = |entry: &&&Descriptor| entry.platform.as_ref().is_some_and(|offer| offer.variant == host.variant);
    if let Some(entry) = fitting.iter().find(exact).or(fitting.first()) {
        return Ok(entry);
    }
    match index.manifests.as_slice() {
        [only] if only.platform.is_none() => Ok(only),
        _ => Err(ImageError::Platform { platform: host.name(), what: what.to_owned() }),
    }
}

/// Checks that a configuration fits its manifest and this machine.
pub(crate) fn check(manifest: &Manifest, config: &ConfigFile, host: &Platform, what: &str) -> Result<(), ImageError> {
    if manifest.layers.len() != config.rootfs.diff_ids.len() {
        return Err(ImageError::malformed(format!(
            "{what} has {} layers, but its configuration names {}",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    let offer = Platform { architecture: config.architecture.clone(), os: config.os.clone(), variant: None };
    let silent = offer.architecture.is_empty() && offer.os.is_empty();
    if !silent && !host.runs(&offer) {
        return Err(ImageError::Platform {
            platform: host.name(),
            what: format!("{what} (it is for {})", offer.name()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        let platform =
            Platform { architecture: architecture.into(), os: os.into(), variant: variant.map(str::to_owned) };
        Descriptor {
            digest: format!("{os}/{architecture}/{variant:?}"),
            platform: Some(platform),
            ..Default::default()
        }
    }

    fn index(manifests: Vec<Descriptor>) -> Index {
        Index { schema_version: 2, media_type: None, manifests }
    }

    #[test]
    fn the_right_platform_is_chosen() {
        let host = Platform { architecture: "arm".into(), os: "linux".into(), variant: Some("v7".into()) };
        let many = index(vec![
            entry("linux", "amd64", None),
            entry("linux", "arm", Some("v5")),
            entry("linux", "arm", Some("v7")),
            entry("unknown", "unknown", None),
        ]);
        assert_eq!(choose(&many, &host, "x").unwrap().digest, "linux/arm/Some(\"v7\")");
        let other = index(vec![entry("windows", "arm", None), entry("linux", "s390x", None)]);
        assert!(matches!(choose(&other, &host, "x"), Err(ImageError::Platform { .. })));
        let bare = index(vec![Descriptor { digest: "only".into(), ..Default::default() }]);
        assert_eq!(choose(&bare, &host, "x").unwrap().digest, "only");
    }

    #[test]
    fn null_fields_of_docker_configurations_are_empty() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Entrypoint":null,"Env":null,
            "ExposedPorts":{"80/tcp":{}},"Volumes":null,"Labels":null,"User":""},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: ConfigFile = parse(text, "x").unwrap();
        let config = config.config.unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert!(config.entrypoint.is_empty() && config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn schema_one_is_refused_in_words() {
        let Err(error) = parse_document(br#"{"schemaVersion":1,"fsLayers":[]}"#, "it") else { panic!() };
        assert!(error.to_string().contains("schema 1"));
    }
}
