//! The files that a proxy serves beside the API.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LAST_MODIFIED, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio_util::io::ReaderStream;

use super::{Body, short};

/// Answers with a file, a folder's index.html, or a list of what is in it.
pub async fn answer(root: &Path, path: &str, request: &Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return short(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let not_found = || short(StatusCode::NOT_FOUND, "404 page not found\n");
    let Some(inside) = inside(path) else { return not_found() };
    let mut file = root.join(inside);
    let Ok(found) = tokio::fs::metadata(&file).await else { return not_found() };
    if found.is_dir() {
        if !path.is_empty() && !path.ends_with('/') {
            let name = path.rsplit('/').next().unwrap_or_default();
            return redirect(&format!("{name}/"));
        }
        let index = file.join("index.html");
        if !tokio::fs::metadata(&index).await.is_ok_and(|found| found.is_file()) {
            return listing(&file).await.unwrap_or_else(not_found);
        }
        file = index;
    } else if path.ends_with("/index.html") || path == "index.html" {
        return redirect("./");
    } else if path.ends_with('/') {
        return redirect(&format!("../{}", path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()));
    }
    send(&file, request.method() == Method::HEAD).await.unwrap_or_else(not_found)
}

/// A path as it is below the folder; nothing that leads out of it.
fn inside(path: &str) -> Option<PathBuf> {
    let plain = PathBuf::from(decode(path)?);
    let mut clean = PathBuf::new();
    for part in plain.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Undoes percent-encoding.
pub fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// Sends the client elsewhere.
pub fn redirect(to: &str) -> Response<Body> {
    let text = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", escaped(to));
    let mut response = short(StatusCode::MOVED_PERMANENTLY, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

async fn send(path: &Path, head_only: bool) -> Option<Response<Body>> {
    let file = tokio::fs::File::open(path).await.ok()?;
    let found = file.metadata().await.ok()?;
    let body = match head_only {
        true => Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync(),
        false => StreamBody::new(ReaderStream::new(file).map_ok(Frame::data)).boxed_unsync(),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(found.len()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    let modified = found.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
    if let Some(time) = modified {
        let text = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        headers.extend(HeaderValue::from_str(&text).ok().map(|value| (LAST_MODIFIED, value)));
    }
    Some(response)
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|end| end.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "xml" => "text/xml; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "txt" | "md" | "yaml" | "yml" | "log" | "" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

async fn listing(folder: &Path) -> Option<Response<Body>> {
    let mut entries = tokio::fs::read_dir(folder).await.ok()?;
    let mut names = Vec::new();
    while let Ok(Some(entry)) = entries.next_entry().await {
        let slash = if tokio::fs::metadata(entry.path()).await.is_ok_and(|found| found.is_dir()) { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let mut text = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for name in names {
        text.push_str(&format!("<a href=\"{}\">{}</a>\n", reference(&name), escaped(&name)));
    }
    text.push_str("</pre>\n");
    let mut response = short(StatusCode::OK, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Some(response)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

/// A name as a link; one with a colon must not look like a scheme.
fn reference(name: &str) -> String {
    let encoded = super::super::api::encode(name).replace("%2F", "/");
    if name.contains(':') { format!("./{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside("a/b%20c.txt"), Some(PathBuf::from("a/b c.txt")));
        assert_eq!(inside(""), Some(PathBuf::new()));
        assert_eq!(inside("./a//b/"), Some(PathBuf::from("a/b")));
        for bad in ["../x", "a/../../x", "%2e%2e/x", "a/%2e%2e/b", "%zz", "%", "a%00"] {
            assert_eq!(inside(bad), None, "{bad}");
        }
        assert_eq!(inside("/etc/passwd"), Some(PathBuf::from("etc/passwd")));
    }

    #[test]
    fn names_in_lists_are_harmless() {
        assert_eq!(reference("a b/"), "a%20b/");
        assert_eq!(reference("javascript:x"), "./javascript%3Ax");
        assert_eq!(escaped("<a&\"b\">"), "&lt;a&amp;&#34;b&#34;&gt;");
    }
}
