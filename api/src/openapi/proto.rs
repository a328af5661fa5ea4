//! The version 2 document in gnostic's protobuf form, which kubectl up to 1.33 reads: the messages that our document needs,
//! by hand, and their making from JSON.

use prost::{Message, Oneof};
use serde_json::Value;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "2")]
    pub yaml: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedAny {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Info {
    #[prost(string, tag = "1")]
    pub title: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Document {
    #[prost(string, tag = "1")]
    pub swagger: String,
    #[prost(message, optional, tag = "2")]
    pub info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    pub paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    pub definitions: Option<NamedSchemas>,
}

/// Definitions and Properties, which have the same form.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedSchemas {
    #[prost(message, repeated, tag = "1")]
    pub additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedSchema {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Schema {
    #[prost(string, tag = "1")]
    pub reference: String,
    #[prost(string, tag = "2")]
    pub format: String,
    #[prost(string, tag = "4")]
    pub description: String,
    #[prost(string, repeated, tag = "19")]
    pub required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    pub additional_properties: Option<Box<AdditionalPropertiesItem>>,
    #[prost(message, optional, tag = "22")]
    pub kind: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    pub items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    pub properties: Option<NamedSchemas>,
    #[prost(message, repeated, tag = "31")]
    pub vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AdditionalPropertiesItem {
    #[prost(message, optional, boxed, tag = "1")]
    pub schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    pub value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    pub schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Paths {
    #[prost(message, repeated, tag = "2")]
    pub path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedPathItem {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PathItem {
    #[prost(message, optional, tag = "2")]
    pub get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    pub put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    pub post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    pub delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    pub patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    pub parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(string, repeated, tag = "1")]
    pub tags: Vec<String>,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "5")]
    pub operation_id: String,
    #[prost(string, repeated, tag = "6")]
    pub produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    pub responses: Option<Responses>,
    #[prost(string, repeated, tag = "10")]
    pub schemes: Vec<String>,
    #[prost(message, repeated, tag = "13")]
    pub vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    pub parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Parameter {
    #[prost(oneof = "ParameterKind", tags = "1, 2")]
    pub kind: Option<ParameterKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ParameterKind {
    #[prost(message, tag = "1")]
    Body(BodyParameter),
    #[prost(message, tag = "2")]
    NonBody(NonBodyParameter),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BodyParameter {
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub place: String,
    #[prost(bool, tag = "4")]
    pub required: bool,
    #[prost(message, optional, tag = "5")]
    pub schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NonBodyParameter {
    #[prost(oneof = "NonBodyKind", tags = "3, 4")]
    pub kind: Option<NonBodyKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum NonBodyKind {
    #[prost(message, tag = "3")]
    Query(QueryParameter),
    #[prost(message, tag = "4")]
    Path(PathParameter),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryParameter {
    #[prost(string, tag = "2")]
    pub place: String,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "6")]
    pub kind: String,
    #[prost(bool, tag = "20")]
    pub unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PathParameter {
    #[prost(bool, tag = "1")]
    pub required: bool,
    #[prost(string, tag = "2")]
    pub place: String,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "5")]
    pub kind: String,
    #[prost(bool, tag = "19")]
    pub unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Responses {
    #[prost(message, repeated, tag = "1")]
    pub response_code: Vec<NamedResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedResponseValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    pub response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(string, tag = "1")]
    pub description: String,
    #[prost(message, optional, tag = "2")]
    pub schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    pub schema: Option<Schema>,
}

fn text(value: &Value, key: &str) -> String {
    crate::value::text(value, key).to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    crate::value::list(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    let Some(map) = value.as_object() else { return Vec::new() };
    let own = map.iter().filter(|(key, _)| key.starts_with("x-"));
    // JSON is YAML.
    own.map(|(key, value)| NamedAny { name: key.clone(), value: Some(Any { yaml: format!("{value}\n") }) }).collect()
}

pub(super) fn document(json: &Value) -> Document {
    let paths = crate::value::map(json, "paths").iter();
    let path = paths.map(|(name, item)| NamedPathItem { name: name.clone(), value: Some(path_item(item)) }).collect();
    Document {
        swagger: text(json, "swagger"),
        info: Some(Info { title: text(&json["info"], "title"), version: text(&json["info"], "version") }),
        paths: Some(Paths { path }),
        definitions: Some(schemas(&json["definitions"])),
    }
}

fn schemas(json: &Value) -> NamedSchemas {
    let named = json.as_object().into_iter().flatten();
    NamedSchemas {
        additional_properties: named
            .map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) })
            .collect(),
    }
}

fn schema(json: &Value) -> Schema {
    let child = |key: &str| json.get(key).filter(|v| v.is_object());
    Schema {
        reference: text(json, "$ref"),
        format: text(json, "format"),
        description: text(json, "description"),
        required: texts(json, "required"),
        additional_properties: child("additionalProperties")
            .map(|s| Box::new(AdditionalPropertiesItem { schema: Some(Box::new(schema(s))) })),
        kind: json["type"].as_str().map(|kind| TypeItem { value: vec![kind.to_owned()] }),
        items: child("items").map(|s| ItemsItem { schema: vec![schema(s)] }),
        properties: child("properties").map(schemas),
        vendor_extension: extensions(json),
    }
}

fn path_item(json: &Value) -> PathItem {
    let method = |name: &str| json.get(name).map(operation);
    PathItem {
        get: method("get"),
        put: method("put"),
        post: method("post"),
        delete: method("delete"),
        patch: method("patch"),
        parameters: crate::value::list(json, "parameters").iter().map(parameter).collect(),
    }
}

fn operation(json: &Value) -> Operation {
    let codes = crate::value::map(json, "responses").iter();
    Operation {
        tags: texts(json, "tags"),
        description: text(json, "description"),
        operation_id: text(json, "operationId"),
        produces: texts(json, "produces"),
        consumes: texts(json, "consumes"),
        parameters: crate::value::list(json, "parameters").iter().map(parameter).collect(),
        responses: Some(Responses { response_code: codes.map(|(code, value)| response(code, value)).collect() }),
        schemes: texts(json, "schemes"),
        vendor_extension: extensions(json),
    }
}

fn response(code: &str, json: &Value) -> NamedResponseValue {
    let response = Response {
        description: text(json, "description"),
        schema: json.get("schema").map(|s| SchemaItem { schema: Some(schema(s)) }),
    };
    NamedResponseValue { name: code.to_owned(), value: Some(ResponseValue { response: Some(response) }) }
}

fn parameter(json: &Value) -> ParametersItem {
    let (name, place, description, kind) =
        (text(json, "name"), text(json, "in"), text(json, "description"), text(json, "type"));
    let required = crate::value::truth(json, "required");
    let kind = match place.as_str() {
        "body" => ParameterKind::Body(BodyParameter { name, place, required, schema: json.get("schema").map(schema) }),
        "path" => {
            let path = PathParameter { required, place, description, name, kind, unique_items: true };
            ParameterKind::NonBody(NonBodyParameter { kind: Some(NonBodyKind::Path(path)) })
        }
        _ => {
            let query = QueryParameter { place, description, name, kind, unique_items: true };
            ParameterKind::NonBody(NonBodyParameter { kind: Some(NonBodyKind::Query(query)) })
        }
    };
    ParametersItem { parameter: Some(Parameter { kind: Some(kind) }) }
}
