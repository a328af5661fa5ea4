//! Finding a pod's shim and following it: its containers' exits and last words, and whether it still lives.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pods::machine::Event;
use crate::pods::slots::definitions;
use crate::pods::worker::Message;
use crate::shim::client::{Shim, ShimError, Watch};
use crate::shim::protocol::{CONTAINER_FILE, CONTAINERS, ContainerSpec, ContainerStatus};

/// Most that is read of what a container wrote as its last words.
const LAST_WORDS: u64 = 4096;
/// How much of the end of a log is looked at for last words.
const LOG_TAIL: u64 = 64 << 10;

/// Wait between the end of a watch and the next connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of a shim after it was asked.
pub(crate) enum Found {
    Alive(Vec<ContainerStatus>, Watch),
    /// Nobody listens at its socket.
    Dead,
    /// It may well live, but it could not be asked.
    Silent,
}

/// Connects to a shim; whatever does not prove it dead is tried again.
pub(crate) async fn find(shim: &Shim, attempts: usize) -> Found {
    for attempt in 0..attempts {
        match shim.watch().await {
            Ok((records, watch)) => return Found::Alive(records, watch),
            Err(ShimError::Dead(_)) => return Found::Dead,
            Err(error) => tracing::warn!(%error, ?shim, "a pod's shim cannot be followed yet"),
        }
        tokio::time::sleep(Duration::from_millis(100 << attempt.min(6))).await;
    }
    Found::Silent
}

/// Forwards exits until the shim is dead, which is told too, or the worker ends. A broken watch is made anew; what
/// happened in between is in the new one's state. After `expected` the shim is to die and that is no news.
pub(crate) async fn follow(
    directory: &Path,
    pod: &Pod,
    mut watch: Option<Watch>,
    sender: &mpsc::Sender<Message>,
    expected: &CancellationToken,
) {
    let shim = Shim::at(directory);
    loop {
        let exits = match &mut watch {
            Some(current) => match current.next().await {
                Ok(exit) => vec![exit],
                Err(error) => {
                    tracing::debug!(%error, ?shim, "the watch of a shim broke");
                    watch = None;
                    // One that ends may still take a connection; and a watch that breaks at once must not make us spin.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            None => {
                let found = tokio::select! {
                    biased;
                    () = expected.cancelled() => return,
                    found = find(&shim, usize::MAX) => found,
                };
                match found {
                    Found::Alive(records, new) => {
                        watch = Some(new);
                        records.into_iter().filter_map(|record| Some((record.spec.id, record.exit?))).collect()
                    }
                    Found::Dead => {
                        let _ = sender.send(Message::Event(Event::SandboxLost)).await;
                        return;
                    }
                    Found::Silent => continue,
                }
            }
        };
        for (id, mut exit) in exits {
            exit.message = exit.message.take().or_else(|| last_words(directory, pod, &id, exit.code));
            if sender.send(Message::Event(Event::Exited { id, exit })).await.is_err() {
                return;
            }
        }
    }
}

/// What the container left as its last words.
fn last_words(directory: &Path, pod: &Pod, id: &str, code: i32) -> Option<String> {
    let container = directory.join(CONTAINERS).join(id);
    let text = read_head(&container.join("termination-log"), LAST_WORDS).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if !text.is_empty() {
        return Some(text);
    }
    let spec: ContainerSpec = serde_json::from_slice(&fs::read(container.join(CONTAINER_FILE)).ok()?).ok()?;
    let all = definitions(pod);
    let policy = all.get(spec.name.as_str())?.termination_message_policy.as_deref();
    if code == 0 || policy != Some("FallbackToLogsOnError") {
        return None;
    }
    let log = String::from_utf8_lossy(&read_tail(&spec.log, LOG_TAIL).ok()?).into_owned();
    let lines: Vec<&str> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let tail = lines[lines.len().saturating_sub(80)..].join("\n");
    let from = tail.ceil_char_boundary(tail.len().saturating_sub(2048));
    Some(tail[from..].to_owned()).filter(|text| !text.is_empty())
}

/// The beginning of a file.
fn read_head(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The end of a file, without the line that it would begin in the middle of.
fn read_tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(most);
    // One byte earlier: if that ends a line, the next one is whole.
    file.seek(SeekFrom::Start(from.saturating_sub(1)))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if from > 0 {
        let cut = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..cut);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_read_as_far_as_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(read_head(&path, 5).unwrap(), b"one\nt");
        for (most, expected) in
            [(99, "one\ntwo\nthree\n"), (14, "one\ntwo\nthree\n"), (10, "two\nthree\n"), (9, "three\n")]
        {
            assert_eq!(String::from_utf8(read_tail(&path, most).unwrap()).unwrap(), expected, "{most}");
        }
        assert_eq!(read_tail(&path, 3).unwrap(), b"");
    }
}
