//! `trictl proxy`: the API on a local port or socket, with this user's rights, over whichever master lives.

mod files;
mod filter;
mod forward;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use self::filter::Filter;
use super::api::Api;
use super::errors::{CtlError, Result};
use super::flags;
use super::print::{emit, os_reason};
use super::session::Session;

/// Connections at one time.
const CONNECTIONS: usize = 1024;
const PORT: u16 = 8001;

/// Run a proxy to the Kubernetes API server.
#[derive(Debug, Clone, Default, Args)]
pub struct ProxyArgs {
    /// Ignored
    #[arg(hide = true)]
    pub words: Vec<String>,
    /// Hosts that requests may name, regular expressions separated by commas
    #[arg(long, default_value = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$")]
    pub accept_hosts: String,
    /// Paths that may be asked for
    #[arg(long, default_value = "^.*")]
    pub accept_paths: String,
    /// The IP address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub address: String,
    /// Path under which the API is served
    #[arg(long, default_value = "/")]
    pub api_prefix: String,
    /// Accepted for kubectl's sake: no server of the kubeconfig has a path here
    #[arg(long)]
    pub append_server_path: bool,
    /// Let every request through: any web site may then send some
    #[arg(long)]
    pub disable_filter: bool,
    /// Accepted for kubectl's sake: connections to the masters look after themselves
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub keepalive: f64,
    /// The port; 0 is any that is free
    #[arg(short, long, default_value_t = PORT)]
    pub port: u16,
    /// Methods that are refused
    #[arg(long, default_value = "^$")]
    pub reject_methods: String,
    /// Paths that are refused although accepted by --accept-paths
    #[arg(long, default_value = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach")]
    pub reject_paths: String,
    /// A Unix socket to listen on
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub unix_socket: String,
    /// Also serve the files of this folder
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub www: String,
    /// Path under which they are served
    #[arg(short = 'P', long, default_value = "/static/")]
    pub www_prefix: String,
}

/// What an answer consists of.
type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// A short answer.
fn short(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let body = Full::new(Bytes::from(text.into())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Everything a request needs.
struct Proxy {
    api: Api,
    filter: Option<Filter>,
    api_prefix: String,
    www_prefix: String,
    www: Option<PathBuf>,
}

/// Runs the verb, until it is interrupted.
pub async fn run(session: &Session, args: &ProxyArgs) -> Result<()> {
    let filter = match args.disable_filter {
        true => None,
        false => Some(Filter::new(args)?),
    };
    if args.disable_filter && args.unix_socket.is_empty() {
        eprintln!("W Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious");
    }
    if args.port != PORT && !args.unix_socket.is_empty() {
        return Err(CtlError::plain("cannot set --unix-socket and --port at the same time"));
    }
    if !args.www.is_empty() && !Path::new(&args.www).is_dir() {
        eprintln!("W Static file directory {} is not a directory", args.www);
    }
    let proxy = Arc::new(Proxy {
        api: session.api.clone(),
        filter,
        api_prefix: with_slash(&args.api_prefix),
        www_prefix: with_slash(&args.www_prefix),
        www: Some(PathBuf::from(&args.www)).filter(|folder| !folder.as_os_str().is_empty()),
    });
    let listener = Listener::open(args).await?;
    emit(&format!("Starting to serve on {}\n", listener.name()))?;
    tokio::select! {
        () = listener.serve(proxy) => Ok(()),
        _ = tokio::signal::ctrl_c() => Err(CtlError::Exit(130)),
    }
}

fn with_slash(prefix: &str) -> String {
    if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") }
}

/// Where requests come from.
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, String),
}

impl Listener {
    async fn open(args: &ProxyArgs) -> Result<Listener> {
        if args.unix_socket.is_empty() {
            let at = format!("{}:{}", args.address, args.port);
            let failed = |error: std::io::Error| {
                let why = os_reason(&error);
                let why = why.split(" (os error").next().unwrap_or(&why).to_lowercase();
                CtlError::plain(format!("listen tcp {at}: bind: {why}"))
            };
            let listener = TcpListener::bind(&at).await.map_err(failed)?;
            let address = listener.local_addr()?;
            return Ok(Listener::Tcp(listener, address));
        }
        let path = &args.unix_socket;
        // What an earlier proxy left; anything else stays.
        if std::fs::symlink_metadata(path).is_ok_and(|found| {
            use std::os::unix::fs::FileTypeExt;
            found.file_type().is_socket()
        }) {
            let _ = std::fs::remove_file(path);
        }
        // Only this user may connect: the socket is born so.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let bound = UnixListener::bind(path);
        nix::sys::stat::umask(before);
        let failed =
            |error: std::io::Error| CtlError::plain(format!("listen unix {path}: bind: {}", os_reason(&error)));
        Ok(Listener::Unix(bound.map_err(failed)?, path.clone()))
    }

