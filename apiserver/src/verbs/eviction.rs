//! Eviction: a deletion that asks the budget of the pod first. What a budget has granted is noted in its status before the pod
//! goes, so that its controller does not count on the pod any more.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::selector::LabelSelector;
use trireme_api::status::{Cause, Reason, Status};
use trireme_api::value::{self, has, int, list, map, text};
use trireme_api::{subresource, time};

use super::ctx::{Ctx, text_at};
use super::delete::{self, Options};
use super::owners::Owners;
use super::subresources;
use super::update::{self, Next, Written};
use crate::bootstrap::call;
use crate::error::{ApiResult, corrupt};
use crate::identity::UserInfo;
use crate::storage::cache::Part;

/// Tries while others change the pod or its budget.
const ATTEMPTS: u32 = 20;
/// Pause before a try, longer each time.
const PAUSE: Duration = Duration::from_millis(5);
/// Most evictions that the controller of a budget has not confirmed yet.
const MAX_DISRUPTED: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// POST of an Eviction.
pub(crate) async fn evict(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let eviction = subresources::body(ctx, bytes)?;
    subresources::check_kind(&eviction, "Eviction")?;
    if text_at(&eviction, &["metadata", "name"]) != ctx.name() {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::of_eviction(ctx);
    if has(&eviction, "deleteOptions") {
        options.of_value(&eviction["deleteOptions"])?;
    }
    let Some(pod) = guarded(ctx, &options).await? else { return subresources::created(ctx) };
    let conditional = options.version.is_some();
    let unhealthy = match budgets(ctx, &pod)?.as_slice() {
        [] => None,
        [budget] if spared(&pod, budget) => Some(text_at(budget, &["metadata", "name"]).to_owned()),
        [budget] => {
            options.check(ctx, ctx.name(), &pod)?;
            take(ctx, budget.clone(), options.dry_run).await?;
            None
        }
        _ => return Err(several()),
    };
    if unhealthy.is_some() {
        // It must not have become healthy meanwhile.
        options.version.get_or_insert_with(|| text_at(&pod, &["metadata", "resourceVersion"]).to_owned());
    }
    match (remove(ctx, options).await, unhealthy) {
        (Err(status), Some(budget)) if status.reason == Reason::Conflict && !conditional => Err(in_process(&budget)),
        (outcome, _) => outcome.and_then(|()| subresources::created(ctx)),
    }
}

/// The pod, if budgets have a say in its eviction; those in which they have none are deleted at once.
async fn guarded(ctx: &Ctx, options: &Options) -> ApiResult<Option<Value>> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        pause(attempt).await;
        let pod = ctx.current(ctx.name(), true).await?;
        let pod = ctx.bare(&pod)?;
        let ended = matches!(text_at(&pod, &["status", "phase"]), "Succeeded" | "Failed")
            || has(&pod["metadata"], "deletionTimestamp");
        if !ended && text_at(&pod, &["status", "phase"]) != "Pending" {
            return Ok(Some(pod));
        }
        let mut own = options.clone();
        if !ended {
            // A pod that is pending may begin to run.
            own.version.get_or_insert_with(|| text_at(&pod, &["metadata", "resourceVersion"]).to_owned());
        }
        match remove(ctx, own).await {
            Ok(()) => return Ok(None),
            Err(status) if status.reason == Reason::Conflict && options.version.is_none() => last = Some(status),
            Err(status) => return Err(status),
        }
    }
    Err(last.unwrap_or_else(|| Status::modified(ctx.group(), ctx.plural(), ctx.name())))
}

async fn pause(attempt: u32) {
    if attempt > 0 {
        tokio::time::sleep(PAUSE * attempt).await;
    }
}

