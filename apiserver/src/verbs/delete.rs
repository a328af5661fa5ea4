//! delete and deletecollection: preconditions, grace, finalizers, propagation.

use axum::body::Body;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::field::{FieldError, Path};
use trireme_api::status::Status;
use trireme_api::{decode, prepare, value};
use trireme_raftstore::Op;

use super::ctx::{Ctx, text_at};
use super::encode::ListMeta;
use super::filter::Filter;
use super::store::{self, Change, Guard, Outcome};
use super::stream::{self, Items};
use super::walk::Walk;
use super::{encode, options, update};
use crate::error::ApiResult;
use crate::node_rules::{self, Act};
use crate::request::accept::Encoding;
use crate::storage::keys;
use crate::storage::object::Object;

const ATTEMPTS: usize = 8;
/// Objects of a collection that are held while they are deleted.
const PAGE: usize = 256;
/// Objects of a collection that are deleted at a time.
const AT_A_TIME: usize = 16;
/// Deleted objects that are held for the answer.
const HELD: usize = 1000;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const POLICIES: [&str; 3] = ["Foreground", "Background", "Orphan"];
/// Namespaces that a cluster cannot be without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Kinds whose deletion answers with the object instead of a Status.
const RETURNS_OBJECT: [&str; 5] = ["pods", "services", "serviceaccounts", "namespaces", "podtemplates"];

/// DeleteOptions of body and query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    grace: Option<i64>,
    policy: Option<String>,
    orphan: Option<bool>,
    uid: Option<String>,
    pub(super) version: Option<String>,
    pub(super) dry_run: bool,
}

impl Options {
    /// From the body where there is one, otherwise from the query.
    pub(crate) fn read(ctx: &Ctx, bytes: &[u8]) -> ApiResult<Self> {
        let mut options = Self { dry_run: ctx.dry_run(), ..Self::default() };
        if bytes.is_empty() {
            options.grace = ctx.query.integer("gracePeriodSeconds").map_err(Status::bad_request)?;
            options.policy = ctx.query.get("propagationPolicy").map(str::to_owned);
            options.orphan = ctx.query.option_flag("orphanDependents");
            options.uid = ctx.query.get("uid").map(str::to_owned);
        } else {
            let body = match crate::request::accept::body_encoding(&ctx.headers)? {
                Encoding::Json => decode::from_json(bytes),
                Encoding::Yaml => decode::from_yaml(bytes),
            };
            let body = body.map_err(|e| Status::bad_request(e.to_string()))?;
            options.of_value(&body.value)?;
        }
        options.validate(&ctx.query.all("dryRun").collect::<Vec<_>>())?;
        Ok(options)
    }

    /// Those of an eviction without options of its own.
    pub(super) fn of_eviction(ctx: &Ctx) -> Self {
        Self { dry_run: ctx.dry_run(), ..Self::default() }
    }

    fn validate(&self, dry_run: &[&str]) -> ApiResult<()> {
        let mut errors = Vec::new();
        let path = Path::new("propagationPolicy");
        if let (Some(policy), true) = (&self.policy, self.orphan.is_some()) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy.as_str(), why));
        }
        if let Some(policy) = self.policy.as_deref().filter(|policy| !POLICIES.contains(policy)) {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(&path, policy, &supported));
        }
        errors.extend(options::dry_run(dry_run));
        options::refuse("DeleteOptions", &errors)
    }

    /// What is to happen to dependents, where the request says so.
    fn policy(&self) -> Option<&str> {
        let orphan = self.orphan.map(|orphan| if orphan { "Orphan" } else { "Background" });
        self.policy.as_deref().or(orphan)
    }

    /// From a DeleteOptions object.
    pub(crate) fn of_value(&mut self, body: &Value) -> ApiResult<()> {
        if !body.is_object() {
            return Err(Status::bad_request("DeleteOptions: the body must be an object"));
        }
        let kind = value::text(body, "kind");
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(Status::bad_request(format!("expected DeleteOptions, got {kind}")));
        }
        let text = |v: &Value| v.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        self.grace = match &body["gracePeriodSeconds"] {
            Value::Null => None,
            grace => Some(
                grace
                    .as_i64()
                    .ok_or_else(|| Status::bad_request("DeleteOptions: gracePeriodSeconds must be an integer"))?,
            ),
        };
        self.policy = text(&body["propagationPolicy"]);
        self.orphan = body["orphanDependents"].as_bool();
        self.uid = text(&body["preconditions"]["uid"]);
        self.version = text(&body["preconditions"]["resourceVersion"]);
        let dry_run: Vec<&str> = value::list(body, "dryRun").iter().map(|v| v.as_str().unwrap_or_default()).collect();
        self.dry_run |= dry_run.contains(&"All");
        self.validate(&dry_run)
    }

    /// That the object is the one that the preconditions are about.
    pub(super) fn check(&self, ctx: &Ctx, name: &str, object: &Value) -> ApiResult<()> {
        let own = |key: &str| text_at(object, &["metadata", key]).to_owned();
        let (uid, version) = (own("uid"), own("resourceVersion"));
        let differs = |what: &str, wanted: &str, own: &str, then: &str| {
            let why = format!("the {what} in the precondition ({wanted}) does not match the {what} in record ({own})");
            Err(Status::conflict(
                ctx.group(),
                &ctx.resource.kind,
                name,
                &format!("{why}. The object might have been {then}"),
            ))
        };
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            return differs("UID", wanted, &uid, "deleted and then recreated");
        }
        if let Some(wanted) = self.version.as_deref().filter(|wanted| *wanted != version) {
            return differs("ResourceVersion", wanted, &version, "modified");
        }
        Ok(())
    }
}

