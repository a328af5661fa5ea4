//! Manifests from the web: `-f https://…`.

use http::header::LOCATION;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use tower::Service;
use trireme_client::kubeconfig::{Kubeconfig, Overrides};
use trireme_client::masters;

use super::errors::{CtlError, Result};

/// How often a server may send us elsewhere.
const REDIRECTS: usize = 10;
/// Largest text that is read.
const LARGEST: usize = 64 << 20;

/// The text behind a URL, of a server whose certificate this machine trusts. Nothing about the user is sent.
pub fn text(url: &str) -> Result<String> {
    let (own, url) = (url.to_owned(), url.to_owned());
    // Files are read where no runtime can be waited for; this happens once in a command.
    let work = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(follow(&url))
    });
    work.join().unwrap_or_else(|_| Err(CtlError::plain(format!("unable to read URL {own:?}"))))
}

async fn follow(first: &str) -> Result<String> {
    let mut url = first.to_owned();
    for _ in 0..=REDIRECTS {
        let (status, moved, body) = once(&url).await?;
        match (status.as_u16(), moved) {
            (301 | 302 | 303 | 307 | 308, Some(to)) => url = beside(&url, &to),
            (code, _) if code != 200 => {
                return Err(CtlError::plain(format!(
                    "unable to read URL {first:?}, server reported {status}, status code={code}"
                )));
            }
            _ => return Ok(String::from_utf8_lossy(&body).into_owned()),
        }
    }
    Err(CtlError::plain(format!("Get {first:?}: stopped after {REDIRECTS} redirects")))
}

/// Where a redirect leads: to a URL, or to another path of the same server.
fn beside(url: &str, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    match to {
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{host}{to}"),
        to => format!(
            "{scheme}://{host}/{}{to}",
            path.rsplit_once('/').map_or(String::new(), |(path, _)| format!("{path}/"))
        ),
    }
}

async fn once(url: &str) -> Result<(http::StatusCode, Option<String>, Vec<u8>)> {
    let failed = |why: String| CtlError::plain(format!("Get {url:?}: {why}"));
    let uri: Uri = url.parse().map_err(|_| failed("not a URL".to_owned()))?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let origin = format!("{}://{host}", uri.scheme_str().unwrap_or("https"));
    let overrides = Overrides { server: Some(origin), ..Overrides::default() };
    let of_server = Kubeconfig::default().resolve(&overrides).map_err(|error| failed(error.to_string()))?;
    let (mut service, _) = masters::service(of_server.masters).map_err(|error| failed(error.to_string()))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request =
        Request::builder().method(Method::GET).uri(path).header("accept", "*/*").header("user-agent", "trictl");
    let request = request.body(kube::client::Body::empty()).map_err(|error| failed(error.to_string()))?;
    let response = service.call(request).await.map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    let moved = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
    let body =
        Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| failed(error.to_string()))?;
    Ok((status, moved, body.to_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn redirects_are_followed_and_refusals_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut answered = 0;
            while answered < 3 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap();
                let head = String::from_utf8_lossy(&head[..read]);
                let answer = match head.split(' ').nth(1) {
                    // Only a look whether somebody is there.
                    None => continue,
                    Some("/a/old.yaml?x=1") => "301 Moved\r\nLocation: new.yaml\r\nContent-Length: 0\r\n\r\n",
                    Some("/a/new.yaml") => "200 OK\r\nContent-Length: 4\r\n\r\na: b",
                    Some(_) => "404 Not Found\r\nContent-Length: 0\r\n\r\n",
                };
                answered += 1;
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
            }
        });
        assert_eq!(text(&format!("{url}/a/old.yaml?x=1")).unwrap(), "a: b");
        let said = text(&format!("{url}/nope")).unwrap_err().text();
        assert!(said.contains("server reported 404 Not Found, status code=404"), "{said}");
        server.join().unwrap();
        assert_eq!(beside("https://h/a/b", "//x/y"), "https://x/y");
        assert_eq!(beside("https://h/a/b", "/y"), "https://h/y");
    }
}
