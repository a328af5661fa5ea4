//! What changing verbs share: dry runs, their flags and words, patches.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::print::{Formats, PrintFlags, Printer};
use super::session::Session;
use super::targets::Target;

/// Media type of strategic merge patches.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Media type of merge patches.
pub const MERGE: &str = "application/merge-patch+json";
/// Media type of JSON patches.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// How far a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DryRun {
    /// All the way.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server checks it and stores nothing.
    Server,
}

/// What `--dry-run` without a value stands for, until its warning is printed.
const UNSAID: &str = "unchanged";

impl DryRun {
    /// Reads the flag's value.
    pub fn parse(text: &str) -> std::result::Result<DryRun, String> {
        match text {
            "none" | "false" => Ok(DryRun::None),
            "client" => Ok(DryRun::Client),
            UNSAID => {
                eprintln!("W --dry-run is deprecated and can be replaced with --dry-run=client.");
                Ok(DryRun::Client)
            }
            "server" => Ok(DryRun::Server),
            other => Err(super::flags::bare(format!(
                "Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."
            ))),
        }
    }

    /// `created`, with the kind of dry run.
    pub fn done(self, word: &str) -> String {
        match self {
            DryRun::None => word.to_owned(),
            DryRun::Client => format!("{word} (dry run)"),
            DryRun::Server => format!("{word} (server dry run)"),
        }
    }
}

/// `--dry-run`, `-o` and what goes with it.
#[derive(Debug, Clone, Default, Args)]
pub struct Mode {
    /// Only show what would happen: none, client (nothing is sent) or server (nothing is stored)
    #[arg(long, value_parser = DryRun::parse, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    pub dry_run: DryRun,
    #[command(flatten)]
    pub print: PrintFlags,
    /// Name of the manager used to track field ownership
    #[arg(long)]
    pub field_manager: Option<String>,
}

impl Mode {
    /// What `-o` asks for.
    pub fn printer(&self) -> Result<Printer> {
        self.print.printer(Formats::Objects)
    }

    /// `--field-manager`, or what kubectl says without it.
    pub fn manager<'a>(&'a self, usual: &'a str) -> &'a str {
        self.field_manager.as_deref().unwrap_or(usual)
    }

    /// `created`, with the kind of dry run.
    pub fn done(&self, word: &str) -> String {
        self.dry_run.done(word)
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
            other => Err(CtlError::plain(format!(
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
    let call = Call::new(Method::PATCH, target.path())
        .query("fieldManager", mode.manager(manager))
        .body_as(content_type, body);
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
