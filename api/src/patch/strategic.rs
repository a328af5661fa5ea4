//! Strategic merge patch.

use super::PatchError;
use crate::schema::{Schemas, TypeId};
use serde_json::Value;

pub(super) fn apply(_schemas: &Schemas, _root: TypeId, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    json_patch::merge(target, patch);
    Ok(())
}
