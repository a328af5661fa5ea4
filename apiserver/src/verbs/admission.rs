//! Validation and admission of what is about to be written.

use serde_json::Value;
use trireme_api::field::FieldError;
use trireme_api::status::Status;

use super::ctx::{Ctx, text_at};
use crate::error::ApiResult;
use crate::node_rules::{self, Act};

/// Checks a new object.
pub(crate) fn validate_create(ctx: &Ctx, object: &Value) -> ApiResult<()> {
    node_rules::admit(&ctx.caller.user, &ctx.info, Act::Create(object))?;
    refuse(ctx, object, &ctx.resource.validate_create(object))?;
    for warning in ctx.resource.warnings(object, None) {
        ctx.warn(warning);
    }
    Ok(())
}

/// Keeps node agents to what is theirs, before the server puts back what a request may not change.
pub(crate) fn admit_update(ctx: &Ctx, new: &Value, old: &Value) -> ApiResult<()> {
    node_rules::admit(&ctx.caller.user, &ctx.info, Act::Update { new, old })
}

/// Checks an update.
pub(crate) fn validate_update(ctx: &Ctx, object: &Value, old: &Value) -> ApiResult<()> {
    refuse(ctx, object, &ctx.resource.validate_update(object, old, ctx.subresource()))?;
    for warning in ctx.resource.warnings(object, Some(old)) {
        ctx.warn(warning);
    }
    Ok(())
}

fn refuse(ctx: &Ctx, object: &Value, errors: &[FieldError]) -> ApiResult<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = text_at(object, &["metadata", "name"]);
    Err(Status::invalid(ctx.group(), &ctx.resource.kind, name, errors))
}
