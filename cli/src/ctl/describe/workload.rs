//! Deployments, replica sets, replication controllers, stateful and daemon sets.

use serde_json::Value;

use super::super::pods::selector_of;
use super::super::print::table::labels;
use super::super::time;
use super::writer::{Page, items, plain, some};
use super::{Subject, storage, template};

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn selector(object: &Value) -> String {
    selector_of(object).unwrap_or_else(|| "<none>".to_owned())
}

/// A deployment.
pub fn deployment(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    page.named(object);
    page.field(0, "CreationTimestamp", &time::long(&plain(&metadata["creationTimestamp"])));
    page.marked(object);
    page.field(0, "Selector", &selector(object));
    let replicas = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        spec["replicas"].as_i64().unwrap_or(1),
        number(&status["updatedReplicas"]),
        number(&status["replicas"]),
        number(&status["availableReplicas"]),
        number(&status["unavailableReplicas"])
    );
    page.field(0, "Replicas", &replicas);
    page.field(0, "StrategyType", &plain(&spec["strategy"]["type"]));
    page.field(0, "MinReadySeconds", &number(&spec["minReadySeconds"]).to_string());
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (plain(&rolling["maxUnavailable"]), plain(&rolling["maxSurge"]));
        page.field(0, "RollingUpdateStrategy", &format!("{unavailable} max unavailable, {surge} max surge"));
    }
    template::describe(page, &spec["template"]);
    conditions(page, &status["conditions"]);
    revisions(page, subject);
}

fn conditions(page: &mut Page, conditions: &Value) {
    if !some(conditions) {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tReason");
    page.line(1, "----\t------\t------");
    for condition in items(conditions) {
        let cell = |field: &str| plain(&condition[field]);
        page.line(1, &format!("{} \t{}\t{}", cell("type"), cell("status"), cell("reason")));
    }
}

fn revisions(page: &mut Page, subject: &Subject) {
    if subject.sets.is_empty() {
        return;
    }
    let revision = |object: &Value| object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
    let current = revision(&subject.object);
    let is_new = |set: &&Value| !current.is_null() && revision(set) == current;
    let show = |set: &Value| {
        let (has, wants) = (number(&set["status"]["replicas"]), number(&set["spec"]["replicas"]));
        format!("{} ({has}/{wants} replicas created)", plain(&set["metadata"]["name"]))
    };
    let join = |sets: Vec<&Value>| match sets.is_empty() {
        true => "<none>".to_owned(),
        false => sets.into_iter().map(show).collect::<Vec<_>>().join(", "),
    };
    let (new, old): (Vec<&Value>, Vec<&Value>) = subject.sets.iter().partition(is_new);
    page.field(0, "OldReplicaSets", &join(old));
    page.field(0, "NewReplicaSet", &join(new));
}

/// A replica set or a replication controller.
pub fn replicas(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    page.named(object);
    page.field(0, "Selector", &selector(object));
    page.marked(object);
    page.controller(object);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    page.field(0, "Replicas", &format!("{} current / {wanted} desired", number(&status["replicas"])));
    pods(page, subject);
    template::describe(page, &spec["template"]);
    conditions(page, &status["conditions"]);
}

fn pods(page: &mut Page, subject: &Subject) {
    let count = |phase: &str| subject.pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    let (running, waiting, succeeded, failed) =
        (count("Running"), count("Pending"), count("Succeeded"), count("Failed"));
    let counts = format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed");
    page.field(0, "Pods Status", &counts);
}

/// A stateful set.
pub fn stateful_set(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    page.named(object);
    page.created(object);
    page.field(0, "Selector", &selector(object));
    page.marked(object);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    page.field(0, "Replicas", &format!("{wanted} desired | {} total", number(&status["replicas"])));
    let strategy = &spec["updateStrategy"];
    page.field(0, "Update Strategy", &plain(&strategy["type"]));
    if let Some(partition) = strategy["rollingUpdate"]["partition"].as_i64() {
        page.field(1, "Partition", &partition.to_string());
        page.field_some(1, "MaxUnavailable", &strategy["rollingUpdate"]["maxUnavailable"]);
    }
    pods(page, subject);
    template::describe(page, &spec["template"]);
    storage::claims(page, &spec["volumeClaimTemplates"]);
}

/// A daemon set.
pub fn daemon_set(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    page.named(object);
    page.field(0, "Selector", &selector(object));
    page.field(0, "Node-Selector", &labels(&spec["template"]["spec"]["nodeSelector"]));
    page.marked(object);
    let counts = [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ];
    counts.into_iter().for_each(|(name, field)| page.line(0, &format!("{name}: {}", number(&status[field]))));
    pods(page, subject);
    template::describe(page, &spec["template"]);
}
