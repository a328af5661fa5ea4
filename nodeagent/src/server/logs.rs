//! `GET /containerLogs/{namespace}/{pod}/{container}`: reads log files in CRI's format.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::mpsc;

use crate::pods::{Context, log_file};
use crate::server::fail;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(100);
const CHUNK: usize = 64 << 10;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    limit: Option<u64>,
    /// Lines before this (RFC 3339 with nine digits, so that text compares like time) are left out.
    since: Option<String>,
}

impl Options {
    fn parse(query: &HashMap<String, String>, now: jiff::Timestamp) -> Result<Options, String> {
        let flag = |name: &str| matches!(query.get(name).map(String::as_str), Some("true" | "1"));
        let number = |name: &str| -> Result<Option<u64>, String> {
            let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| format!("{name}: invalid number {text:?}"))
        };
        let mut since = None;
        if let Some(seconds) = number("sinceSeconds")? {
            let back = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            since = Some(now.saturating_sub(back).unwrap_or(jiff::Timestamp::MIN));
        } else if let Some(text) = query.get("sinceTime").filter(|text| !text.is_empty()) {
            since = Some(text.parse().map_err(|_| format!("sinceTime: invalid time {text:?}"))?);
        }
        Ok(Options {
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            tail: number("tailLines")?,
            limit: number("limitBytes")?,
            since: since.map(|time| format!("{time:.9}")),
        })
    }
}

pub(super) async fn serve(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let options = match Options::parse(&query, jiff::Timestamp::now()) {
        Ok(options) => options,
        Err(message) => return fail(StatusCode::BAD_REQUEST, message),
    };
    let Some(view) = context.register.get(&namespace, &pod) else {
        return fail(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found"));
    };
    let Some(found) = view.containers.get(&container) else {
        return fail(StatusCode::NOT_FOUND, format!("container \"{container}\" not found in pod \"{pod}\""));
    };
    let attempt = match (found.attempt, options.previous) {
        (Some(attempt), false) => attempt,
        (Some(attempt), true) if attempt > 0 => attempt - 1,
        (_, true) => {
            let message = format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
            return fail(StatusCode::BAD_REQUEST, message);
        }
        (None, false) => {
            let why = found.waiting.clone().unwrap_or_else(|| "ContainerCreating".to_owned());
            let message = format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}");
            return fail(StatusCode::BAD_REQUEST, message);
        }
    };
    let path = log_file(&view.logs, &container, attempt);
    let running = move || {
        let view = context.register.get(&namespace, &pod);
        let found = view.as_ref().and_then(|view| view.containers.get(&container));
        found.is_some_and(|c| c.running.is_some() && c.attempt == Some(attempt))
    };
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    tokio::spawn(async move {
        if let Err(error) = send(path, options, running, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    let body = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    ([(CONTENT_TYPE, "text/plain")], Body::from_stream(body)).into_response()
}

/// Sends the log, and with `follow` what is added to it while the container runs.
async fn send(
    path: PathBuf,
    options: Options,
    running: impl Fn() -> bool,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut file = File::open(&path)?;
    if let Some(lines) = options.tail {
        let start = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let mut writer = Writer { options: &options, rest: Vec::new(), left: options.limit, within: false };
    let mut buffer = vec![0; CHUNK];
    loop {
        // Asked before reading: what a container wrote before its end is then read for sure.
        let more = options.follow && running();
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            let out = writer.take(&buffer[..length]);
            if !out.is_empty() && sender.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(());
            }
            if writer.left == Some(0) {
                return Ok(());
            }
        }
        if rotated(&file, &path) {
            file = File::open(&path)?;
        } else if !more {
            return Ok(());
        } else {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = sender.closed() => return Ok(()),
            }
        }
    }
}

fn rotated(file: &File, path: &FsPath) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

/// Where the last so many lines begin.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut at = file.seek(SeekFrom::End(0))?;
    let end = at;
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut buffer = vec![0; CHUNK];
    while at > 0 {
        let length = at.min(CHUNK as u64);
        at -= length;
        file.seek(SeekFrom::Start(at))?;
        let part = &mut buffer[..length as usize];
        file.read_exact(part)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let position = at + index as u64;
            if position + 1 == end {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(position + 1);
            }
        }
    }
    Ok(0)
}

/// Turns CRI lines into what the user sees.
struct Writer<'a> {
    options: &'a Options,
    /// A line whose end was not read yet.
    rest: Vec<u8>,
    left: Option<u64>,
    /// What comes next is a piece of a line that has begun.
    within: bool,
}

impl Writer<'_> {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let mut from = 0;
        while let Some(length) = all[from..].iter().position(|b| *b == b'\n') {
            self.line(&all[from..from + length], &mut out);
            from += length + 1;
        }
        self.rest = all[from..].to_vec();
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(time), Some(_), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        if self.options.since.as_ref().is_some_and(|since| time < since.as_bytes()) {
            return;
        }
        if self.options.timestamps && !self.within {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.within = tag != b"F";
        if !self.within {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn log(lines: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, lines.concat()).unwrap();
        (dir, path)
    }

    async fn read(path: &FsPath, options: Options) -> String {
        let (sender, mut receiver) = mpsc::channel(64);
        send(path.to_owned(), options, || false, &sender).await.unwrap();
        drop(sender);
        let mut all = Vec::new();
        while let Some(part) = receiver.recv().await {
            all.extend_from_slice(&part.unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn what_is_asked_is_what_comes() {
        let (_dir, path) = log(&[
            "2026-01-01T00:00:01.000000000Z stdout F one\n",
            "2026-01-01T00:00:02.000000000Z stderr P tw\n",
            "2026-01-01T00:00:02.000000000Z stderr F o\n",
            "2026-01-01T00:00:03.000000000Z stdout F three\n",
        ]);
        let default = Options::default();
        assert_eq!(read(&path, default.clone()).await, "one\ntwo\nthree\n");
        assert_eq!(read(&path, Options { tail: Some(1), ..default.clone() }).await, "three\n");
        assert_eq!(read(&path, Options { tail: Some(0), ..default.clone() }).await, "");
        assert_eq!(read(&path, Options { tail: Some(99), ..default.clone() }).await, "one\ntwo\nthree\n");
        assert_eq!(read(&path, Options { limit: Some(5), ..default.clone() }).await, "one\nt");
        let since = Some("2026-01-01T00:00:03.000000000Z".to_owned());
        let all = Options { timestamps: true, tail: Some(3), ..default.clone() };
        let once = "2026-01-01T00:00:02.000000000Z two\n2026-01-01T00:00:03.000000000Z three\n";
        assert_eq!(read(&path, all).await, once, "a line in pieces has its time once");
        let stamped = Options { since, timestamps: true, ..default };
        assert_eq!(read(&path, stamped).await, "2026-01-01T00:00:03.000000000Z three\n");
    }

    #[test]
    fn options_come_from_the_query() {
        let query = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let now = jiff::Timestamp::from_second(100).unwrap();
        let options = Options::parse(&query(&[("follow", "true"), ("sinceSeconds", "40")]), now).unwrap();
        assert!(options.follow);
        assert_eq!(options.since.as_deref(), Some("1970-01-01T00:01:00.000000000Z"));
        assert!(Options::parse(&query(&[("tailLines", "x")]), now).is_err());
    }
}
