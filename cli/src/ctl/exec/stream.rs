//! A session: local input to the container, its output back, both at the same time.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::session::Session;
use super::protocol::{self, Frame, Outcome};
use super::socket;
use super::terminal::{Raw, Resizes};

const CHUNK: usize = 32 * 1024;

/// The local side.
pub struct Local<I, O, E> {
    /// Goes to the process, until its end.
    pub input: Option<I>,
    /// Gets standard output.
    pub out: O,
    /// Gets standard error.
    pub err: E,
    /// Whether standard input is a terminal that is handed over.
    pub terminal: bool,
}

/// Runs a session until the process has ended.
pub async fn run<I, O, E>(session: &Session, call: &Call, local: Local<I, O, E>) -> Result<Outcome>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let (socket, closes) = socket::open(session, call, socket::V5).await?;
    let (mut sink, mut stream) = socket.split();
    let Local { mut input, mut out, mut err, terminal } = local;
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let mut resizes = Resizes::new(terminal)?;
    let sending = async {
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let message = tokio::select! {
                read = read(&mut input, &mut buffer), if input.is_some() => match read? {
                    0 => {
                        input = None;
                        if !closes {
                            continue;
                        }
                        protocol::close_stdin()
                    }
                    count => protocol::stdin(&buffer[..count]),
                },
                size = resizes.next() => protocol::resize(size),
            };
            if sink.send(Message::Binary(message.into())).await.is_err() {
                // What became of the session, the other direction tells.
                return std::future::pending::<Result<Outcome>>().await;
            }
        }
    };
    let receiving = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => match protocol::read(&bytes) {
                    Frame::Out(data) => {
                        out.write_all(data).await?;
                        out.flush().await?;
                    }
                    Frame::Err(data) => {
                        err.write_all(data).await?;
                        err.flush().await?;
                    }
                    Frame::Done(outcome) => return Ok::<_, CtlError>(outcome),
                    Frame::Other => {}
                },
                Some(Ok(Message::Close(_))) | None => return Ok(Outcome::Lost),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "session");
                    return Ok(Outcome::Lost);
                }
            }
        }
    };
    let outcome = tokio::select! {
        outcome = receiving => outcome,
        failed = sending => failed,
    };
    drop(raw);
    let _ = sink.close().await;
    outcome
}

async fn read<I: AsyncRead + Unpin>(input: &mut Option<I>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match input {
        Some(input) => input.read(buffer).await,
        None => std::future::pending().await,
    }
}
