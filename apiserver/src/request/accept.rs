//! Content negotiation: which encoding and which shape of an object a client takes.

use http::{HeaderMap, header};
use trireme_api::status::Status;

use crate::error::ApiResult;

/// How bytes look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What is shown of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object itself.
    Native,
    /// Rows and columns, `meta.k8s.io` Table.
    Table,
    /// Metadata only.
    Metadata,
}

/// The outcome of negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
    /// Whether `managedFields` are shown.
    pub(crate) managers: bool,
}

const SUPPORTED: [&str; 2] = ["application/json", "application/yaml"];

/// One media range of an Accept header.
#[derive(Debug)]
pub(crate) struct MediaRange {
    pub(crate) kind: String,
    pub(crate) parameters: Vec<(String, String)>,
    quality: f32,
}

impl MediaRange {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The media ranges that a client takes, best first.
pub(crate) fn media_ranges(headers: &HeaderMap) -> Vec<MediaRange> {
    let mut ranges = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut pieces = part.split(';').map(str::trim);
            let kind = pieces.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<(String, String)> = pieces
                .filter_map(|p| p.split_once('='))
                .map(|(n, v)| (n.trim().to_owned(), v.trim().trim_matches('"').to_owned()))
                .collect();
            let quality = parameters.iter().find(|(n, _)| n == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            ranges.push(MediaRange { kind, parameters, quality });
        }
    }
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// Chooses encoding and shape; 406 when nothing fits.
pub(crate) fn negotiate(headers: &HeaderMap) -> ApiResult<Accept> {
    let ranges = media_ranges(headers);
    let managers = !headers.contains_key(trireme_api::apply::OMIT_HEADER);
    if ranges.is_empty() {
        return Ok(Accept { encoding: Encoding::Json, shape: Shape::Native, managers });
    }
    for range in &ranges {
        let encoding = match range.kind.as_str() {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        let known_group = range.parameter("g") == Some("meta.k8s.io");
        let known_version = matches!(range.parameter("v"), Some("v1" | "v1beta1"));
        let shape = match range.parameter("as") {
            None => Shape::Native,
            Some("Table") if known_group && known_version => Shape::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if known_group && known_version => {
                Shape::Metadata
            }
            Some(_) => continue,
        };
        return Ok(Accept { encoding, shape, managers });
    }
    Err(Status::not_acceptable(&SUPPORTED))
}

/// How a request body is encoded; 415 for what is not understood.
pub(crate) fn body_encoding(headers: &HeaderMap) -> ApiResult<Encoding> {
    match content_type(headers).as_str() {
        "" | "application/json" | "*/*" => Ok(Encoding::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Encoding::Yaml),
        _ => Err(Status::unsupported_media_type(&SUPPORTED)),
    }
}

/// The media type of the body without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|text| {
        text.split(',').map(str::trim).any(|part| {
            let (name, rest) = part.split_once(';').unwrap_or((part, ""));
            name.trim() == "gzip" && rest.trim() != "q=0"
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accept(text: &'static str) -> ApiResult<Accept> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, http::HeaderValue::from_static(text));
        negotiate(&headers)
    }

    #[test]
    fn shapes_and_encodings() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl).unwrap().shape, Shape::Table);
        assert_eq!(accept("application/vnd.kubernetes.protobuf,application/json").unwrap().encoding, Encoding::Json);
        assert_eq!(accept("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("application/json;as=Strange;g=meta.k8s.io;v=v1, */*;q=0.1").unwrap().shape, Shape::Native);
        assert_eq!(accept("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        assert_eq!(accept("text/html").unwrap_err().code, 406);
    }
}
