//! `trictl apply --force`: what cannot be patched is deleted and created anew. Should that fail, what was there is restored.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use super::super::api::Call;
use super::super::delete;
use super::super::errors::{CtlError, Result};
use super::super::mutate::DryRun;
use super::super::session::Session;
use super::super::targets::Target;
use super::{Applied, ApplyArgs, MANAGER, create};

/// Replaces `current`. A dry run only asks whether it may be deleted.
pub(super) async fn replace(
    session: &Session,
    args: &ApplyArgs,
    target: &Target,
    modified: &Value,
    current: Value,
) -> Result<Applied> {
    let configured = |object| Applied { target: target.clone(), object, done: args.mode.done("configured") };
    let options = delete::Options {
        grace_period: Some(args.grace_period).filter(|seconds| *seconds >= 0),
        propagation: delete::propagation(&args.cascade)?,
        dry_run: args.mode.dry_run == DryRun::Server,
    };
    let deadline = (args.timeout > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.timeout));
    let uid = delete::remove(session, target, &options).await?;
    if options.dry_run {
        return Ok(configured(modified.clone()));
    }
    delete::await_gone(session, target, &uid, deadline).await?;
    match create(session, args, target, modified).await {
        Ok(created) => Ok(configured(created.object)),
        Err(error) => Err(restore(session, target, current, error).await),
    }
}

/// Brings back what was deleted; the answer is why the new object could not be created.
async fn restore(session: &Session, target: &Target, mut saved: Value, cause: CtlError) -> CtlError {
    if let Some(metadata) = saved["metadata"].as_object_mut() {
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
    let call = Call::new(Method::POST, target.collection()).query("fieldManager", MANAGER).body(&saved);
    match session.api.json(&call).await {
        Ok(_) => cause,
        Err(error) => CtlError::plain(format!(
            "An error occurred force-replacing the existing object with the newly provided one:\n\n{}.\n\nAdditionally, \
             an error occurred attempting to restore the original object:\n\n{}",
            cause.reason_text(),
            error.reason_text()
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::json;

    use super::super::super::api::Api;
    use super::super::super::mutate::Mode;
    use super::super::super::session::Global;
    use super::super::super::targets;
    use super::*;

    type Sent = Arc<Mutex<Vec<(Method, Value)>>>;

    /// A server with one object, which answers creations with these codes, one after the other.
    fn server(answers: &[u16]) -> (Session, Sent) {
        let config = tempfile::NamedTempFile::new().unwrap();
        let nobody = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}]\n\
                      contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n";
        std::fs::write(config.path(), nobody).unwrap();
        let kubeconfig = Some(config.path().to_owned());
        let global = Global { kubeconfig, request_timeout: "0".to_owned(), ..Global::default() };
        let mut session = Session::open(&global).unwrap();
        let sent = Sent::default();
        let (seen, mut answers) = (sent.clone(), answers.to_vec());
        answers.reverse();
        let answers = Arc::new(Mutex::new(answers));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (seen, answers) = (seen.clone(), answers.clone());
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                let code = match head.method {
                    Method::POST => answers.lock().unwrap().pop().unwrap(),
                    Method::GET => 404,
                    _ => 200,
                };
                seen.lock().unwrap().push((head.method, body));
                let answer = match code {
                    200 => json!({"metadata": {"name": "a", "uid": "u"}}),
                    404 => json!({"kind": "Status", "code": 404, "reason": "NotFound"}),
                    code => {
                        json!({"kind": "Status", "code": code, "reason": "Invalid", "message": format!("no {code}")})
                    }
                };
                let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        session.api = Api::new(kube::Client::new(service, "default"), None, Vec::new());
        (session, sent)
    }

    fn object(value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {"k": value}})
    }

    async fn replaced(answers: &[u16], dry_run: DryRun) -> (Result<Applied>, Vec<(Method, Value)>) {
        let (session, sent) = server(answers);
        let mut current = object("old");
        for (field, value) in [("uid", "u"), ("resourceVersion", "7"), ("creationTimestamp", "2026-01-01T00:00:00Z")] {
            current["metadata"][field] = Value::from(value);
        }
        let target = targets::of_object(&targets::guess(&current).into(), object("new"));
        let args = ApplyArgs {
            cascade: "background".to_owned(),
            grace_period: -1,
            mode: Mode { dry_run, ..Mode::default() },
            ..ApplyArgs::default()
        };
        let outcome = replace(&session, &args, &target, &object("new"), current).await;
        let sent = sent.lock().unwrap().clone();
        (outcome, sent)
    }

    fn methods(sent: &[(Method, Value)]) -> Vec<&str> {
        sent.iter().map(|(method, _)| method.as_str()).collect()
    }

    #[tokio::test]
    async fn a_dry_run_deletes_nothing() {
        let (outcome, sent) = replaced(&[], DryRun::Server).await;
        assert_eq!(outcome.unwrap().done, "configured (server dry run)");
        assert_eq!(methods(&sent), ["DELETE"]);
        assert_eq!(sent[0].1["dryRun"], json!(["All"]));
    }

    #[tokio::test]
    async fn what_cannot_be_created_anew_is_restored() {
        let (outcome, sent) = replaced(&[200], DryRun::None).await;
        assert!(outcome.is_ok());
        assert_eq!(methods(&sent), ["DELETE", "GET", "POST"]);

        let (outcome, sent) = replaced(&[422, 200], DryRun::None).await;
        assert_eq!(outcome.err().unwrap().reason_text(), "no 422");
        assert_eq!(methods(&sent), ["DELETE", "GET", "POST", "POST"]);
        assert_eq!(sent[3].1, object("old"), "as it was, but for what the server gives");

        let (outcome, _) = replaced(&[422, 400], DryRun::None).await;
        let text = outcome.err().unwrap().reason_text();
        assert!(text.contains("no 422") && text.ends_with("original object:\n\nno 400"), "{text}");
    }
}
