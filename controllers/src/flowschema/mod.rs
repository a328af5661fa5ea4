//! Says of each FlowSchema whether the priority level that it names is there.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaCondition, FlowSchemaStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use trireme_client::informer::{Meta, ObjectKey};

use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};

const DANGLING: &str = "Dangling";

struct FlowSchemas {
    context: Context,
}

/// The loop that keeps the condition.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (all, schemas) = (informers.flow_schemas.clone(), informers.flow_schemas.clone());
    let all = move || all.list().iter().map(|schema| ObjectKey::of(&schema.metadata)).collect();
    let config = context.config.clone();
    Runner::new(FlowSchemas { context }, &config, all)
        .on(&informers.flow_schemas, |schema: &FlowSchema| vec![ObjectKey::of(&schema.metadata)])
        .on_change(&informers.priority_levels, move |old: Option<&Meta>, new: Option<&Meta>| {
            let (Some(level), true) = (new.or(old), old.is_some() != new.is_some()) else { return Vec::new() };
            let name = pods::name(&level.metadata);
            let naming = schemas.list().into_iter().filter(|schema| level_of(schema) == name);
            naming.map(|schema| ObjectKey::of(&schema.metadata)).collect()
        })
        .run()
        .await;
}

fn level_of(schema: &FlowSchema) -> &str {
    schema.spec.as_ref().map_or("", |spec| &spec.priority_level_configuration.name)
}

/// The schema's status, with the level that it names there or not; none if it says so already.
fn judged(schema: &FlowSchema, there: bool, now: Timestamp) -> Option<FlowSchemaStatus> {
    let what = format!("This FlowSchema references the PriorityLevelConfiguration object named {:?}", level_of(schema));
    let (status, reason, message) = match there {
        true => ("False", "Found", format!("{what} and it exists")),
        false => ("True", "NotFound", format!("{what} but there is no such object")),
    };
    let mut conditions = schema.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = conditions.iter().position(|condition| condition.type_.as_deref() == Some(DANGLING));
    let before = known.map(|at| &conditions[at]);
    let same = before.filter(|before| before.status.as_deref() == Some(status));
    if same.is_some_and(|same| same.reason.as_deref() == Some(reason) && same.message.as_ref() == Some(&message)) {
        return None;
    }
    let since = same.and_then(|same| same.last_transition_time.clone());
    let condition = FlowSchemaCondition {
        type_: Some(DANGLING.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    Some(FlowSchemaStatus { conditions: Some(conditions) })
}

impl Reconciler for FlowSchemas {
    type Key = ObjectKey;
    const NAME: &'static str = "flow-schema";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let Some(schema) = informers.flow_schemas.get(&key) else { return Ok(Next::Done) };
        let there = informers.priority_levels.find("", level_of(&schema)).is_some();
        if let Some(status) = judged(&schema, there, Timestamp::now()) {
            let next = FlowSchema { status: Some(status), ..FlowSchema::clone(&schema) };
            Writer::new(&self.context.client, &informers.flow_schemas).update(Part::Status, &*schema, &next).await?;
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn says_whether_the_level_is_there_and_since_when() {
        let level = json!({"name": "l"});
        let mut schema: FlowSchema = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": level},
            "status": {"conditions": [{"type": "Other", "status": "True"}]},
        }))
        .unwrap();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let status = judged(&schema, false, at(1)).unwrap();
        let told = status.conditions.as_ref().unwrap()[1].clone();
        assert_eq!((told.status.as_deref(), told.reason.as_deref()), (Some("True"), Some("NotFound")));
        let why =
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object";
        assert_eq!(told.message.as_deref(), Some(why));
        schema.status = Some(status);
        assert_eq!(judged(&schema, false, at(2)), None);
        let status = judged(&schema, true, at(3)).unwrap();
        let told = status.conditions.as_ref().unwrap()[1].clone();
        assert_eq!((told.reason.as_deref(), told.last_transition_time), (Some("Found"), Some(Time(at(3)))));
        assert_eq!(status.conditions.unwrap().len(), 2, "what others say stays");
    }
}
