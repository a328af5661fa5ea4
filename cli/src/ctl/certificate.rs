//! `trictl certificate`: approves and denies certificate signing requests.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::api::Call;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::print::{Formats, PrintFlags};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// How often an approval is tried again because the request changed in between.
const ATTEMPTS: usize = 10;

/// What to do with a request.
#[derive(Debug, Clone, Subcommand)]
pub enum Certificate {
    /// Approve a certificate signing request
    Approve(Box<DecideArgs>),
    /// Deny a certificate signing request
    Deny(Box<DecideArgs>),
}

/// Approve or deny.
#[derive(Debug, Clone, Default, Args)]
pub struct DecideArgs {
    /// NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub print: PrintFlags,
    /// Update the request even if this was decided before
    #[arg(long)]
    pub force: bool,
}

/// One of the two decisions.
struct Decision {
    condition: &'static str,
    opposite: &'static str,
    done: &'static str,
    reason: &'static str,
    message: &'static str,
}

const APPROVE: Decision = Decision {
    condition: "Approved",
    opposite: "Denied",
    done: "approved",
    reason: "KubectlApprove",
    message: "This CSR was approved by kubectl certificate approve.",
};
const DENY: Decision = Decision {
    condition: "Denied",
    opposite: "Approved",
    done: "denied",
    reason: "KubectlDeny",
    message: "This CSR was denied by kubectl certificate deny.",
};

/// Runs the verb.
pub async fn run(session: &Session, verb: &Certificate) -> Result<()> {
    let (args, decision) = match verb {
        Certificate::Approve(args) => (args, &APPROVE),
        Certificate::Deny(args) => (args, &DENY),
    };
    if args.words.is_empty() && args.files.is_empty() {
        return Err(CtlError::plain("one or more CSRs must be specified as <name> or -f <filename>"));
    }
    let named = |word: &String| match word.contains('/') {
        true => word.clone(),
        false => format!("certificatesigningrequests.certificates.k8s.io/{word}"),
    };
    let words: Vec<String> = args.words.iter().map(named).collect();
    let (mut found, mut failures) = targets::from_files(session, &args.files).await?;
    if !words.is_empty() {
        let (more, others) = targets::resolve(session, &words, &Files::default(), &Selection::default()).await?;
        found.extend(more);
        failures.extend(others);
    }
    for target in found {
        failures.extend(decide(session, args, &target, decision).await.err());
    }
    CtlError::gather(failures)
}

async fn decide(session: &Session, args: &DecideArgs, target: &Target, decision: &Decision) -> Result<()> {
    let resource = &target.resource;
    if resource.kind != "CertificateSigningRequest" {
        let named = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        return Err(CtlError::plain(format!(
            "can only handle CertificateSigningRequest.certificates.k8s.io objects, got {}{named}",
            resource.kind
        )));
    }
    let printer = args.print.printer(Formats::Objects)?;
    let mut shown = target.fetch(session).await?;
    for attempt in 0.. {
        let object = if attempt == 0 { shown.clone() } else { target.fetch(session).await? };
        let (changed, already) = decided(object, decision, jiff::Timestamp::now())?;
        if already && !args.force {
            break;
        }
        match session.api.json(&Call::new(Method::PUT, format!("{}/approval", target.path())).body(&changed)).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => shown = target.fetch(session).await?,
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    show_result(target, &shown, &printer, decision.done)
}

/// The request with the decision, and whether it had it already.
fn decided(mut request: Value, decision: &Decision, now: jiff::Timestamp) -> Result<(Value, bool)> {
    let conditions = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == decision.opposite) {
        return Err(CtlError::plain(format!(
            "certificate signing request {} is already {}",
            request["metadata"]["name"], decision.opposite
        )));
    }
    if conditions.iter().any(|condition| condition["type"] == decision.condition) {
        return Ok((request, true));
    }
    let condition = json!({
        "type": decision.condition, "status": "True", "reason": decision.reason, "message": decision.message,
        "lastUpdateTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if !request["status"].is_object() {
        request["status"] = json!({});
    }
    request["status"]["conditions"] = json!([conditions, vec![condition]].concat());
    Ok((request, false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_request_is_decided_once() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let (approved, already) = decided(json!({"metadata": {"name": "c"}}), &APPROVE, now).unwrap();
        assert!(!already && approved["status"]["conditions"][0]["lastUpdateTime"] == "2026-11-22T12:00:00Z");
        assert!(decided(approved.clone(), &APPROVE, now).unwrap().1);
        let refused = decided(approved, &DENY, now).unwrap_err();
        assert_eq!(refused.text(), "error: certificate signing request \"c\" is already Approved\n");
    }
}
