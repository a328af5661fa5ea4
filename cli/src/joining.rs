//! The client side of joining a cluster.
//!
//! A joining machine knows a master's address and a token. The token carries the hash of the cluster's CA key, so that
//! the machine hands its secret to no one else. Nothing is written here: callers store the answer, and only when all of
//! it has arrived.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trireme_apiserver::join::wire::{MASTER_PATH, MasterRequest, MasterResponse, NODE_PATH, NodeRequest, NodeResponse};
use trireme_apiserver::pki::{KeyAndCsr, Pair, Pki, csr_of_key, key_and_csr};
use trireme_client::tls::{CaPin, Trust, client_config};

const DIAL: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// For how long a cluster without a leader, or busy with another change of membership, is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: usize = 1024 * 1024;

/// What a person pastes: `<id>.<secret>@sha256:<hash of the CA's key>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Public part.
    pub id: String,
    /// Secret part.
    pub secret: String,
    /// Which cluster it is for.
    pub pin: CaPin,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken({}.…)", self.id)
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}@{}", self.id, self.secret, self.pin)
    }
}

impl FromStr for JoinToken {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let (token, pin) = text.split_once('@').ok_or_else(|| {
            anyhow!("the token is cut off: it has the form <id>.<secret>@sha256:<hash>; paste all of it")
        })?;
        let (id, secret) =
            token.split_once('.').ok_or_else(|| anyhow!("the token has no dot between id and secret"))?;
        let fits = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !fits(id, 6) || !fits(secret, 16) {
            bail!("the token has to begin with 6 and 16 lower-case letters or digits, a dot between them");
        }
        let pin = pin.parse().context("the token's end is damaged")?;
        Ok(JoinToken { id: id.into(), secret: secret.into(), pin })
    }
}

/// Where to join, and with what; the same for masters and nodes.
#[derive(clap::Args, Debug, Default)]
pub struct JoinArgs {
    /// Join the cluster of this master, for example https://10.0.0.11:6443; needed the first time only.
    #[arg(long, value_name = "URL")]
    pub join: Option<String>,
    /// Join token, as printed by `trireme master --init` or `trireme token create`. Others on this machine can read
    /// arguments: better give it in a file or in the environment.
    #[arg(long, env = "TRIREME_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the join token, `-` for standard input; goes before --token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl JoinArgs {
    /// URL and token, if this machine is told to join.
    ///
    /// # Errors
    /// When the token is missing, cannot be read or is malformed.
    pub fn read(&self) -> anyhow::Result<Option<(String, JoinToken)>> {
        let Some(url) = &self.join else { return Ok(None) };
        let (text, origin) = match (&self.token_file, &self.token) {
            (Some(path), _) if path.as_os_str() == "-" => {
                (std::io::read_to_string(std::io::stdin()).context("--token-file -")?, "--token-file")
            }
            (Some(path), _) => {
                let text = std::fs::read_to_string(path);
                (text.with_context(|| format!("--token-file {}", path.display()))?, "--token-file")
            }
            (None, Some(token)) => (token.clone(), "--token"),
            (None, None) => bail!(
                "--join needs a token: give it in TRIREME_TOKEN or --token-file; \"trireme token create\" makes one"
            ),
        };
        Ok(Some((url.clone(), text.parse().context(origin)?)))
    }
}

/// A data directory that is about to be used: if it was made for an attempt that came to nothing, it goes again.
pub struct Fresh {
    dir: PathBuf,
    made: bool,
}