/// How a deletion ended.
pub(crate) struct Deleted {
    object: Value,
    gone: bool,
}

/// DELETE of one object.
pub(crate) async fn delete(ctx: &Ctx, bytes: &[u8]) -> ApiResult<Response<Body>> {
    let options = Options::read(ctx, bytes)?;
    let deleted = delete_one(ctx, ctx.name(), &options).await?;
    if deleted.gone && !RETURNS_OBJECT.contains(&ctx.plural()) {
        let uid = text_at(&deleted.object, &["metadata", "uid"]);
        let status = Status::success(ctx.group(), ctx.plural(), ctx.name(), uid);
        return crate::response::value(StatusCode::OK, ctx.accept.encoding, &status);
    }
    encode::value(ctx, StatusCode::OK, deleted.object)
}

/// DELETE of a collection: of what was selected when the request came. Answers the list of what was deleted; if that is
/// long, of what it was before.
pub(crate) async fn delete_collection(ctx: &Ctx, bytes: &[u8]) -> ApiResult<Response<Body>> {
    let options = Options::read(ctx, bytes)?;
    let filter = Filter::of(ctx)?;
    ctx.server.barrier().await?;
    let mut walk = Walk::newest(ctx, &filter, "");
    let meta = ListMeta { revision: walk.revision(), ..ListMeta::default() };
    let (mut items, mut count) = (Vec::new(), 0);
    loop {
        let mut page = Vec::new();
        while page.len() < PAGE
            && let Some(object) = walk.next().await?
        {
            page.push(object);
        }
        if page.is_empty() {
            break;
        }
        // A transaction each, whose commits share what a commit costs.
        let mut deletions: Vec<BoxFuture<'_, ApiResult<Deleted>>> = Vec::with_capacity(page.len());
        for object in &page {
            deletions.push(Box::pin(delete_key(ctx, &object.key, object.name(), &options)));
        }
        let mut outcomes = futures::stream::iter(deletions).buffered(AT_A_TIME);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(_) if count == HELD => items = Vec::new(),
                Ok(deleted) if count < HELD => items.push(deleted.object),
                Ok(_) => {}
                Err(status) if status.code == 404 => continue,
                Err(status) => return Err(status),
            }
            count += 1;
        }
    }
    if count > HELD {
        return stream::list(ctx, Items::of(walk.again(""), usize::MAX), &meta).await;
    }
    let list = json!({
        "kind": ctx.resource.list_kind,
        "apiVersion": ctx.resource.api_version(),
        "metadata": Value::Object(meta.map()),
        "items": items,
    });
    crate::response::value(StatusCode::OK, ctx.accept.encoding, &list)
}

/// Deletes an object in the request's namespace, as far as grace and finalizers let it.
pub(crate) async fn delete_one(ctx: &Ctx, name: &str, options: &Options) -> ApiResult<Deleted> {
    let key = ctx.suffix(name);
    delete_key(ctx, &key, name, options).await
}

async fn delete_key(ctx: &Ctx, key: &str, name: &str, options: &Options) -> ApiResult<Deleted> {
    let mut fresh = false;
    for _ in 0..ATTEMPTS {
        if fresh {
            ctx.server.barrier().await?;
        }
        let current = ctx.cache.get(key).ok_or_else(|| ctx.not_found(name));
        let step = current.and_then(|current| Ok((step(ctx, &current, name, options)?, current)));
        let (step, current) = match step {
            Ok(step) => step,
            Err(_) if !fresh => {
                fresh = true;
                continue;
            }
            Err(status) => return Err(status),
        };
        match step {
            // A cache that lags behind may still show a namesake that was deleted before.
            Step::Pending(_) if !fresh => {}
            Step::Pending(object) => return Ok(Deleted { object, gone: false }),
            Step::Write { object, gone, .. } if options.dry_run => return Ok(Deleted { object, gone }),
            Step::Write { mut object, gone, change } => {
                if let Outcome::Done(revision) = change.commit(ctx).await? {
                    object["metadata"]["resourceVersion"] = revision.to_string().into();
                    drop(current);
                    return Ok(Deleted { object, gone });
                }
            }
        }
        fresh = true;
    }
    Err(Status::modified(ctx.group(), ctx.plural(), name))
}

