//! Which versions and resources are served: upstream's `--runtime-config`.

use super::resource::Resource;

/// Why a choice cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Neither true nor false.
    #[error("invalid value of {0}")]
    Value(String),
    /// No such group and version, or no such resource in it.
    #[error("unknown api groups, versions or resources: {0}")]
    Unknown(String),
}

/// What is served beside, or instead of, what is by default: everything stable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Keys with what was said of each, in the order in which later ones win.
    choices: Vec<(String, bool)>,
}

/// From the most general to the most special.
const GENERAL: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];

fn is_alpha(version: &str) -> bool {
    version.contains("alpha")
}

fn is_beta(version: &str) -> bool {
    version.contains("beta")
}

impl RuntimeConfig {
    /// Reads `KEY=true`, `KEY=false` and `KEY`.
    ///
    /// # Errors
    /// For another value.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, ChoiceError> {
        let mut choices: Vec<(String, bool)> = Vec::new();
        for item in items.into_iter().map(str::trim).filter(|item| !item.is_empty()) {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            let value = match value {
                "" | "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
                "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
                _ => return Err(ChoiceError::Value(item.to_owned())),
            };
            // The core group's version may be written in two ways.
            let key = key.strip_prefix("api/").filter(|rest| rest.starts_with('v')).unwrap_or(key);
            choices.retain(|(other, _)| other != key);
            choices.push((key.to_owned(), value));
        }
        let rank = |key: &str| {
            let general = GENERAL.iter().position(|general| *general == key);
            general.unwrap_or(GENERAL.len() + key.matches('/').count())
        };
        choices.sort_by_key(|(key, _)| rank(key));
        Ok(Self { choices })
    }

    /// Whether a key says something of a resource.
    fn concerns(key: &str, resource: &Resource) -> bool {
        let version = resource.version.as_ref();
        match key {
            "api/all" => true,
            "api/ga" => !is_alpha(version) && !is_beta(version),
            "api/beta" => is_beta(version),
            "api/alpha" => is_alpha(version),
            key => {
                let own = resource.api_version();
                let rest = key.strip_prefix(own.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('/') == Some(resource.plural.as_ref()))
            }
        }
    }

    /// Whether a resource is served.
    pub fn serves(&self, resource: &Resource) -> bool {
        let stable = !is_alpha(&resource.version) && !is_beta(&resource.version);
        let said = self.choices.iter().rev().find(|(key, _)| Self::concerns(key, resource));
        said.map_or(stable, |(_, served)| *served)
    }

    /// That every key is about something that there is.
    ///
    /// # Errors
    /// With those that are not.
    pub fn check<'a>(&self, all: impl Iterator<Item = &'a Resource> + Clone) -> Result<(), ChoiceError> {
        let known = |key: &str| GENERAL.contains(&key) || all.clone().any(|resource| Self::concerns(key, resource));
        let unknown: Vec<&str> = self.choices.iter().map(|(key, _)| key.as_str()).filter(|key| !known(key)).collect();
        if unknown.is_empty() { Ok(()) } else { Err(ChoiceError::Unknown(unknown.join(","))) }
    }
}
