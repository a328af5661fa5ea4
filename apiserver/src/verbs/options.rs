//! The options in a request's query, checked with upstream's words (`apimachinery/pkg/apis/meta/v1/validation`).

use serde_json::Value;
use trireme_api::catalogue::FieldValidation;
use trireme_api::field::{FieldError, Path};
use trireme_api::status::Status;

use super::ctx::Ctx;
use crate::error::ApiResult;
use crate::request::accept;

/// Longest name of a field manager.
pub(super) const MANAGER: usize = 128;
const MATCHES: [&str; 3] = ["Exact", "NotOlderThan", ""];

/// Checks what the verb takes, before anything is decoded or done.
pub(crate) fn check(ctx: &Ctx) -> ApiResult<()> {
    match ctx.info.verb.as_str() {
        "create" => write(ctx, "CreateOptions"),
        "update" => write(ctx, "UpdateOptions"),
        "patch" => write(ctx, "PatchOptions"),
        "list" => list(ctx),
        "watch" => watch(ctx),
        _ => Ok(()),
    }
}

/// 422 of an options object, or nothing where nothing is wrong.
pub(crate) fn refuse(kind: &str, errors: &[FieldError]) -> ApiResult<()> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errors)) }
}

/// What is wrong with values of `dryRun`.
pub(crate) fn dry_run(values: &[&str]) -> Option<FieldError> {
    let wrong = values.iter().any(|value| *value != "All");
    wrong.then(|| FieldError::not_supported(&Path::new("dryRun"), Value::from(values.to_vec()), &["All"]))
}

fn write(ctx: &Ctx, kind: &str) -> ApiResult<()> {
    let mut errors = Vec::new();
    let applies = accept::content_type(&ctx.headers).starts_with("application/apply-patch");
    if kind == "PatchOptions" && !applies && ctx.query.option_flag("force").is_some() {
        errors.push(FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
    }
    manager(ctx.query.get("fieldManager").unwrap_or_default(), &mut errors);
    errors.extend(dry_run(&ctx.query.all("dryRun").collect::<Vec<_>>()));
    let validation = ctx.query.get("fieldValidation").unwrap_or_default();
    if FieldValidation::parse(validation).is_err() {
        let supported = ["", "Ignore", "Strict", "Warn"];
        errors.push(FieldError::not_supported(&Path::new("fieldValidation"), validation, &supported));
    }
    refuse(kind, &errors)
}

fn manager(name: &str, errors: &mut Vec<FieldError>) {
    let path = Path::new("fieldManager");
    if name.len() > MANAGER {
        errors.push(FieldError::too_long(&path, MANAGER));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(FieldError::invalid(&path, name, &why));
    }
}

fn list(ctx: &Ctx) -> ApiResult<()> {
    let mut errors = Vec::new();
    let path = Path::new("resourceVersionMatch");
    let version = ctx.query.get("resourceVersion");
    if let Some(rule) = ctx.query.get("resourceVersionMatch") {
        let mut forbid = |why: &str| errors.push(FieldError::forbidden(&path, why));
        if version.is_none() {
            forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if ctx.query.get("continue").is_some() {
            forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if !MATCHES.contains(&rule) {
            errors.push(FieldError::not_supported(&path, rule, &MATCHES));
        }
        if rule == "Exact" && version == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if ctx.query.option_flag("sendInitialEvents").is_some() {
        let path = Path::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    refuse("ListOptions", &errors)
}

fn watch(ctx: &Ctx) -> ApiResult<()> {
    let mut errors = Vec::new();
    let path = Path::new("resourceVersionMatch");
    let rule = ctx.query.get("resourceVersionMatch");
    let initial = ctx.query.option_flag("sendInitialEvents").is_some();
    if initial && rule != Some("NotOlderThan") {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, why));
    }
    if let Some(rule) = rule {
        if !initial {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if rule != "NotOlderThan" {
            errors.push(FieldError::not_supported(&path, rule, &["NotOlderThan"]));
        }
        if ctx.query.get("continue").is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    refuse("ListOptions", &errors)
}
