//! Label and field selectors of a list or watch.

use trireme_api::catalogue::Resource;
use trireme_api::selector::{FieldSelector, LabelSelector};
use trireme_api::status::Status;

use super::ctx::Ctx;
use crate::error::ApiResult;
use crate::storage::cache::{NODE_FIELD, Part};
use crate::storage::object::Object;

/// What a list or watch selects.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) part: Part,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Field values have to be computed from the converted object.
    converts: Option<std::sync::Arc<Resource>>,
}

impl Filter {
    /// From the request's namespace, name and selectors.
    pub(crate) fn of(ctx: &Ctx) -> ApiResult<Self> {
        let labels = ctx.query.get("labelSelector").unwrap_or_default();
        let labels = LabelSelector::parse(labels).map_err(|e| Status::bad_request(e.to_string()))?;
        let text = ctx.query.get("fieldSelector").unwrap_or_default();
        let fields = FieldSelector::parse(&ctx.resource, text).map_err(|e| Status::bad_request(e.to_string()))?;
        let name = ctx.info.name.clone().or_else(|| fields.required("metadata.name").map(str::to_owned));
        let namespace = if ctx.resource.namespaced() { ctx.info.namespace.clone() } else { None };
        let namespace = namespace.or_else(|| fields.required("metadata.namespace").map(str::to_owned));
        let node = fields.required(NODE_FIELD).filter(|n| !n.is_empty()).map(str::to_owned);
        let converts = (ctx.resource.converts() && !fields.is_everything()).then(|| ctx.resource.clone());
        let node = if converts.is_some() { None } else { node };
        Ok(Self { part: Part { namespace, name, node }, labels, fields, converts })
    }

    /// Whether anything but the namespace is selected on.
    pub(crate) fn selects(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_everything()
    }

    /// Whether an object is in the part of the kind that this is about, and selected.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.inside(object) && self.selected(object)
    }

    fn inside(&self, object: &Object) -> bool {
        if self.part.namespace.is_some() && self.part.namespace.as_deref() != object.namespace() {
            return false;
        }
        self.part.name.as_deref().is_none_or(|name| name == object.name())
    }

    /// Whether an object of that part is selected.
    pub(crate) fn selected(&self, object: &Object) -> bool {
        if !self.labels.is_everything() && !self.labels.matches_by(|key| object.label(key)) {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        let converted = self.converts.as_ref().and_then(|resource| {
            let mut value = object.value().ok()?;
            resource.from_storage(&mut value);
            Some((resource, value))
        });
        self.fields.matches_by(|field| match field {
            "metadata.name" => object.name().to_owned(),
            "metadata.namespace" => object.namespace().unwrap_or_default().to_owned(),
            _ => match &converted {
                Some((resource, value)) => resource.field(value, field),
                None => object.field(field).unwrap_or_default().to_owned(),
            },
        })
    }
}
