//! Following a log through the deaths of masters and agents.
//!
//! Lines are asked for with their times. When the connection breaks, the log is asked for again from the last line's time
//! on, and what was printed already is left out: nothing is lost and nothing comes twice.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use futures::AsyncBufReadExt;
use serde_json::Value;

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::pods;
use super::super::session::Session;
use super::{LogsArgs, Source, call};

/// For how long a broken log is asked for again.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

/// How far a log was printed.
#[derive(Debug, Default)]
struct Position {
    /// Time of the last line.
    time: Vec<u8>,
    /// Lines with that time.
    count: usize,
    /// What was printed before comes again; of the lines with that time, so many.
    again: Option<usize>,
}

impl Position {
    /// The connection begins anew.
    fn rewind(&mut self) {
        self.again = (self.count > 0).then_some(self.count);
    }

    /// Takes a line apart; `None` if it was printed before.
    fn take<'a>(&mut self, line: &'a [u8]) -> Option<&'a [u8]> {
        let end = line.iter().position(|byte| *byte == b' ');
        let Some((time, rest)) = end.map(|end| (&line[..end], &line[end + 1..])) else {
            // Not a line of a log with times: a message of the server, for example.
            return Some(line);
        };
        if let Some(again) = self.again {
            match instant(time).cmp(&instant(&self.time)) {
                Ordering::Less => return None,
                Ordering::Equal if again > 0 => {
                    self.again = Some(again - 1);
                    return None;
                }
                _ => self.again = None,
            }
        }
        if time == self.time {
            self.count += 1;
        } else {
            self.time = time.to_vec();
            self.count = 1;
        }
        Some(rest)
    }

    fn time(&self) -> Option<&str> {
        std::str::from_utf8(&self.time).ok().filter(|time| !time.is_empty())
    }
}

fn instant(time: &[u8]) -> Option<jiff::Timestamp> {
    std::str::from_utf8(time).ok()?.parse().ok()
}

