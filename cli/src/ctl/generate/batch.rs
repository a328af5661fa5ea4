//! Jobs and cron jobs from flags.

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::create::How;
use super::super::errors::{CtlError, Result};
use super::super::session::Session;
use super::super::targets::{self, Query, Target};
use super::{name, typed};

/// A job from flags.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// NAME
    pub words: Vec<String>,
    /// Image name to run
    #[arg(long, default_value = "", hide_default_value = true)]
    pub image: String,
    /// The name of the resource to create a job from (only cronjob is supported)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub from: String,
    #[command(flatten)]
    pub how: How,
    /// Command and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// A cron job from flags.
#[derive(Debug, Clone, Args)]
pub struct CronJobArgs {
    /// NAME
    pub words: Vec<String>,
    /// Image name to run
    #[arg(long)]
    pub image: Option<String>,
    /// When the job is to run, as in a crontab
    #[arg(long)]
    pub schedule: Option<String>,
    /// The job's restart policy: OnFailure or Never
    #[arg(long, default_value = "", hide_default_value = true)]
    pub restart: String,
    #[command(flatten)]
    pub how: How,
    /// Command and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

impl JobArgs {
    fn check(&self) -> Result<&str> {
        let name = name(&self.words)?;
        if self.image.is_empty() == self.from.is_empty() {
            return Err(CtlError::plain("either --image or --from must be specified"));
        }
        if !self.command.is_empty() && !self.from.is_empty() {
            return Err(CtlError::plain("cannot specify --from and command"));
        }
        Ok(name)
    }

    /// The job, with `--from` after a look at the cron job.
    pub async fn made(&self, session: &Session) -> Result<Value> {
        let name = self.check()?;
        if self.from.is_empty() {
            return self.object();
        }
        let discovery = session.discovery().await?;
        let (queries, _) = targets::parse(&discovery, std::slice::from_ref(&self.from))?;
        let [Query::Named(resource, names)] = queries.as_slice() else {
            return Err(CtlError::plain("from must be an existing cronjob"));
        };
        let namespace = resource.namespaced.then(|| session.namespace.clone());
        let from = names.first().cloned().unwrap_or_default();
        let target = Target { resource: resource.clone(), namespace, name: from, object: None, source: None };
        let object = target.fetch(session).await?;
        if resource.kind != "CronJob" {
            // Go names a type by its package, whose name is the version.
            return Err(CtlError::plain(format!("unknown object type *{}.{}", resource.version, resource.kind)));
        }
        Ok(of_cron_job(name, &object))
    }

    /// The job of `--image`.
    pub fn object(&self) -> Result<Value> {
        let name = self.check()?;
        let mut object = typed("batch/v1", "Job", name);
        object["spec"] = json!({"template": template(name, &self.image, &self.command, "Never")});
        object["status"] = json!({});
        Ok(object)
    }
}

impl CronJobArgs {
    /// The cron job.
    pub fn object(&self) -> Result<Value> {
        let missing: Vec<String> = [("image", &self.image), ("schedule", &self.schedule)]
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(flag, _)| format!("{flag:?}"))
            .collect();
        if !missing.is_empty() {
            return Err(CtlError::plain(format!("required flag(s) {} not set", missing.join(", "))));
        }
        let name = name(&self.words)?;
        let restart = if self.restart.is_empty() { "OnFailure" } else { &self.restart };
        let image = self.image.as_deref().unwrap_or_default();
        let mut object = typed("batch/v1", "CronJob", name);
        object["spec"] = json!({
            "schedule": self.schedule,
            "jobTemplate": {
                "metadata": {"name": name, "creationTimestamp": null},
                "spec": {"template": template(name, image, &self.command, restart)},
            },
        });
        object["status"] = json!({});
        Ok(object)
    }
}

/// The template of a job's pods.
fn template(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    let mut container = json!({"name": name, "image": image});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    container["resources"] = json!({});
    json!({"metadata": {"creationTimestamp": null}, "spec": {"containers": [container], "restartPolicy": restart}})
}

/// The job that a cron job would make now.
fn of_cron_job(name: &str, cron_job: &Value) -> Value {
    let template = &cron_job["spec"]["jobTemplate"];
    let mut annotations = Map::from_iter([("cronjob.kubernetes.io/instantiate".to_owned(), json!("manual"))]);
    annotations.extend(template["metadata"]["annotations"].as_object().cloned().unwrap_or_default());
    let mut object = typed("batch/v1", "Job", name);
    if let Some(labels) = template["metadata"]["labels"].as_object().filter(|labels| !labels.is_empty()) {
        object["metadata"]["labels"] = json!(labels);
    }
    object["metadata"]["annotations"] = Value::Object(annotations);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job["metadata"]["name"],
        "uid": cron_job["metadata"]["uid"], "controller": true,
    }]);
    object["spec"] = template["spec"].clone();
    if let Some(metadata) = object.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
        // As Go prints it.
        metadata.entry("creationTimestamp").or_insert(Value::Null);
    }
    object["status"] = json!({});
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_a_cron_job() {
        let cron_job = json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"jobTemplate": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}}, "spec": {"backoffLimit": 3}}}});
        let job = of_cron_job("j", &cron_job);
        assert_eq!(job["metadata"]["annotations"], json!({"cronjob.kubernetes.io/instantiate": "manual", "x": "y"}));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!((&job["metadata"]["labels"], &job["spec"]), (&json!({"a": "b"}), &json!({"backoffLimit": 3})));
    }
}
