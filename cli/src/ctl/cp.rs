//! `trictl cp`: files to and from containers, as tar archives through `exec`.

mod pack;
mod unpack;

use clap::Args;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::SyncIoBridge;

use self::pack::pack;
use self::unpack::{Source, unpack};
use super::api::Call;
use super::errors::{CtlError, Result};
use super::exec::protocol::Outcome;
use super::exec::stream::{self, Local};
use super::exec::{call, finish};
use super::pods;
use super::session::Session;
use super::targets::Target;

/// Bytes between the archive and the connection.
const PIPE: usize = 256 * 1024;

/// Copy files and directories to and from containers.
#[derive(Debug, Clone, Default, Args)]
pub struct CpArgs {
    /// Source and destination, each FILE or [NAMESPACE/]POD:FILE
    pub words: Vec<String>,
    /// Container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Do not keep ownership and permissions in the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub no_preserve: bool,
    /// How often a copy from a container is taken up again; negative is without limit
    #[arg(long, allow_negative_numbers = true, default_value_t = 0)]
    pub retries: i64,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Local(String),
    Remote { namespace: Option<String>, pod: String, path: String },
}

impl Place {
    fn parse(word: &str) -> Result<Place> {
        let bad = || CtlError::plain("filespec must match the canonical format: [[namespace/]pod:]file/path");
        let Some((pod, path)) = word.split_once(':') else { return Ok(Place::Local(word.to_owned())) };
        let path = path.to_owned();
        match pod.split('/').collect::<Vec<_>>()[..] {
            [""] => Err(bad()),
            [pod] => Ok(Place::Remote { namespace: None, pod: pod.to_owned(), path }),
            [namespace, pod] => Ok(Place::Remote { namespace: Some(namespace.to_owned()), pod: pod.to_owned(), path }),
            _ => Err(bad()),
        }
    }