/// Prints a log and what is added to it, until the container has ended.
pub async fn run(
    session: &Session,
    args: &LogsArgs,
    source: &Source,
    mut print: impl AsyncFnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    let begun = jiff::Timestamp::now();
    let run = incarnation(&pods::reload(session, &source.pod).await?, &source.container);
    // The times that are asked for besides must not count.
    let mut left = args.limit_bytes.filter(|bytes| *bytes > 0).map(|bytes| bytes as usize);
    let first = LogsArgs { timestamps: true, limit_bytes: None, ..args.clone() };
    let mut position = Position::default();
    let mut alive = Instant::now();
    let mut connected = false;
    loop {
        let request = match (position.time(), args.tail) {
            (Some(time), _) => resumed(&first, source, time)?,
            // What was written since the first request is new, however many lines that are.
            (None, Some(0)) if connected => resumed(&first, source, &begun.to_string())?,
            (None, _) => call(&first, &source.pod, &source.container)?,
        };
        match session.api.stream(&request).await {
            Ok(mut stream) => {
                connected = true;
                alive = Instant::now();
                position.rewind();
                let mut line = Vec::new();
                // A line that breaks off comes again as a whole.
                while matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) && line.ends_with(b"\n") {
                    alive = Instant::now();
                    if let Some(rest) = position.take(&line) {
                        let text = if args.timestamps { &line[..] } else { rest };
                        let text = &text[..left.map_or(text.len(), |left| left.min(text.len()))];
                        print(text.to_vec()).await?;
                        left = left.map(|left| left - text.len());
                        if left == Some(0) {
                            return Ok(());
                        }
                    }
                    line.clear();
                }
                let unfinished = (!line.is_empty()).then_some(line);
                let state = if args.previous { Some(false) } else { session_state(session, source, &run).await };
                if state == Some(false) {
                    // The container's last words may lack a line end.
                    let line = unfinished.unwrap_or_default();
                    if let Some(rest) = position.take(&line).filter(|rest| !rest.is_empty()) {
                        print(if args.timestamps { line.clone() } else { rest.to_vec() }).await?;
                    }
                    return Ok(());
                }
            }
            Err(error) if !connected && !passing(&error) => return Err(error),
            Err(error) if alive.elapsed() >= PATIENCE => return Err(error),
            // An agent that has just been started may not know the container yet.
            Err(error) if connected && !passing(&error) => {
                if session_state(session, source, &run).await == Some(false) {
                    return Ok(());
                }
            }
            Err(error) => tracing::debug!(?error, "a log broke off"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The request for what comes from a time on.
fn resumed(args: &LogsArgs, source: &Source, time: &str) -> Result<Call> {
    let args = LogsArgs { since: None, since_time: Some(time.to_owned()), tail: Some(-1), ..args.clone() };
    call(&args, &source.pod, &source.container)
}

/// Whether an error lies in a master or an agent that is away.
fn passing(error: &CtlError) -> bool {
    match error {
        CtlError::Transport(_) | CtlError::Io(_) => true,
        CtlError::Status(status) => {
            let message = status["message"].as_str().unwrap_or_default();
            matches!(status["code"].as_u64(), Some(429 | 502..=504)) || message.contains("error dialing backend")
        }
        _ => false,
    }
}

/// Which run of the container this is: its pod's uid and how often it was started.
type Incarnation = (Value, u64);

fn status<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"].into_iter();
    let mut all = lists.flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    all.find(|status| status["name"] == container)
}

fn incarnation(pod: &Value, container: &str) -> Incarnation {
    let restarts = status(pod, container).and_then(|status| status["restartCount"].as_u64());
    (pod["metadata"]["uid"].clone(), restarts.unwrap_or_default())
}

/// Whether the same run of the container goes on; `None` if nobody tells.
async fn session_state(session: &Session, source: &Source, run: &Incarnation) -> Option<bool> {
    match pods::reload(session, &source.pod).await {
        Ok(pod) => {
            let running = status(&pod, &source.container).is_some_and(|status| status["state"]["running"].is_object());
            Some(running && incarnation(&pod, &source.container) == *run)
        }
        Err(error) if error.is_not_found() => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(line: Option<&[u8]>) -> Option<String> {
        line.map(|line| String::from_utf8_lossy(line).into_owned())
    }

    #[test]
    fn after_a_break_nothing_is_lost_or_doubled() {
        let mut position = Position::default();
        let lines = [
            "2026-01-01T00:00:01.000000001Z a\n",
            "2026-01-01T00:00:01.000000002Z b\n",
            "2026-01-01T00:00:01.000000002Z c\n",
        ];
        for line in lines {
            assert!(position.take(line.as_bytes()).is_some());
        }
        assert_eq!(position.time(), Some("2026-01-01T00:00:01.000000002Z"));
        // The server may begin earlier than asked, at the full second.
        position.rewind();
        for line in lines {
            assert_eq!(text(position.take(line.as_bytes())), None, "{line}");
        }
        let same = b"2026-01-01T00:00:01.000000002Z d\n";
        assert_eq!(text(position.take(same)).as_deref(), Some("d\n"));
        assert_eq!(text(position.take(b"2026-01-01T00:00:02.5Z e f\n")).as_deref(), Some("e f\n"));
        position.rewind();
        assert_eq!(text(position.take(same)), None);
        assert_eq!(text(position.take(b"2026-01-01T00:00:02.5Z e f\n")), None);
        assert_eq!(text(position.take(b"2026-01-01T00:00:03Z g\n")).as_deref(), Some("g\n"));
        assert_eq!(text(position.take(b"nonsense")).as_deref(), Some("nonsense"));
    }

    #[test]
    fn another_run_of_a_container_is_not_the_same() {
        let pod = |restarts: u64| {
            json!({"metadata": {"uid": "u"}, "status": {"containerStatuses": [
                {"name": "c", "restartCount": restarts}]}})
        };
        assert_eq!(incarnation(&pod(1), "c"), incarnation(&pod(1), "c"));
        assert_ne!(incarnation(&pod(1), "c"), incarnation(&pod(2), "c"));
    }
}
