//! A session, whatever its protocol: bytes both ways until the process has ended or the client is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Job;
use super::ends::{self, Ends, Size};
use crate::runtime::terminal;
use crate::server::streams::Stream;
use crate::shim::client::{Process, ShimError};

/// After a process has ended, output that its children still hold open is waited for no longer than this.
const DRAIN: Duration = Duration::from_millis(500);
/// A client that has a terminal says how large it is at once; others are not waited for any longer.
const FIRST_SIZE: Duration = Duration::from_millis(200);
/// After a client has gone, the process may take what it has sent for so long.
const GRACE: Duration = Duration::from_secs(10);
/// A process that reads none of its input for so long, and says nothing, has a client that may be gone: nobody would see it
/// behind what it has sent.
const STUCK: Duration = Duration::from_secs(30 * 60);
/// When a session ends with its input, so long output is still waited for: `run -it` in a script shows what a short
/// command says.
const LINGER: Duration = Duration::from_secs(1);
const CHUNK: usize = 32 << 10;
/// Input is written in pieces of this size; each that is taken is a sign of life.
const PIECE: usize = 4 << 10;

/// What the client sends to the process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Data(Bytes),
    End,
}

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Out,
    Err,
}

/// Where output and the final status go.
pub(super) trait Output: Send {
    /// Sends output; false if the client is gone.
    fn send(&mut self, channel: Channel, bytes: &[u8]) -> impl Future<Output = bool> + Send;
    /// Sends the status and ends the session.
    fn finish(self, status: &Status) -> impl Future<Output = ()> + Send;
}

/// A client. Its input ends without [`Input::End`] when the client is gone.
pub(super) struct Client<O> {
    pub(super) input: mpsc::Receiver<Input>,
    pub(super) sizes: mpsc::Receiver<Size>,
    pub(super) output: O,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum Status {
    Exited(i32),
    Failed(String),
}

impl Status {
    /// As protocols from version 4 on have it.
    pub(super) fn json(&self) -> Value {
        match self {
            Status::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Status::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": self.text(),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Status::Failed(message) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": self.text(),
                "details": {"causes": [{"message": message}]},
            }),
        }
    }

    /// As older ones have it; empty for success.
    pub(super) fn text(&self) -> String {
        match self {
            Status::Exited(0) => String::new(),
            Status::Exited(code) => format!("command terminated with non-zero exit code: exit code {code}"),
            Status::Failed(message) => format!("Internal error occurred: {message}"),
        }
    }
}

/// Runs the whole session. Once the client is `gone`, the process may take what was sent for a while; one that does not read
/// would keep the session for ever.
pub(super) async fn run<O: Output>(job: Job, client: Client<O>, gone: CancellationToken) {
    until_gone(serve(job, client), gone, GRACE).await;
}

async fn until_gone(session: impl Future<Output = ()>, gone: CancellationToken, grace: Duration) {
    tokio::pin!(session);
    tokio::select! {
        () = &mut session => return,
        () = gone.cancelled() => {}
    }
    let _ = tokio::time::timeout(grace, session).await;
}

async fn serve<O: Output>(job: Job, mut client: Client<O>) {
    let mut early = None;
    let started = match job.attach {
        Some(attached) => {
            let started = ends::attach(&job, attached).await;
            started.map_err(|error| format!("error attaching to container: {error}"))
        }
        None => {
            let size = match job.options.tty {
                true => first_size(&mut client, &mut early).await,
                false => (0, 0),
            };
            let started = ends::exec(&job, size).await;
            started
                .map_err(|error| format!("error executing command in container: failed to exec in container: {error}"))
        }
    };
    let ends = match started {
        Ok(ends) => ends,
        Err(message) => return client.output.finish(&Status::Failed(message)).await,
    };
    // Upstream's runtimes end such a session with its input, so that `attach -i` in a pipe ends at all.
    let ends_with_input = job.attach.is_some_and(|attached| !attached.once);
    let Ends { stdin, stdout, stderr, terminal, mut process } = ends;
    let Client { input, sizes, mut output } = client;
    let status = {
        let resize = resize(sizes, terminal);
        let moved = AtomicBool::new(false);
        let feed = feed(early, input, stdin, ends_with_input, &moved);
        let wanted = [job.options.stdout, job.options.stderr];
        let output = Noted { output: &mut output, moved: &moved };
        let copy = copy(output, wanted, [stdout.as_ref(), stderr.as_ref()], process.as_mut());
        tokio::select! {
            status = copy => status,
            ended = async {
                let gone = feed.await;
                if !gone {
                    tokio::time::sleep(LINGER).await;
                }
                (!gone).then_some(Status::Exited(0))
            } => ended,
            () = resize => None,
        }
    };
    if let Some(status) = status {
        output.finish(&status).await;
    }
}

/// The terminal's size, which clients send first; what comes in its place is kept.
async fn first_size<O>(client: &mut Client<O>, early: &mut Option<Input>) -> Size {
    tokio::select! {
        biased;
        size = client.sizes.recv() => size.unwrap_or((0, 0)),
        input = client.input.recv() => {
            *early = input;
            client.sizes.try_recv().unwrap_or((0, 0))
        }
        () = tokio::time::sleep(FIRST_SIZE) => (0, 0),
    }
}

/// Never ends.
async fn resize(mut sizes: mpsc::Receiver<Size>, terminal: Option<std::os::fd::OwnedFd>) {
    while let Some((columns, rows)) = sizes.recv().await {
        if let Some(terminal) = &terminal {
            // One that is gone does not mind.
            let _ = terminal::resize(terminal, terminal::Size { columns, rows });
        }
    }
    std::future::pending().await
}