    fn name(&self) -> String {
        match self {
            Listener::Tcp(_, address) => address.to_string(),
            Listener::Unix(_, path) => path.clone(),
        }
    }

    async fn serve(self, proxy: Arc<Proxy>) {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let turn = turns.clone().acquire_owned().await;
            let accepted = match &self {
                Listener::Tcp(listener, _) => listener.accept().await.map(|(stream, _)| {
                    let _ = stream.set_nodelay(true);
                    Stream::Tcp(stream)
                }),
                Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            let Ok(stream) = accepted else {
                // Out of descriptors, for example: it passes.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let proxy = proxy.clone();
            tokio::spawn(async move {
                let _turn = turn;
                match stream {
                    Stream::Tcp(stream) => connection(stream, proxy).await,
                    Stream::Unix(stream) => connection(stream, proxy).await,
                }
            });
        }
    }
}

/// A connection of either kind.
enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn connection<S>(stream: S, proxy: Arc<Proxy>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, std::convert::Infallible>(proxy.answer(request).await) }
    });
    // A client that breaks off is no news.
    let _ =
        auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Whose prefix a path has.
#[derive(Debug, PartialEq)]
enum Place {
    Api(String),
    Www(String),
    /// The prefix without its slash.
    Redirect(String),
    Nowhere,
}

impl Proxy {
    fn place(&self, path: &str) -> Place {
        let www = self.www.as_ref().map(|_| self.www_prefix.as_str());
        place(&self.api_prefix, www, path)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.place(request.uri().path()) {
            Place::Nowhere => short(StatusCode::NOT_FOUND, "404 page not found\n"),
            Place::Redirect(to) => files::redirect(&to),
            Place::Www(path) => match &self.www {
                Some(folder) => files::answer(folder, &path, &request).await,
                None => short(StatusCode::NOT_FOUND, "404 page not found\n"),
            },
            Place::Api(path) => {
                let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                let host = host.or(request.uri().host()).unwrap_or_default();
                if self.filter.as_ref().is_some_and(|filter| !filter.passes(request.method().as_str(), &path, host)) {
                    return short(StatusCode::FORBIDDEN, "Forbidden\n");
                }
                forward::answer(&self.api, request, &path).await
            }
        }
    }
}

/// The longest prefix wins. A prefix that begins with /api is part of the API's own paths and stays.
fn place(api: &str, www: Option<&str>, path: &str) -> Place {
    let mut prefixes: Vec<(&str, bool)> = vec![(api, true)];
    prefixes.extend(www.map(|prefix| (prefix, false)));
    prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    for (prefix, is_api) in prefixes {
        if let Some(rest) = path.strip_prefix(prefix) {
            return match is_api {
                true if api.starts_with("/api") => Place::Api(path.to_owned()),
                true => Place::Api(format!("/{rest}")),
                false => Place::Www(rest.to_owned()),
            };
        }
        if path == prefix.trim_end_matches('/') {
            return Place::Redirect(prefix.to_owned());
        }
    }
    Place::Nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_tell_what_is_meant() {
        let api = |path: &str| Place::Api(path.to_owned());
        assert_eq!(place("/", None, "/api/v1/pods"), api("/api/v1/pods"));
        assert_eq!(place("/", Some("/static/"), "/static/a/b"), Place::Www("a/b".to_owned()));
        assert_eq!(place("/", Some("/static/"), "/static"), Place::Redirect("/static/".to_owned()));
        assert_eq!(place("/custom/", None, "/custom/api/v1"), api("/api/v1"));
        assert_eq!(place("/custom/", None, "/api/v1"), Place::Nowhere);
        assert_eq!(place("/api/", None, "/api/v1"), api("/api/v1"));
        assert_eq!(place("/api/", None, "/apis/apps"), Place::Nowhere);
    }
}
