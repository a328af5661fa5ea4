//! One local connection, carried to a port of the pod.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::exec::socket;
use super::super::session::Session;
use super::super::targets::Target;

const DATA: u8 = 0;
const ERROR: u8 = 1;
const CLOSE: u8 = 255;
const CHUNK: usize = 32 * 1024;

/// Carries bytes both ways until the pod's side ends.
pub async fn carry(session: &Session, pod: &Target, local: TcpStream, port: u16) -> Result<()> {
    let call = Call::get(format!("{}/portforward", pod.path())).query("ports", port);
    let (socket, closes) = socket::open(session, &call, socket::V5_PORTS).await?;
    let (mut sink, mut stream) = socket.split();
    let (mut read, mut write) = local.into_split();
    let upload = async {
        let mut buffer = vec![DATA; CHUNK + 1];
        loop {
            let (message, last) = match read.read(&mut buffer[1..]).await {
                Ok(0) => (vec![CLOSE, DATA], true),
                Ok(count) => (buffer[..=count].to_vec(), false),
                // The local program is gone for good.
                Err(_) => return,
            };
            // A server that knows no closing of channels cannot be told; it may still have something to say.
            let sent = last && !closes || sink.send(Message::Binary(message.into())).await.is_ok();
            if last || !sent {
                return std::future::pending().await;
            }
        }
    };
    let download = async {
        // Both channels begin with the port.
        let mut begun = [false, false];
        loop {
            let bytes = match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(CtlError::plain(error.to_string())),
            };
            let Some((channel @ (DATA | ERROR), data)) = bytes.split_first().map(|(c, data)| (*c, data)) else {
                continue;
            };
            if !std::mem::replace(&mut begun[usize::from(channel)], true) {
                continue;
            }
            if channel == ERROR {
                return Err(CtlError::plain(String::from_utf8_lossy(data).into_owned()));
            }
            if write.write_all(data).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        outcome = download => outcome,
        () = upload => Ok(()),
    }
}
