//! A backup of the store, for administrators: streamed, as it is written.

use axum::body::Body;
use axum::extract::State;
use http::{HeaderValue, Request, Response, header};
use trireme_api::status::Status;
use trireme_raftstore::{Backup, Consistency};

use super::Join;
use super::members::user;
use crate::audit::Note;
use crate::error::{ApiResult, store_status};
use crate::identity::GROUP_MASTERS;
use crate::request::query::Query;
use crate::response;

pub(super) async fn serve(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    let user = user(&request);
    let allowed = user.in_group(GROUP_MASTERS);
    Note::of(&request).decided(allowed);
    if !allowed {
        let why = format!("User {:?} cannot get path \"/trireme.io/v1/snapshot\"", user.name);
        return response::status(&Status::forbidden("", "", "", &why));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    begin(&join, query.flag("local")).await.unwrap_or_else(|status| response::status(&status))
}

async fn begin(join: &Join, local: bool) -> ApiResult<Response<Body>> {
    let consistency = if local { Consistency::Local } else { Consistency::Linearizable };
    let backup: Backup = join.store.backup(consistency).await.map_err(|e| store_status(&e))?;
    let header = backup.header();
    tracing::info!(revision = header.revision, "a snapshot is read");
    let revision = HeaderValue::from(header.revision);
    // An error ends the body before its end, which the reader notices.
    let pieces = futures::stream::unfold(backup, |mut backup| async move {
        let piece = backup.next().await?.map_err(std::io::Error::other);
        Some((piece, backup))
    });
    let mut answer = Response::new(Body::from_stream(pieces));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("trireme-revision", revision);
    Ok(answer)
}