/// The budgets that select a pod, as new as the pod that was read.
fn budgets(ctx: &Ctx, pod: &Value) -> ApiResult<Vec<Value>> {
    let Some(cache) = ctx.server.inner.feed.cache("policy", "poddisruptionbudgets") else { return Ok(Vec::new()) };
    let labels = map(&pod["metadata"], "labels");
    let part = Part { namespace: ctx.info.namespace.clone(), ..Part::default() };
    let mut selecting = Vec::new();
    for budget in cache.snapshot(&part, |_| true) {
        let budget = budget.value().map_err(corrupt)?;
        let selector = &budget["spec"]["selector"];
        if selector.is_object() && LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(labels)) {
            selecting.push(budget);
        }
    }
    Ok(selecting)
}

/// Whether a pod does not count for its budget, because it is not ready, and may go for that reason.
fn spared(pod: &Value, budget: &Value) -> bool {
    let ready = |condition: &Value| text(condition, "type") == "Ready" && text(condition, "status") == "True";
    if list(&pod["status"], "conditions").iter().any(ready) {
        return false;
    }
    let number = |key: &str| int(&budget["status"], key).unwrap_or(0);
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    text(&budget["spec"], "unhealthyPodEvictionPolicy") == "AlwaysAllow" || healthy >= desired && desired > 0
}

/// Takes one disruption from a budget.
async fn take(ctx: &Ctx, mut budget: Value, dry_run: bool) -> ApiResult<()> {
    let api = ctx.server.in_process(UserInfo::component("system:apiserver"), ctx.caller.fence);
    let (namespace, name) = (ctx.info.namespace.as_deref().unwrap_or_default(), budget["metadata"]["name"].clone());
    let name = name.as_str().unwrap_or_default();
    let path = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{name}");
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            pause(attempt).await;
            budget = match call(&api, Method::GET, &path, None).await {
                // It guards nothing any more.
                Err(status) if status.code == 404 => return Ok(()),
                answer => answer?,
            };
        }
        decrement(&mut budget, ctx.name(), Timestamp::now())?;
        if dry_run {
            return Ok(());
        }
        match call(&api, Method::PUT, &format!("{path}/status"), Some(&budget)).await {
            Err(status) if status.code == 409 => {}
            Err(status) if status.code == 404 => return Ok(()),
            answer => return answer.map(drop),
        }
    }
    Err(Status::timeout(&format!("couldn't update PodDisruptionBudget {name:?} due to conflicts"), 10))
}

/// Counts a disruption in a budget's status, or says why there may be none.
fn decrement(budget: &mut Value, pod: &str, now: Timestamp) -> ApiResult<()> {
    let name = text_at(budget, &["metadata", "name"]).to_owned();
    let number = |key: &str| int(&budget["status"], key).unwrap_or(0);
    let forbidden = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudget", &name, why));
    if number("observedGeneration") < int(&budget["metadata"], "generation").unwrap_or(0) {
        return Err(in_process(&name));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if map(&budget["status"], "disruptedPods").len() > MAX_DISRUPTED {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let conditions = list(&budget["status"], "conditions");
        let told = conditions.iter().find(|condition| text(condition, "type") == "DisruptionAllowed");
        let why = match told.filter(|condition| text(condition, "reason") == "SyncFailed") {
            Some(failed) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
                text(failed, "message")
            ),
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number("desiredHealthy"),
                number("currentHealthy")
            ),
        };
        return Err(refused(0, why));
    }
    let observed = number("observedGeneration");
    let Some(status) = value::object_mut(budget, "status") else { return Err(in_process(&name)) };
    value::set(status, "disruptionsAllowed", allowed - 1);
    if allowed == 1 {
        exhausted(status, observed, now);
    }
    if let Some(disrupted) = value::object_mut(status, "disruptedPods") {
        value::set(disrupted, pod, time::seconds(now));
    }
    Ok(())
}

/// Says in a budget's conditions that there is no disruption left.
fn exhausted(status: &mut Value, observed: i64, now: Timestamp) {
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": observed, "lastTransitionTime": time::seconds(now),
    });
    let mut conditions = list(status, "conditions").to_vec();
    match conditions.iter_mut().find(|known| text(known, "type") == "DisruptionAllowed") {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    value::set(status, "conditions", conditions);
}

