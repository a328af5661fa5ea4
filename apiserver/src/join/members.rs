//! The members, for administrators.

use axum::body::Body;
use axum::extract::{Path, State};
use http::{Request, Response};
use trireme_api::status::Status;
use trireme_raftstore::{Member, Role, StoreError};

use super::Join;
use super::machines::answer;
use super::wire::{FeatureLevel, MemberInfo, MemberList};
use crate::audit::Note;
use crate::error::store_status;
use crate::identity::{GROUP_MASTERS, UserInfo};
use crate::request::query::Query;

pub(super) async fn list(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    let allowed = authorize(&request, "list");
    answer(list_members(&join, allowed).await)
}

pub(super) async fn remove(
    State(join): State<Join>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let allowed = authorize(&request, "delete");
    let query = Query::parse(request.uri().query().unwrap_or_default());
    answer(remove_member(&join, &name, &query, allowed).await)
}

pub(super) async fn promote(
    State(join): State<Join>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let allowed = authorize(&request, "promote");
    answer(promote_member(&join, &name, allowed).await)
}

pub(super) async fn upgrade(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    let allowed = authorize(&request, "upgrade");
    let upgraded = async {
        allowed?;
        let level = join.store.upgrade().await.map_err(|error| match &error {
            StoreError::Membership(why) => impossible("featurelevels", "newest", why),
            _ => store_status(&error),
        })?;
        tracing::info!(level, "the feature level was raised as asked for");
        Ok(FeatureLevel { feature_level: level })
    };
    answer(upgraded.await)
}

async fn list_members(join: &Join, allowed: Result<(), Status>) -> Result<MemberList, Status> {
    allowed?;
    Ok(MemberList { members: members(join).await?.into_iter().map(info).collect() })
}

async fn member(join: &Join, name: &str) -> Result<Member, Status> {
    let (found, others): (Vec<_>, Vec<_>) = members(join).await?.into_iter().partition(|member| member.name == name);
    found.into_iter().next().ok_or_else(|| absent(name, &others))
}

/// In words for an operator: nobody else asks.
fn absent(name: &str, members: &[Member]) -> Status {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut status = Status::not_found("trireme.io", "members", name);
    status.message = format!("there is no master {name:?}; the masters are {}", names.join(", "));
    status
}

/// The same of what cannot be done.
pub(super) fn impossible(what: &str, name: &str, why: &str) -> Status {
    let mut status = Status::conflict("trireme.io", what, name, why);
    status.message = why.to_owned();
    status
}

fn refusal(error: &StoreError, name: &str) -> Status {
    match error {
        StoreError::Membership(why) => impossible("members", name, why),
        _ => store_status(error),
    }
}

async fn promote_member(join: &Join, name: &str, allowed: Result<(), Status>) -> Result<MemberInfo, Status> {
    allowed?;
    let found = member(join, name).await?;
    join.store.promote_member(found.id).await.map_err(|error| refusal(&error, name))?;
    tracing::info!(name, id = found.id, "master promoted");
    member(join, name).await.map(info)
}

/// `dead`: only if it is. `id` and `lineage`: only the member that had them; the name may be another one's by now.
async fn remove_member(
    join: &Join,
    name: &str,
    query: &Query,
    allowed: Result<(), Status>,
) -> Result<MemberInfo, Status> {
    allowed?;
    let id = query.integer("id").map_err(|why| Status::bad_request(&why))?;
    let member = member(join, name).await?;
    let other_id = id.is_some_and(|id| u64::try_from(id) != Ok(member.id));
    if other_id || query.get("lineage").is_some_and(|lineage| lineage != join.store.status().lineage) {
        return Err(Status::not_found("trireme.io", "members", name));
    }
    let removed = match query.flag("dead") {
        true => join.store.remove_dead_member(member.id).await,
        false => join.store.remove_member(member.id).await,
    };
    removed.map_err(|error| refusal(&error, name))?;
    tracing::info!(name, id = member.id, "master removed");
    Ok(info(member))
}

pub(super) async fn members(join: &Join) -> Result<Vec<Member>, Status> {
    let mut members = join.store.members().await.map_err(|error| store_status(&error))?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Learner => "learner",
    }
}

pub(super) fn info(member: Member) -> MemberInfo {
    MemberInfo {
        name: member.name,
        address: member.client_address,
        role: role_name(member.role).into(),
        healthy: member.healthy,
        lag: member.lag,
        id: member.id,
        peer_address: member.peer_address,
    }
}

pub(super) fn user(request: &Request<Body>) -> UserInfo {
    request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous)
}

fn authorize(request: &Request<Body>, verb: &str) -> Result<(), Status> {
    let user = user(request);
    let allowed = user.in_group(GROUP_MASTERS);
    Note::of(request).decided(allowed);
    if allowed {
        return Ok(());
    }
    let why = format!(
        "User \"{}\" cannot {verb} resource \"members\" in API group \"trireme.io\" at the cluster scope",
        user.name
    );
    Err(Status::forbidden("trireme.io", "members", "", &why))
}
