//! `/stats/summary`, as kubelets serve it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::{About, fail};
use crate::pods::Context;
use crate::stats;

/// What node and pods use.
pub(super) async fn serve(
    State(context): State<Arc<Context>>,
    Extension(about): Extension<About>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let brief = query.get("only_cpu_and_memory").is_some_and(|value| !matches!(value.as_str(), "false" | "0"));
    let collected = tokio::task::spawn_blocking(move || stats::summary(&context, &about.sampler, brief)).await;
    match collected {
        Ok(summary) => Json(summary).into_response(),
        Err(error) => fail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
