//! Frames: eight bytes of head, then data or one of the control messages.

use bytes::{BufMut, BytesMut};

use super::headers::{Compressor, Headers};

/// Longest control frame that is read.
pub(super) const MAX_CONTROL: usize = 64 << 10;
/// Most bytes of data in one frame that is sent.
pub(super) const MAX_DATA: usize = 32 << 10;
/// Flag of the last frame on a stream.
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const VERSION: u16 = 3;
const ID: u32 = 0x7fff_ffff;
/// The setting that gives new streams' windows.
pub(super) const INITIAL_WINDOW_SIZE: u32 = 7;

/// Status of a reset.
pub(super) mod reset {
    pub(in super::super) const PROTOCOL_ERROR: u32 = 1;
    pub(in super::super) const REFUSED_STREAM: u32 = 3;
    pub(in super::super) const CANCEL: u32 = 5;
    pub(in super::super) const FLOW_CONTROL_ERROR: u32 = 7;
}

/// A frame's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { version: u16, kind: u16, flags: u8, length: usize },
}

impl Head {
    pub(super) fn parse(bytes: [u8; 8]) -> Head {
        let [a, b, c, d, flags, e, f, g] = bytes;
        let length = usize::from(e) << 16 | usize::from(f) << 8 | usize::from(g);
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Head::Data { stream, fin: flags & FIN != 0, length };
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        Head::Control { version, kind: u16::from_be_bytes([c, d]), flags, length }
    }
}

/// A control frame.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Control {
    Open {
        stream: u32,
        fin: bool,
        one_way: bool,
        block: Vec<u8>,
    },
    Reply {
        stream: u32,
        fin: bool,
        block: Vec<u8>,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    /// Identifiers and values.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway,
    Headers {
        stream: u32,
        fin: bool,
        block: Vec<u8>,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Of a kind that this version does not define: to be ignored.
    Unknown,
}

/// A frame that breaks the rules; the session ends with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("version {0} of SPDY is not spoken here")]
    Version(u16),
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("a control frame of kind {0} is malformed")]
    Body(u16),
}

impl Control {
    /// Whether a head announces a control frame that is worth reading.
    pub(super) fn check(version: u16, length: usize) -> Result<(), Malformed> {
        match () {
            () if version != VERSION => Err(Malformed::Version(version)),
            () if length > MAX_CONTROL => Err(Malformed::TooLong(length)),
            () => Ok(()),
        }
    }

    pub(super) fn parse(kind: u16, flags: u8, body: &[u8]) -> Result<Control, Malformed> {
        let fin = flags & FIN != 0;
        let number = |at: usize| -> Result<u32, Malformed> {
            let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or(Malformed::Body(kind))
        };
        let stream = || number(0).map(|id| id & ID);
        let block = |from: usize| body.get(from..).map(<[u8]>::to_vec).ok_or(Malformed::Body(kind));
        Ok(match kind {
            1 => Control::Open { stream: stream()?, fin, one_way: flags & UNIDIRECTIONAL != 0, block: block(10)? },
            2 => Control::Reply { stream: stream()?, fin, block: block(4)? },
            3 => Control::Reset { stream: stream()?, status: number(4)? },
            4 => {
                let count = number(0)? as usize;
                if body.len() != 4 + count.saturating_mul(8) {
                    return Err(Malformed::Body(kind));
                }
                let entry = |index: usize| Ok((number(4 + index * 8)? & 0x00ff_ffff, number(8 + index * 8)?));
                Control::Settings((0..count).map(entry).collect::<Result<_, _>>()?)
            }
            6 => Control::Ping(number(0)?),
            7 => {
                number(4)?;
                Control::GoAway
            }
            8 => Control::Headers { stream: stream()?, fin, block: block(4)? },
            9 => Control::WindowUpdate { stream: stream()?, delta: number(4)? & ID },
            _ => Control::Unknown,
        })
    }
}

