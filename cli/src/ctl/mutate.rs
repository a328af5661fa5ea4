//! What changing verbs share: dry runs, their flags and words, patches.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::print::Format;
use super::session::Session;
use super::targets::Target;

/// Media type of strategic merge patches.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Media type of merge patches.
pub const MERGE: &str = "application/merge-patch+json";
/// Media type of JSON patches.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// How far a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DryRun {
    /// All the way.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server checks it and stores nothing.
    Server,
}

/// `--dry-run` and `-o`.
#[derive(Debug, Clone, Default, Args)]
pub struct Mode {
    /// Only show what would happen: client (nothing is sent) or server (nothing is stored)
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    pub dry_run: DryRun,
    /// Output format: json, yaml, name, jsonpath=..., custom-columns=...
    #[arg(short, long)]
    pub output: Option<String>,
}

impl Mode {
    /// What `-o` asks for.
    pub fn format(&self) -> Result<Format> {
        Format::parse(self.output.as_deref())
    }

    /// `created`, with the kind of dry run.
    pub fn done(&self, word: &str) -> String {
        match self.dry_run {
            DryRun::None => word.to_owned(),
            DryRun::Client => format!("{word} (dry run)"),
            DryRun::Server => format!("{word} (server dry run)"),
        }
    }

    /// Whether nothing is sent.
    pub fn client_only(&self) -> bool {
        self.dry_run == DryRun::Client
    }

    /// Marks a call as a dry run of the server.
    pub fn mark(&self, call: Call) -> Call {
        match self.dry_run {
            DryRun::Server => call.query("dryRun", "All"),
            _ => call,
        }
    }
}

/// How strictly the server takes unknown fields.
#[derive(Debug, Clone, Args)]
pub struct Validate {
    /// Unknown fields: strict (or true) refuses, warn warns, ignore (or false) drops them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "strict", default_value = "strict")]
    pub validate: String,
}

impl Default for Validate {
    fn default() -> Validate {
        Validate { validate: "strict".to_owned() }
    }
}

impl Validate {
    /// As the API's `fieldValidation`.
    pub fn level(&self) -> Result<&'static str> {
        match self.validate.as_str() {
            "strict" | "true" => Ok("Strict"),
            "warn" => Ok("Warn"),
            "ignore" | "false" => Ok("Ignore"),
            other => Err(CtlError::Usage(format!(
                "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
            ))),
        }
    }
}

/// Patches an object; a dry run of the client leaves it as it is.
pub async fn patch(
    session: &Session,
    target: &Target,
    content_type: &'static str,
    body: &Value,
    mode: &Mode,
    manager: &str,
) -> Result<Value> {
    let call = Call::new(Method::PATCH, target.path()).query("fieldManager", manager).body_as(content_type, body);
    session.api.json(&mode.mark(call)).await
}

/// Splits `pod a x=1 y-` into resources and changes.
pub fn split_pairs(words: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let is_pair = |word: &String| word.contains('=') || (word.ends_with('-') && word.len() > 1);
    let first = words.iter().position(is_pair).unwrap_or(words.len());
    let (resources, pairs) = words.split_at(first);
    if let Some(stray) = pairs.iter().find(|word| !is_pair(word)) {
        return Err(CtlError::plain(format!(
            "unexpected args: {stray}: all resources must be specified before changes"
        )));
    }
    Ok((resources.to_vec(), pairs.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pairs_follow_resources() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (resources, pairs) = split_pairs(&words("pod a x=1 y-")).unwrap();
        assert_eq!((resources, pairs), (words("pod a"), words("x=1 y-")));
        assert!(split_pairs(&words("pod x=1 b")).is_err());
    }
}