impl Fresh {
    /// Makes the directory unless it is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(dir: &Path) -> anyhow::Result<Fresh> {
        let made = !dir.exists();
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
        Ok(Fresh { dir: dir.to_owned(), made })
    }

    /// Removes what the attempt itself has made, if nothing else came to be there.
    pub fn undo(&self) {
        let others = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        if self.made && others.into_iter().all(|entry| entry.file_name() == "lock") {
            let _ = std::fs::remove_file(self.dir.join("lock"));
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// A master that wants to join.
#[derive(Clone, Debug)]
pub struct MasterJoin {
    /// URL of any master, `https://10.0.0.11:6443`.
    pub url: String,
    /// The token.
    pub token: JoinToken,
    /// Name of the new master.
    pub name: String,
    /// Where its API can be reached.
    pub address: SocketAddr,
    /// Where its peer server can be reached.
    pub peer_address: SocketAddr,
    /// It stays a learner until it is promoted by hand.
    pub learner: bool,
    /// A dead master of its name makes room for it.
    pub replace: bool,
}

/// What a joined master has got. Nothing of it is on disk yet.
pub struct JoinedMaster {
    /// The cluster's answer: shared keys, grant, masters.
    pub response: MasterResponse,
    server_key: String,
    peer_key: String,
}

impl JoinedMaster {
    /// Writes the key folder.
    ///
    /// # Errors
    /// When it cannot be written, or one of another cluster is there.
    pub fn install(&self, pki_dir: &Path) -> anyhow::Result<Pki> {
        let pair = |cert: &str, key: &str| Pair { cert_pem: cert.into(), key_pem: key.into() };
        Ok(Pki::install(
            pki_dir,
            &self.response.keys,
            &pair(&self.response.server_crt, &self.server_key),
            &pair(&self.response.peer_crt, &self.peer_key),
        )?)
    }
}

/// Joins as a master.
///
/// # Errors
/// In words for the person who typed the command: dead address, another cluster, wrong or expired token, taken name.
pub async fn join_master(join: &MasterJoin) -> anyhow::Result<JoinedMaster> {
    let (server, peer) = (key_and_csr()?, key_and_csr()?);
    let request = MasterRequest {
        name: join.name.clone(),
        address: join.address.to_string(),
        peer_address: join.peer_address.to_string(),
        server_csr: server.csr_pem,
        peer_csr: peer.csr_pem,
        feature_level: trireme_raftstore::FEATURE_LEVEL,
        learner: join.learner,
        replace: join.replace,
    };
    let response: MasterResponse = post(&join.url, &join.token, MASTER_PATH, &request).await?;
    Ok(JoinedMaster { response, server_key: server.key_pem, peer_key: peer.key_pem })
}

/// A node agent that wants to join.
#[derive(Clone, Debug)]
pub struct NodeJoin {
    /// URL of any master.
    pub url: String,
    /// The token.
    pub token: JoinToken,
    /// Name of the new node.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The key that it has from an earlier join, PEM.
    pub key_pem: Option<String>,
}

/// What a joined node has got. Nothing of it is on disk yet.
pub struct JoinedNode {
    /// Certificate of the cluster's authority.
    pub ca_pem: String,
    /// The node's certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// URLs of all masters.
    pub masters: Vec<String>,
}

/// Joins as a node.
///
/// # Errors
/// As [`join_master`].
pub async fn join_node(join: &NodeJoin) -> anyhow::Result<JoinedNode> {
    let key = match &join.key_pem {
        Some(key_pem) => KeyAndCsr { key_pem: key_pem.clone(), csr_pem: csr_of_key(key_pem)? },
        None => key_and_csr()?,
    };
    let request = NodeRequest { name: join.name.clone(), address: join.address.to_string(), csr: key.csr_pem };
    let response: NodeResponse = post(&join.url, &join.token, NODE_PATH, &request).await?;
    Ok(JoinedNode { ca_pem: response.ca_crt, cert_pem: response.crt, key_pem: key.key_pem, masters: response.masters })
}

async fn post<T: DeserializeOwned>(
    url: &str,
    token: &JoinToken,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<T> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(50);
    loop {
        let (status, answer) = attempt(url, token, path, body.clone()).await?;
        if status.is_success() {
            return serde_json::from_slice(&answer)
                .context("the master's answer is not understood; is it older or newer?");
        }
        let message = message(&answer);
        let transient = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
        if !transient || Instant::now() + pause > deadline {
            bail!("{url} refused the join ({}): {message}", status.as_u16());
        }
        tracing::info!(%status, message, "the cluster cannot take a join at this moment; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// The sentence inside a `Status`, or whatever came instead.
fn message(answer: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    match status.as_ref().and_then(|s| s.get("message")).and_then(serde_json::Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&answer[..answer.len().min(200)]).trim().to_owned(),
    }
}

async fn attempt(url: &str, token: &JoinToken, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
    let uri: Uri = url.trim_end_matches('/').parse().with_context(|| format!("--join {url:?} is not a URL"))?;
    if uri.scheme_str() != Some("https") || uri.path().len() > 1 {
        bail!("--join {url:?} has to look like https://10.0.0.11:6443");
    }
    let host = uri.host().ok_or_else(|| anyhow!("--join {url:?} names no host"))?;
    let port = uri.port_u16().unwrap_or(6443);
    let tls = connect(url, host.trim_matches(['[', ']']), port, token.pin).await?;
    let request = Request::post(path)
        .header(HOST, format!("{host}:{port}"))
        .header(AUTHORIZATION, format!("Bearer {}.{}", token.id, token.secret))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        driver.abort();
        Ok::<_, anyhow::Error>((status, answer.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    tokio::time::timeout(ANSWER, exchange)
        .await
        .map_err(|_| anyhow!("{url} did not answer within {} s", ANSWER.as_secs()))?
        .with_context(|| format!("the connection to {url} broke before the answer came"))
}

async fn connect(url: &str, host: &str, port: u16, pin: CaPin) -> anyhow::Result<TlsStream<TcpStream>> {
    let hint = "is the address right, and is a master running there?";
    let stream = tokio::time::timeout(DIAL, TcpStream::connect((host, port)))
        .await
        .map_err(|_| anyhow!("cannot reach {url}: no answer within {} s; {hint}", DIAL.as_secs()))?
        .map_err(|error| anyhow!("cannot reach {url}: {error}; {hint}"))?;
    stream.set_nodelay(true)?;
    let mut config = client_config(&Trust::Pinned(pin), None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host:?} is not a host name"))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    tokio::time::timeout(DIAL, handshake)
        .await
        .map_err(|_| anyhow!("{url} accepts connections but does not answer; {hint}"))?
        .map_err(|error| explain(url, pin, error))
}

/// A failed handshake in words: most often the token is of another cluster.
fn explain(url: &str, pin: CaPin, error: std::io::Error) -> anyhow::Error {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => anyhow!(
            "{url} is not a master of the cluster that the token is from: its certificate does not come from the CA with \
             the hash {pin}; nothing was sent to it"
        ),
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            anyhow!(
                "the certificate of {url} is not valid for this address; use the address that the master advertises"
            )
        }
        Some(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => anyhow!("the certificate of {url} is not valid at this time ({error}); are the machines' clocks right?"),
        _ => anyhow!("no TLS connection to {url}: {error}; is it the API port of a master (6443)?"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token(text: &str) -> anyhow::Result<JoinToken> {
        text.parse()
    }

    #[test]
    fn tokens_are_read_and_written() {
        let text = format!("abcdef.0123456789abcdef@sha256:{}", "0f".repeat(32));
        assert_eq!(token(&text).unwrap().to_string(), text);
        assert_eq!(token(&format!(" {text}\n")).unwrap().to_string(), text);
        assert!(!format!("{:?}", token(&text).unwrap()).contains("0123456789abcdef"));
        for (bad, why) in [
            ("abcdef.0123456789abcdef", "cut off"),
            ("abcdef0123456789abcdef@sha256:00", "no dot"),
            ("ABCDEF.0123456789abcdef@sha256:00", "6 and 16"),
            ("abcdef.0123456789abcdef@sha256:00", "damaged"),
        ] {
            let error = token(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn tokens_come_from_a_file_or_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let text = |letter: &str| format!("abcde{letter}.0123456789abcdef@sha256:{}", "0f".repeat(32));
        let file = dir.path().join("token");
        std::fs::write(&file, text("f") + "\n").unwrap();
        let url = Some("https://10.0.0.11:6443".to_owned());
        let given =
            |token: Option<String>, token_file: Option<PathBuf>| JoinArgs { join: url.clone(), token, token_file };
        let id = |args: JoinArgs| args.read().unwrap().unwrap().1.id;
        assert_eq!(id(given(Some(text("x")), None)), "abcdex");
        assert_eq!(id(given(Some(text("x")), Some(file))), "abcdef");
        let error = |args: JoinArgs| format!("{:#}", args.read().unwrap_err());
        assert!(error(given(None, None)).contains("TRIREME_TOKEN or --token-file"));
        assert!(error(given(None, Some(dir.path().join("none")))).contains("--token-file"));
        assert!(error(given(Some("x".into()), None)).contains("cut off"));
        assert!(JoinArgs::default().read().unwrap().is_none());
    }

    #[test]
    fn a_refused_attempt_leaves_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let fresh = Fresh::make(&data).unwrap();
        std::fs::write(data.join("lock"), "").unwrap();
        fresh.undo();
        assert!(!data.exists());
        // What was there before, or came to be there, stays.
        let fresh = Fresh::make(&data).unwrap();
        std::fs::write(data.join("lock"), "").unwrap();
        std::fs::write(data.join("pki"), "").unwrap();
        fresh.undo();
        assert!(data.join("pki").exists() && data.join("lock").exists());
        std::fs::remove_file(data.join("pki")).unwrap();
        Fresh::make(&data).unwrap().undo();
        assert!(data.join("lock").exists());
    }

    #[tokio::test]
    async fn a_dead_address_is_told_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let join = NodeJoin {
            url: format!("https://{address}"),
            token: format!("abcdef.0123456789abcdef@sha256:{}", "00".repeat(32)).parse().unwrap(),
            name: "n".into(),
            address: address.ip(),
            key_pem: None,
        };
        let error = join_node(&join).await.err().unwrap().to_string();
        assert!(error.contains("cannot reach https://127.0.0.1"), "{error}");
        assert!(error.contains("is a master running there"), "{error}");
    }

    #[tokio::test]
    async fn a_server_of_another_cluster_gets_nothing() {
        let dir = std::env::temp_dir().join(format!("trireme-joining-{}", std::process::id()));
        let identity = trireme_apiserver::pki::MasterIdentity {
            name: "m".into(),
            address: "127.0.0.1".parse().unwrap(),
            service_ip: "10.96.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
        };
        let pki = Pki::create(&dir.join("pki"), &identity).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(pki.server_config().unwrap());
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.is_err()
        });
        let join = NodeJoin {
            url: format!("https://{address}"),
            token: format!("abcdef.0123456789abcdef@sha256:{}", "00".repeat(32)).parse().unwrap(),
            name: "n".into(),
            address: address.ip(),
            key_pem: None,
        };
        let error = join_node(&join).await.err().unwrap().to_string();
        assert!(error.contains("not a master of the cluster that the token is from"), "{error}");
        assert!(server.await.unwrap());
        // The right pin gets through the handshake: the chain carries the CA.
        std::fs::remove_dir_all(dir).unwrap();
    }
}