/// A frame to be sent.
#[derive(Debug)]
pub(super) enum Outgoing {
    Reply {
        stream: u32,
    },
    Data {
        stream: u32,
        fin: bool,
        bytes: bytes::Bytes,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping(u32),
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// The last one: no new streams are taken.
    GoAway {
        last: u32,
        status: u32,
    },
}

impl Outgoing {
    /// Appends the frame.
    pub(super) fn encode(&self, compressor: &mut Compressor, out: &mut BytesMut) {
        match self {
            Outgoing::Reply { stream } => {
                let block = compressor.write(&Headers::new());
                control(out, 2, 0, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(&block);
            }
            Outgoing::Data { stream, fin, bytes } => {
                out.put_u32(*stream);
                out.put_u32(u32::from(u8::from(*fin)) << 24 | u32::try_from(bytes.len()).unwrap_or_default());
                out.put_slice(bytes);
            }
            Outgoing::Reset { stream, status } => pair(out, 3, *stream, *status),
            Outgoing::Ping(id) => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Outgoing::WindowUpdate { stream, delta } => pair(out, 9, *stream, *delta),
            Outgoing::GoAway { last, status } => pair(out, 7, *last, *status),
        }
    }
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

/// Head of a control frame.
pub(super) fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(frame: &Outgoing) -> Result<Control, Malformed> {
        let mut out = BytesMut::new();
        frame.encode(&mut Compressor::new(), &mut out);
        let Head::Control { version, kind, flags, length } = Head::parse(out[..8].try_into().unwrap()) else {
            panic!("data")
        };
        assert_eq!(length, out.len() - 8);
        Control::check(version, length)?;
        Control::parse(kind, flags, &out[8..])
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        assert_eq!(parsed(&Outgoing::Ping(7)), Ok(Control::Ping(7)));
        let reset = Outgoing::Reset { stream: 5, status: reset::CANCEL };
        assert_eq!(parsed(&reset), Ok(Control::Reset { stream: 5, status: 5 }));
        let update = Outgoing::WindowUpdate { stream: 3, delta: 9 };
        assert_eq!(parsed(&update), Ok(Control::WindowUpdate { stream: 3, delta: 9 }));
        assert_eq!(parsed(&Outgoing::GoAway { last: 3, status: 0 }), Ok(Control::GoAway));
        assert!(matches!(parsed(&Outgoing::Reply { stream: 3 }), Ok(Control::Reply { stream: 3, fin: false, .. })));
        let mut out = BytesMut::new();
        let data = Outgoing::Data { stream: 9, fin: true, bytes: "abc".into() };
        data.encode(&mut Compressor::new(), &mut out);
        let head = Head::parse(out[..8].try_into().unwrap());
        assert_eq!(head, Head::Data { stream: 9, fin: true, length: 3 });
        assert_eq!(&out[8..], b"abc");
    }

    #[test]
    fn wrong_frames_are_refused() {
        assert_eq!(Control::check(2, 4), Err(Malformed::Version(2)));
        assert_eq!(Control::check(3, MAX_CONTROL + 1), Err(Malformed::TooLong(MAX_CONTROL + 1)));
        for (kind, body) in [(1, 9), (2, 3), (3, 7), (4, 3), (6, 3), (7, 4), (8, 2), (9, 5)] {
            assert_eq!(Control::parse(kind, 0, &vec![0; body]), Err(Malformed::Body(kind)), "{kind}");
        }
        let settings = |count: u32, entries: usize| {
            Control::parse(4, 0, &[count.to_be_bytes().to_vec(), vec![0; entries * 8]].concat())
        };
        assert_eq!(settings(u32::MAX, 1), Err(Malformed::Body(4)));
        assert_eq!(settings(1, 2), Err(Malformed::Body(4)));
        assert_eq!(settings(1, 1), Ok(Control::Settings(vec![(0, 0)])));
        assert_eq!(Control::parse(77, 0, &[]), Ok(Control::Unknown));
    }
}
