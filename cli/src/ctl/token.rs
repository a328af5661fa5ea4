//! `trictl create token`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::api::Call;
use super::errors::{CtlError, Result};
use super::flags;
use super::get::emit_document;
use super::print::{Formats, PrintFlags, emit};
use super::session::Session;

/// Request a service account token.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// SERVICE_ACCOUNT_NAME
    pub words: Vec<String>,
    /// Audience of the requested token, any number of times
    #[arg(long)]
    pub audience: Vec<String>,
    /// Requested lifetime of the issued token
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub duration: f64,
    /// Kind of an object to bind the token to: Pod, Secret or Node
    #[arg(long, default_value = "")]
    pub bound_object_kind: String,
    /// Name of an object to bind the token to
    #[arg(long, default_value = "")]
    pub bound_object_name: String,
    /// UID of an object to bind the token to
    #[arg(long, default_value = "")]
    pub bound_object_uid: String,
    #[command(flatten)]
    pub print: PrintFlags,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &TokenArgs) -> Result<()> {
    let name = super::generate::name(&args.words)?;
    if args.duration < 0.0 {
        return Err(CtlError::plain("--duration must be greater than or equal to 0"));
    }
    if args.bound_object_kind.is_empty() && !(args.bound_object_name.is_empty() && args.bound_object_uid.is_empty()) {
        let flag = if args.bound_object_name.is_empty() { "uid" } else { "name" };
        return Err(CtlError::plain(format!(
            "--bound-object-{flag} can only be set if --bound-object-kind is provided"
        )));
    }
    let printer = args.print.printer(Formats::Objects)?;
    let mut spec = json!({"audiences": args.audience});
    if args.duration > 0.0 {
        spec["expirationSeconds"] = json!(args.duration as i64);
    }
    if !args.bound_object_kind.is_empty() {
        spec["boundObjectRef"] = json!({
            "kind": args.bound_object_kind, "apiVersion": "v1", "name": args.bound_object_name,
            "uid": args.bound_object_uid,
        });
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", session.namespace);
    let answer: Value =
        session.api.json(&Call::new(Method::POST, path).body(&body)).await.map_err(|error| match error {
            CtlError::Status(_) => CtlError::plain(format!("failed to create token: {}", error.reason_text())),
            other => other,
        })?;
    if printer.is_table() {
        return emit(&format!("{}\n", answer["status"]["token"].as_str().unwrap_or_default()));
    }
    emit_document(&printer, &answer, "tokenrequest.authentication.k8s.io")
}
