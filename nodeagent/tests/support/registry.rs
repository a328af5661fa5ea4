//! A registry on loopback with one image, in three kinds of access. Speaks just enough HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::archives::{Layer, architecture, config, digest, gzip, manifest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Open,
    Basic,
    Bearer,
}

pub struct Registry {
    pub address: SocketAddr,
    /// Digest of the multi-architecture index under `team/app:v1`.
    pub index: String,
    pub blob_requests: Arc<AtomicUsize>,
}

struct Shared {
    access: Access,
    address: SocketAddr,
    /// Path to media type and body.
    content: HashMap<String, (&'static str, Vec<u8>)>,
    blob_requests: Arc<AtomicUsize>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Registry {
    /// Serves `team/app:v1` (an index) and `team/lying:v1` (whose layer is not what its digest says).
    pub async fn start(access: Access, layers: &[Layer]) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = config(architecture(), layers);
        let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(&layer.0)).collect();
        let manifest_bytes = manifest(&config, &packed);
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": MANIFEST, "digest": digest(b"other"), "size": 5,
                "platform": {"os": "linux", "architecture": "vax"}},
            {"mediaType": MANIFEST, "digest": digest(&manifest_bytes), "size": manifest_bytes.len(),
                "platform": {"os": "linux", "architecture": architecture()}}]});
        let index = index.to_string().into_bytes();
        let mut content = HashMap::new();
        let lie = gzip(&Layer::file("f", "promised").0);
        let lying = manifest(&config, std::slice::from_ref(&lie));
        let index_digest = digest(&index);
        for blob in packed.iter().chain([&config]) {
            content.insert(format!("/v2/team/app/blobs/{}", digest(blob)), ("application/octet-stream", blob.clone()));
        }
        content.insert(format!("/v2/team/lying/blobs/{}", digest(&config)), ("application/octet-stream", config));
        content
            .insert(format!("/v2/team/lying/blobs/{}", digest(&lie)), ("application/octet-stream", b"lies".to_vec()));
        content.insert("/v2/team/lying/manifests/v1".to_owned(), (MANIFEST, lying));
        content.insert(format!("/v2/team/app/manifests/{}", digest(&manifest_bytes)), (MANIFEST, manifest_bytes));
        content.insert(format!("/v2/team/app/manifests/{index_digest}"), (INDEX, index.clone()));
        content.insert("/v2/team/app/manifests/v1".to_owned(), (INDEX, index));
        let blob_requests = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared { access, address, content, blob_requests: blob_requests.clone() });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Registry { address, index: index_digest, blob_requests }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
        let authorization = lines.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let response = shared.answer(&path, authorization.as_deref());
        if stream.write_all(&response).await.is_err() {
            return;
        }
    }
}

impl Shared {
    fn answer(&self, path: &str, authorization: Option<&str>) -> Vec<u8> {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:secret"));
        if path.starts_with("/token") {
            return match authorization == Some(basic.as_str()) {
                true => respond("200 OK", "application/json", "", br#"{"token":"entrance"}"#),
                false => respond("401 Unauthorized", "application/json", "", br#"{"errors":[]}"#),
            };
        }
        let (expected, challenge) = match self.access {
            Access::Open => (None, String::new()),
            Access::Basic => (Some(basic), "Www-Authenticate: Basic realm=\"registry\"\r\n".to_owned()),
            Access::Bearer => (
                Some("Bearer entrance".to_owned()),
                format!("Www-Authenticate: Bearer realm=\"http://{}/token\",service=\"registry\"\r\n", self.address),
            ),
        };
        if expected.is_some() && expected.as_deref() != authorization {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
            return respond("401 Unauthorized", "application/json", &challenge, body);
        }
        if path.contains("/blobs/") {
            self.blob_requests.fetch_add(1, Ordering::SeqCst);
        }
        match self.content.get(path) {
            Some((kind, body)) => respond("200 OK", kind, "", body),
            None if path == "/v2/" => respond("200 OK", "application/json", "", b"{}"),
            None => {
                let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":null}]}"#;
                respond("404 Not Found", "application/json", "", body)
            }
        }
    }
}

fn respond(status: &str, kind: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut response =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let mut response = std::mem::take(&mut response).into_bytes();
    response.extend_from_slice(body);
    response
}
