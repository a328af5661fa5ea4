//! Frames in a buffer: length, id, kind, body.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MAX_FRAME, kind};
use crate::codec;
use crate::types::WatchBatch;

/// Bytes before a body: the length (of what follows it), the id and the kind.
const HEAD: usize = 4 + 8 + 1;

/// A frame that was received.
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) kind: u8,
    pub(super) body: Bytes,
}

/// Takes the next frame, if all of it is there.
pub(super) fn take(input: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(size) = input.first_chunk::<4>() else { return Ok(None) };
    let size = u32::from_be_bytes(*size) as usize;
    if !(HEAD - 4..=MAX_FRAME).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {size} bytes")));
    }
    if input.len() < 4 + size {
        input.reserve(4 + size - input.len());
        return Ok(None);
    }
    let mut frame = input.split_to(4 + size).freeze();
    frame.advance(4);
    Ok(Some(Frame { id: frame.get_u64(), kind: frame.get_u8(), body: frame }))
}

impl Frame {
    /// The message in it.
    pub(super) fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        let (message, used) = codec::take(&self.body)?;
        match used == self.body.len() {
            true => Ok(message),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "trailing bytes")),
        }
    }

    /// The events in it.
    pub(super) fn events(&self) -> io::Result<WatchBatch> {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "truncated events");
        let mut rest = &self.body[..];
        let revision = rest.try_get_u64().map_err(|_| short())?;
        let count = rest.try_get_u32().map_err(|_| short())?;
        let mut events = Vec::with_capacity(count.min(4096) as usize);
        for _ in 0..count {
            let (event, used) = codec::take(rest)?;
            rest = &rest[used..];
            events.push(event);
        }
        if rest.is_empty() { Ok(WatchBatch { revision, events }) } else { Err(short()) }
    }
}

/// Appends a frame whose body is what `write` appends.
fn put(output: &mut Vec<u8>, id: u64, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = output.len();
    output.put_u32(0);
    output.put_u64(id);
    output.put_u8(kind);
    write(output);
    let size = (output.len() - begin - 4) as u32;
    output[begin..begin + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a message.
pub(super) fn put_message(output: &mut Vec<u8>, id: u64, message: &impl Serialize) {
    put(output, id, kind::MESSAGE, |output| codec::append(output, message));
}

/// Appends a batch of events that are encoded already.
pub(super) fn put_events(output: &mut Vec<u8>, id: u64, revision: u64, events: &[Bytes]) {
    put(output, id, kind::EVENTS, |output| {
        output.put_u64(revision);
        output.put_u32(events.len() as u32);
        events.iter().for_each(|event| output.put_slice(event));
    });
}

/// Appends the word that the server goes away.
pub(super) fn put_going(output: &mut Vec<u8>) {
    put(output, 0, kind::GOING, |_| {});
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_come_back_whole_and_only_whole() {
        let mut output = Vec::new();
        put_message(&mut output, 7, &("text".to_owned(), 5u32));
        put_events(&mut output, 8, 99, &[Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        put_going(&mut output);
        let all = output;
        for cut in 0..all.len() {
            let mut input = BytesMut::from(&all[..cut]);
            let mut found = Vec::new();
            while let Some(frame) = take(&mut input).unwrap() {
                found.push(frame.id);
            }
            input.extend_from_slice(&all[cut..]);
            while let Some(frame) = take(&mut input).unwrap() {
                found.push(frame.id);
                match frame.id {
                    7 => assert_eq!(codec::take::<(String, u32)>(&frame.body).unwrap().0, ("text".to_owned(), 5)),
                    8 => assert_eq!(&frame.body[..], b"\0\0\0\0\0\0\0\x63\0\0\0\x02abc"),
                    _ => assert_eq!((frame.kind, frame.body.len()), (kind::GOING, 0)),
                }
            }
            assert_eq!(found, [7, 8, 0]);
        }
        for size in [0u32, 8, u32::MAX] {
            assert!(take(&mut BytesMut::from(&size.to_be_bytes()[..])).is_err());
        }
    }
}