enum Step {
    /// It is being deleted already and nothing changes.
    Pending(Value),
    Write {
        object: Value,
        gone: bool,
        change: Change,
    },
}

fn step(ctx: &Ctx, current: &Object, name: &str, options: &Options) -> ApiResult<Step> {
    let old = ctx.full(current)?;
    options.check(ctx, name, &old)?;
    node_rules::admit(&ctx.caller.user, &ctx.info, Act::Delete(&old))?;
    let namespace = ctx.resource.group.is_empty() && ctx.plural() == "namespaces";
    if namespace && IMMORTAL.contains(&name) {
        return Err(Status::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    let grace = grace(ctx, &old, options.grace);
    let mut new = old.clone();
    set_finalizers(ctx, &mut new, options.policy());
    let deleting = value::has(&old["metadata"], "deletionTimestamp");
    let kept = has_finalizers(ctx, &new);
    let mut change = Change::new(ctx);
    change.guard(Guard::Object, store::unchanged(ctx, current));
    let key = ctx.cache.store_key(&current.key);
    if !kept && grace.unwrap_or(0) == 0 && !(deleting && options.grace.is_none() && pending(&old)) {
        change.op(Op::Delete { key });
        update::released(ctx, &old).into_iter().for_each(|op| change.op(op));
        return Ok(Step::Write { object: new, gone: true, change });
    }
    let asked = if deleting && options.grace.is_none() { None } else { Some(grace.unwrap_or(0)) };
    let marked = asked.is_some_and(|grace| prepare::mark_deleted(&mut new, jiff::Timestamp::now(), grace));
    if namespace {
        new["status"]["phase"] = "Terminating".into();
    }
    if !marked && new == old {
        return Ok(Step::Pending(old));
    }
    change.op(store::put(ctx, &current.key, store::encode(ctx, &new, None)?));
    if namespace && !deleting {
        change.op(Op::Delete { key: keys::namespace_active(name) });
    }
    Ok(Step::Write { object: new, gone: false, change })
}

/// Whether a grace period runs.
fn pending(object: &Value) -> bool {
    value::int(&object["metadata"], "deletionGracePeriodSeconds").unwrap_or(0) > 0
}

/// Seconds that a pod is given to end; nothing else has a grace period.
fn grace(ctx: &Ctx, object: &Value, asked: Option<i64>) -> Option<i64> {
    if !ctx.resource.group.is_empty() || ctx.plural() != "pods" {
        return None;
    }
    let unassigned = text_at(object, &["spec", "nodeName"]).is_empty();
    let finished = matches!(text_at(object, &["status", "phase"]), "Succeeded" | "Failed");
    if unassigned || finished {
        return Some(0);
    }
    let own = value::int(&object["spec"], "terminationGracePeriodSeconds").unwrap_or(30);
    let grace = asked.unwrap_or(own);
    Some(if grace < 0 { 1 } else { grace })
}

/// Whether something still has to be done before the object may go.
fn has_finalizers(ctx: &Ctx, object: &Value) -> bool {
    let namespace = ctx.resource.group.is_empty() && ctx.plural() == "namespaces";
    !value::list(&object["metadata"], "finalizers").is_empty()
        || namespace && !value::list(&object["spec"], "finalizers").is_empty()
}

/// Whether an update leaves an object that was waiting for this update only.
pub(crate) fn finished(ctx: &Ctx, object: &Value) -> bool {
    value::has(&object["metadata"], "deletionTimestamp") && !pending(object) && !has_finalizers(ctx, object)
}

/// Adds and removes the garbage collector's finalizers as the propagation policy wants it.
fn set_finalizers(ctx: &Ctx, object: &mut Value, policy: Option<&str>) {
    let mut finalizers: Vec<Value> = value::list(&object["metadata"], "finalizers").to_vec();
    let before = finalizers.clone();
    let by_default = finalizers.iter().any(|f| f == ORPHAN || f == FOREGROUND);
    let orphan_by_default = ctx.plural() == "replicationcontrollers";
    let wanted = match policy {
        Some("Orphan") => Some(ORPHAN),
        Some("Foreground") => Some(FOREGROUND),
        Some(_) => None,
        None if by_default => return,
        None if orphan_by_default => Some(ORPHAN),
        None => None,
    };
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    if let Some(wanted) = wanted {
        finalizers.push(wanted.into());
    }
    if finalizers != before
        && let Some(metadata) = value::object_mut(object, "metadata")
    {
        if finalizers.is_empty() {
            value::remove(metadata, "finalizers");
        } else {
            value::set(metadata, "finalizers", finalizers);
        }
    }
}