/// Passes input on. Ends with true when the client is gone, with false when its input ended and the session with it.
async fn feed(
    mut early: Option<Input>,
    mut input: mpsc::Receiver<Input>,
    mut stdin: Option<Stream>,
    ends_with_input: bool,
    moved: &AtomicBool,
) -> bool {
    loop {
        let next = match early.take() {
            Some(first) => Some(first),
            None => input.recv().await,
        };
        match next {
            None => return true,
            Some(Input::Data(data)) => {
                if let Some(to) = &stdin {
                    match write(to, &data, moved, STUCK).await {
                        Written::All => {}
                        // Nobody reads any more; output goes on.
                        Written::Closed => stdin = None,
                        Written::Stuck => return true,
                    }
                }
            }
            Some(Input::End) if ends_with_input && stdin.is_some() => return false,
            Some(Input::End) => stdin = None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Written {
    All,
    Closed,
    Stuck,
}

/// Writes input, unless for a long time neither any of it is taken nor output has `moved`.
async fn write(to: &Stream, data: &[u8], moved: &AtomicBool, limit: Duration) -> Written {
    for piece in data.chunks(PIECE) {
        let writing = to.write_all(piece);
        tokio::pin!(writing);
        loop {
            match tokio::time::timeout(limit, &mut writing).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return Written::Closed,
                Err(_) if moved.swap(false, Ordering::Relaxed) => {}
                Err(_) => return Written::Stuck,
            }
        }
    }
    Written::All
}

/// An output that notes when something was sent.
struct Noted<'a, O> {
    output: &'a mut O,
    moved: &'a AtomicBool,
}

impl<O: Output> Noted<'_, O> {
    async fn send(&mut self, channel: Channel, bytes: &[u8]) -> bool {
        let sent = self.output.send(channel, bytes).await;
        self.moved.store(true, Ordering::Relaxed);
        sent
    }
}

/// Sends output until all of it is sent; returns how the process ended. `None` if the client is gone.
async fn copy<O: Output>(
    mut output: Noted<'_, O>,
    wanted: [bool; 2],
    from: [Option<&Stream>; 2],
    mut process: Option<&mut Process>,
) -> Option<Status> {
    let attached = process.is_none();
    let mut open = from.map(|stream| stream.is_some());
    let mut status = attached.then_some(Status::Exited(0));
    let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        if status.is_some() && open == [false, false] {
            return status;
        }
        let sent = tokio::select! {
            biased;
            length = read(from[0], &mut out), if open[0] => match length {
                0 => { open[0] = false; continue }
                length => !wanted[0] || output.send(Channel::Out, &out[..length]).await,
            },
            length = read(from[1], &mut err), if open[1] => match length {
                0 => { open[1] = false; continue }
                length => !wanted[1] || output.send(Channel::Err, &err[..length]).await,
            },
            ended = wait(&mut process), if status.is_none() => {
                status = Some(match ended {
                    Ok(code) => Status::Exited(code),
                    Err(error) => Status::Failed(error.to_string()),
                });
                continue;
            }
            () = tokio::time::sleep(DRAIN), if status.is_some() && !attached => return status,
        };
        if !sent {
            return None;
        }
    }
}

async fn read(stream: Option<&Stream>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

async fn wait(process: &mut Option<&mut Process>) -> Result<i32, ShimError> {
    match process {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn statuses_read_as_clients_know_them() {
        assert_eq!(Status::Exited(0).json()["status"], "Success");
        assert_eq!(Status::Exited(0).text(), "");
        let failed = Status::Exited(7).json();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        assert_eq!(Status::Failed("why".into()).json()["message"], "Internal error occurred: why");
    }

    #[tokio::test]
    async fn a_session_whose_client_is_gone_ends() {
        let gone = CancellationToken::new();
        let blocked = until_gone(std::future::pending(), gone.clone(), Duration::from_millis(10));
        gone.cancel();
        tokio::time::timeout(Duration::from_secs(5), blocked).await.unwrap();
    }

    #[tokio::test]
    async fn input_that_nobody_takes_ends_the_session_unless_there_is_output() {
        let (kept, full) = nix::unistd::pipe().unwrap();
        let full = Stream::new(full).unwrap();
        let data = vec![0; 1 << 20];
        let (start, limit) = (std::time::Instant::now(), Duration::from_millis(50));
        let moved = AtomicBool::new(true);
        assert_eq!(write(&full, &data, &moved, limit).await, Written::Stuck);
        assert!(start.elapsed() >= 2 * limit, "output was a sign of life");
        drop(kept);
        assert_eq!(write(&full, &data, &moved, limit).await, Written::Closed);
    }

    #[tokio::test]
    async fn the_first_size_is_waited_for_but_not_in_vain() {
        let (input_sender, input) = mpsc::channel(4);
        let (size_sender, sizes) = mpsc::channel(4);
        let mut client = Client { input, sizes, output: () };
        let mut early = None;
        size_sender.send((80, 24)).await.unwrap();
        assert_eq!(first_size(&mut client, &mut early).await, (80, 24));
        input_sender.send(Input::Data("x".into())).await.unwrap();
        assert_eq!(first_size(&mut client, &mut early).await, (0, 0));
        assert_eq!(early, Some(Input::Data("x".into())));
        assert_eq!(first_size(&mut client, &mut early).await, (0, 0), "a client that sends nothing");
    }
}