/// 429 of a budget.
fn refused(retry_after_seconds: u32, why: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_after_seconds);
    let cause = Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

fn in_process(budget: &str) -> Status {
    refused(10, format!("The disruption budget {budget} is still being processed by the server."))
}

fn several() -> Status {
    Status {
        code: 500,
        reason: Reason::Unknown,
        message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            .into(),
        details: None,
    }
}

/// Deletes the pod, and says on it why first.
async fn remove(ctx: &Ctx, mut options: Options) -> ApiResult<()> {
    if !options.dry_run {
        let written = update::write_object(ctx, |current| {
            options.check(ctx, ctx.name(), &current.object)?;
            let mut pod = current.object.clone();
            subresource::disrupt(&mut pod, Timestamp::now());
            Ok(Next { object: pod, owners: Owners::Kept })
        });
        if let (Written::Stored(pod), true) = (written.await?, options.version.is_some()) {
            options.version = Some(pod.revision.to_string());
        }
    }
    delete::delete_one(ctx, ctx.name(), &options).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {}, "status": status})
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_disruption_is_counted() {
        let mut two = budget(json!({"observedGeneration": 2, "disruptionsAllowed": 2}));
        decrement(&mut two, "p", now()).unwrap();
        let status =
            json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": {"p": "2026-01-01T00:00:00Z"}});
        assert_eq!(two["status"], status);
        decrement(&mut two, "q", now()).unwrap();
        assert_eq!(two["status"]["disruptionsAllowed"], 0);
        assert_eq!(two["status"]["disruptedPods"].as_object().unwrap().len(), 2);
        let condition = &two["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("InsufficientPods")));
    }

    #[test]
    fn refusals_say_why() {
        let many: serde_json::Map<String, Value> = (0..=MAX_DISRUPTED).map(|i| (i.to_string(), json!("x"))).collect();
        let failed = json!([{"type": "DisruptionAllowed", "reason": "SyncFailed", "message": "because"}]);
        let cases = [
            (
                json!({"observedGeneration": 1, "disruptionsAllowed": 1}),
                429,
                "b is still being processed by the server.",
            ),
            (json!({"observedGeneration": 2, "disruptionsAllowed": -1}), 403, "pdb disruptions allowed is negative"),
            (json!({"observedGeneration": 2, "disruptedPods": many, "disruptionsAllowed": 1}), 403, "map too big"),
            (
                json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 2}),
                429,
                "The disruption budget b needs 3 healthy pods and has 2 currently",
            ),
            (
                json!({"observedGeneration": 2, "conditions": failed}),
                429,
                "The disruption budget b does not allow evicting pods currently because it failed sync: because",
            ),
        ];
        for (status, code, why) in cases {
            let mut budget = budget(status);
            let before = budget.clone();
            let refused = decrement(&mut budget, "p", now()).unwrap_err();
            let told =
                refused.details.as_ref().unwrap().causes.first().map_or(&refused.message, |cause| &cause.message);
            assert_eq!(refused.code, code);
            assert!(told.contains(why), "{told}");
            assert_eq!(budget, before);
        }
    }

    #[test]
    fn pods_that_are_not_ready_are_spared_where_the_budget_is_met_or_says_so() {
        let pod = |ready: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let met = budget(json!({"currentHealthy": 2, "desiredHealthy": 2}));
        let unmet = budget(json!({"currentHealthy": 1, "desiredHealthy": 2}));
        let none = budget(json!({"currentHealthy": 0, "desiredHealthy": 0}));
        assert!(!spared(&pod("True"), &met) && spared(&pod("False"), &met));
        assert!(!spared(&pod("False"), &unmet) && !spared(&pod("False"), &none));
        let mut always = unmet;
        always["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
        assert!(spared(&pod("False"), &always) && !spared(&pod("True"), &always));
    }
}
