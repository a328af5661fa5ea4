//! How the objects of a list are shown: one after the other, in the shape and encoding that the client asked for.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::catalogue::Resource;
use trireme_api::table;

use super::ctx::Ctx;
use super::encode::{self, ListMeta};
use crate::error::{ApiResult, corrupt};
use crate::request::accept::{Accept, Encoding, Shape};
use crate::storage::object::Object;

/// A list in the making.
pub(crate) struct View {
    resource: Arc<Resource>,
    accept: Accept,
    options: table::Options,
    now: Timestamp,
    first: bool,
}

impl View {
    /// As the request asks for it.
    pub(crate) fn of(ctx: &Ctx) -> ApiResult<Self> {
        let options = table::Options { include_object: encode::include_object(ctx)?, ..table::Options::default() };
        Ok(Self { resource: ctx.resource.clone(), accept: ctx.accept, options, now: Timestamp::now(), first: true })
    }

    /// Name of the kind, for messages.
    pub(crate) fn qualified(&self) -> String {
        self.resource.qualified()
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self.accept.encoding {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        }
    }

    /// What comes before the first object.
    pub(crate) fn head(&mut self, meta: &ListMeta, out: &mut Vec<u8>) -> ApiResult<()> {
        // The objects are the last member, in each shape.
        let empty = match self.accept.shape {
            Shape::Table => {
                let options = table::Options { list_metadata: meta.map(), ..self.options.clone() };
                table::table(&self.resource, &[], self.now, &options)
            }
            Shape::Native => json!({
                "kind": self.resource.list_kind, "apiVersion": self.resource.api_version(),
                "metadata": Value::Object(meta.map()), "items": [],
            }),
            Shape::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": Value::Object(meta.map()), "items": [],
            }),
        };
        let text = match self.accept.encoding {
            Encoding::Json => empty.to_string(),
            Encoding::Yaml => serde_norway::to_string(&empty).map_err(corrupt)?,
        };
        let end = match self.accept.encoding {
            Encoding::Json => "]}",
            Encoding::Yaml => " []\n",
        };
        out.extend_from_slice(text.strip_suffix(end).unwrap_or(&text).as_bytes());
        Ok(())
    }

    /// The next object.
    pub(crate) fn item(&mut self, object: &Object, out: &mut Vec<u8>) -> ApiResult<()> {
        let first = std::mem::replace(&mut self.first, false);
        match self.accept.encoding {
            Encoding::Yaml => {
                if first {
                    out.push(b'\n');
                }
                // One that is a list of one looks as it does in a list of many.
                let text = serde_norway::to_string(&[self.shown(object)?]).map_err(corrupt)?;
                out.extend_from_slice(text.as_bytes());
                return Ok(());
            }
            Encoding::Json if !first => out.push(b','),
            Encoding::Json => {}
        }
        let (stored, managers) = (&object.stored, self.accept.managers);
        match self.accept.shape {
            Shape::Native if !self.resource.converts() => stored.write(object.revision, managers, out),
            Shape::Metadata if !self.resource.converts() => {
                stored.write_partial(object.revision, managers, out).map_err(corrupt)?;
            }
            _ => serde_json::to_writer(&mut *out, &self.shown(object)?).map_err(corrupt)?,
        }
        Ok(())
    }

    /// What comes after the last object.
    pub(crate) fn tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.accept.encoding {
            Encoding::Json => b"]}\n",
            Encoding::Yaml if self.first => b" []\n",
            Encoding::Yaml => b"",
        });
    }

    fn shown(&self, object: &Object) -> ApiResult<Value> {
        let mut value = if self.accept.managers { object.value() } else { object.bare() }.map_err(corrupt)?;
        if self.resource.converts() {
            self.resource.from_storage(&mut value);
        }
        Ok(match self.accept.shape {
            Shape::Native => value,
            Shape::Table => table::row(&self.resource, &value, self.now, &self.options),
            Shape::Metadata => table::partial_metadata(&value),
        })
    }
}