    fn path(&self) -> &str {
        match self {
            Place::Local(path) | Place::Remote { path, .. } => path,
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, args: &CpArgs) -> Result<()> {
    let [from, to] = args.words.as_slice() else {
        return Err(CtlError::plain("source and destination are required"));
    };
    let (from, to) = (Place::parse(from)?, Place::parse(to)?);
    if matches!((&from, &to), (Place::Remote { .. }, Place::Remote { .. })) {
        return Err(CtlError::plain("one of src or dest must be a local file specification"));
    }
    if from.path().is_empty() || to.path().is_empty() {
        return Err(CtlError::plain("filepath can not be empty"));
    }
    match (from, to) {
        (Place::Local(from), Place::Remote { namespace, pod, path }) => {
            if std::fs::metadata(&from).is_err() {
                return Err(CtlError::plain(format!("{from} doesn't exist in local filesystem")));
            }
            let end = End::find(session, namespace, &pod, args).await?;
            upload(session, &end, args, &from, &path).await
        }
        (Place::Remote { namespace, pod, path }, Place::Local(to)) => {
            let end = End::find(session, namespace, &pod, args).await?;
            download(session, &end, args, &path, &to).await
        }
        _ => Err(CtlError::plain("one of src or dest must be a remote file specification")),
    }
}

/// The container that files go to or come from.
struct End {
    pod: Target,
    container: String,
}

impl End {
    async fn find(session: &Session, namespace: Option<String>, name: &str, args: &CpArgs) -> Result<End> {
        let resource = session.discovery().await?.need("pods")?;
        let namespace = Some(namespace.unwrap_or_else(|| session.namespace.clone()));
        let pod = Target { resource, namespace, name: name.to_owned(), object: None, source: None };
        let object: Value = session.api.json(&Call::get(pod.path())).await?;
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            let text = format!("cannot exec into a container in a completed pod; current phase is {phase}");
            return Err(CtlError::plain(text));
        }
        let container = pods::container(&object, args.container.as_deref(), false)?;
        Ok(End { pod, container })
    }

    async fn run<I, O>(&self, session: &Session, command: &[String], input: Option<I>, out: O) -> Result<Outcome>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
    {
        let call = call(&self.pod, &self.container, command, input.is_some(), false);
        let local = Local { input, out, err: tokio::io::stderr(), terminal: false };
        stream::run(session, &call, local).await
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Directory and name of a path in a container.
fn parts(path: &str) -> (String, String) {
    let clean = unpack::clean(path);
    match clean.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None => (".".to_owned(), clean),
    }
}

async fn upload(session: &Session, end: &End, args: &CpArgs, from: &str, to: &str) -> Result<()> {
    let test = call(&end.pod, &end.container, &words(&["test", "-d", to]), false, false);
    let quiet =
        Local { input: None::<tokio::io::Empty>, out: tokio::io::sink(), err: tokio::io::sink(), terminal: false };
    let is_directory = matches!(stream::run(session, &test, quiet).await?, Outcome::Success);
    let source = std::path::absolute(from)?;
    let to = match source.file_name() {
        Some(name) if is_directory => format!("{}/{}", to.trim_end_matches('/'), name.to_string_lossy()),
        _ => to.to_owned(),
    };
    let (directory, name) = parts(&to);
    let mut command = words(match args.no_preserve {
        true => &["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"],
        false => &["tar", "-xmf", "-"],
    });
    command.extend(["-C".to_owned(), directory]);
    let (theirs, ours) = tokio::io::duplex(PIPE);
    let packing = tokio::task::spawn_blocking(move || pack(&source, &name, SyncIoBridge::new(ours)));
    let outcome = end.run(session, &command, Some(theirs), tokio::io::stdout()).await?;
    // A process that ends early leaves the rest of the archive unread: its own error says more.
    finish(outcome, false)?;
    match packing.await {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

async fn download(session: &Session, end: &End, args: &CpArgs, from: &str, to: &str) -> Result<()> {
    let (theirs, ours) = tokio::io::duplex(PIPE);
    let namespace = end.pod.namespace.clone().unwrap_or_default();
    let source = Source { namespace, pod: end.pod.name.clone(), path: from.to_owned() };
    let target = to.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || unpack(&source, &target, SyncIoBridge::new(ours)));
    let mut counted = Counted { inner: theirs, bytes: 0 };
    let mut tries = 0;
    let fetched = loop {
        let command = fetch(from, args.retries, counted.bytes);
        let outcome = end.run(session, &command, None::<tokio::io::Empty>, &mut counted).await;
        // What the program itself says is final, and so is a local failure.
        if !matches!(outcome, Ok(Outcome::Lost) | Err(CtlError::Transport(_) | CtlError::Status(_))) {
            break outcome;
        }
        if args.retries >= 0 && tries >= args.retries {
            if tries > 0 {
                println!("Dropping out copy after {tries} retries");
            }
            break outcome;
        }
        tries += 1;
        println!("Resuming copy at {} bytes, retry {tries}/{}", counted.bytes, args.retries);
    };
    let _ = counted.inner.shutdown().await;
    drop(counted);
    let unpacked = unpacking.await.unwrap_or_else(|error| Err(CtlError::plain(error.to_string())));
    match fetched {
        // A broken connection is the cause of a broken archive, and what the archive says is the cause of a stop.
        Ok(Outcome::Lost) | Err(_) if unpacked.as_ref().is_err_and(|error| !unpack::is_truncated(error)) => unpacked,
        Ok(outcome) => finish(outcome, false).and(unpacked),
        Err(error) => Err(error),
    }
}

/// What packs the files; when it may have to be taken up again, from a byte on.
fn fetch(path: &str, retries: i64, from: u64) -> Vec<String> {
    if retries == 0 {
        return words(&["tar", "cf", "-", path]);
    }
    let quoted = format!("'{}'", path.replace('\'', "'\\''"));
    words(&["sh", "-c", &format!("tar cf - {quoted} | tail -c+{}", from + 1)])
}

/// Counts what went through.
struct Counted {
    inner: tokio::io::DuplexStream,
    bytes: u64,
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let polled = std::pin::Pin::new(&mut self.inner).poll_write(context, bytes);
        if let std::task::Poll::Ready(Ok(count)) = &polled {
            self.bytes += *count as u64;
        }
        polled
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_as_they_are_typed() {
        assert_eq!(Place::parse("/tmp/x").unwrap(), Place::Local("/tmp/x".into()));
        let remote = |namespace: Option<&str>| Place::Remote {
            namespace: namespace.map(str::to_owned),
            pod: "p".into(),
            path: "/a:b".into(),
        };
        assert_eq!(Place::parse("p:/a:b").unwrap(), remote(None));
        assert_eq!(Place::parse("n/p:/a:b").unwrap(), remote(Some("n")));
        assert!(Place::parse(":/a").is_err() && Place::parse("a/b/c:/d").is_err());
    }

    #[test]
    fn paths_are_taken_apart() {
        let parts = |path: &str| {
            let (directory, name) = super::parts(path);
            format!("{directory} {name}")
        };
        assert_eq!(parts("/tmp/x"), "/tmp x");
        assert_eq!(parts("/x/"), "/ x");
        assert_eq!(parts("x"), ". x");
        assert_eq!(parts("/tmp/../etc/x"), "/etc x");
    }

    #[test]
    fn a_copy_is_taken_up_where_it_broke() {
        assert_eq!(fetch("/a b", 0, 0), ["tar", "cf", "-", "/a b"]);
        assert_eq!(fetch("/it's", 3, 10)[2], "tar cf - '/it'\\''s' | tail -c+11");
    }
}
