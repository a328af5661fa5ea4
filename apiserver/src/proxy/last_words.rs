//! What a client is told when the node's agent vanishes in the middle of a session.
//!
//! Clients over SPDY take a connection that just ends for success. So the frames that the agent sends are followed, by
//! their heads alone; if the connection ends between two of them and the agent had not said goodbye, a final status is
//! added in the agent's place.

use http::{HeaderMap, header};
use serde_json::json;

const MESSAGE: &str = "lost connection to the node's agent; the process in the container may still run";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Spdy,
    WebSocket,
    /// Nothing is added.
    Opaque,
}

/// Follows the frames of one session.
#[derive(Debug)]
pub(crate) struct LastWords {
    framing: Framing,
    /// Older protocols have a text instead of a status.
    plain: bool,
    /// The beginning of a head.
    head: Vec<u8>,
    /// Bytes of the frame that are still to come.
    left: u64,
    said_goodbye: bool,
}

impl LastWords {
    /// For a session of `exec` or `attach`, from the agent's answer to the handshake.
    pub(crate) fn of(subresource: &str, answer: &HeaderMap) -> LastWords {
        let text = |name: &str| answer.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (spdy, socket) = (text("x-stream-protocol-version"), text(header::SEC_WEBSOCKET_PROTOCOL.as_str()));
        let json = |protocol: &str| matches!(protocol, "v4.channel.k8s.io" | "v5.channel.k8s.io");
        let framing = match () {
            () if !matches!(subresource, "exec" | "attach") => Framing::Opaque,
            () if !spdy.is_empty() => Framing::Spdy,
            () if json(socket) => Framing::WebSocket,
            () => Framing::Opaque,
        };
        LastWords { framing, plain: !json(spdy) && !json(socket), head: Vec::new(), left: 0, said_goodbye: false }
    }

    /// For a connection whose bytes are not known; nothing is added.
    pub(crate) fn none() -> LastWords {
        LastWords { framing: Framing::Opaque, plain: false, head: Vec::new(), left: 0, said_goodbye: false }
    }

    /// Takes note of bytes that the agent has sent.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        if self.framing == Framing::Opaque {
            return;
        }
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.head.push(*first);
            if let Some((length, goodbye)) = self.whole_head() {
                self.left = length;
                self.said_goodbye |= goodbye;
                self.head.clear();
            }
        }
    }

    /// The length that a head announces, and whether the frame is the agent's last.
    fn whole_head(&self) -> Option<(u64, bool)> {
        let head = &self.head[..];
        if self.framing == Framing::Spdy {
            let [a, b, c, d, _, e, f, g] = *head else { return None };
            let length = u64::from(u32::from_be_bytes([0, e, f, g]));
            return Some((length, a & 0x80 != 0 && [b, c, d] == [3, 0, 7]));
        }
        let (first, second) = (*head.first()?, *head.get(1)?);
        let length = match (second & 0x7f, &head[2..]) {
            (126, [a, b]) => u64::from(u16::from_be_bytes([*a, *b])),
            (127, [a, b, c, d, e, f, g, h]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            (126 | 127, _) => return None,
            (length, _) => u64::from(length),
        };
        Some((length, first & 0x0f == 8))
    }

    /// What to add now that the connection has ended.
    pub(crate) fn last(&self) -> Option<Vec<u8>> {
        if self.framing == Framing::Opaque || self.said_goodbye || self.left > 0 || !self.head.is_empty() {
            return None;
        }
        let message = format!("Internal error occurred: {MESSAGE}");
        let text = match self.plain {
            true => message,
            false => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": message,
                "details": {"causes": [{"message": MESSAGE}]},
            })
            .to_string(),
        };
        let length = u16::try_from(text.len() + 1).ok()?.to_be_bytes();
        let mut out = Vec::new();
        if self.framing == Framing::Spdy {
            let length = u32::try_from(text.len()).ok()?.to_be_bytes();
            // Every client opens the stream for errors first. The flag ends it.
            out.extend_from_slice(&[0, 0, 0, 1, 1, length[1], length[2], length[3]]);
            out.extend_from_slice(text.as_bytes());
        } else {
            // A binary message for channel 3, then a normal end.
            out.extend_from_slice(&[0x82, 126, length[0], length[1], 3]);
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(&[0x88, 2, 0x03, 0xe8]);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn session(subresource: &str, name: &'static str, protocol: &'static str) -> LastWords {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(protocol));
        LastWords::of(subresource, &headers)
    }

    fn spdy() -> LastWords {
        session("exec", "x-stream-protocol-version", "v4.channel.k8s.io")
    }

    fn socket() -> LastWords {
        session("attach", "sec-websocket-protocol", "v5.channel.k8s.io")
    }

    #[test]
    fn an_agent_that_vanishes_between_frames_is_spoken_for() {
        let mut words = spdy();
        let frame = [&[0, 0, 0, 3, 0, 0, 0, 5][..], b"hello"].concat();
        for byte in frame.iter().chain(&frame) {
            words.follow(&[*byte]);
        }
        let last = words.last().unwrap();
        assert_eq!(last[..5], [0, 0, 0, 1, 1]);
        let status: serde_json::Value = serde_json::from_slice(&last[8..]).unwrap();
        assert_eq!(status["status"], "Failure");
        let mut words = socket();
        words.follow(&[0x82, 2, 1, b'x']);
        words.follow(&[&[0x82, 126, 1, 0][..], &[1; 256]].concat());
        words.follow(&[&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[1; 65_536]].concat());
        let last = words.last().unwrap();
        assert_eq!((last[0], last[1], last[4]), (0x82, 126, 3));
        let length = usize::from(u16::from_be_bytes([last[2], last[3]]));
        assert_eq!(last[4 + length..], [0x88, 2, 0x03, 0xe8]);
        let old = session("exec", "x-stream-protocol-version", "channel.k8s.io").last().unwrap();
        assert!(old[8..].starts_with(b"Internal error occurred: lost connection"));
    }

    #[test]
    fn nothing_is_added_after_a_goodbye_within_a_frame_or_to_what_is_not_known() {
        let mut words = spdy();
        words.follow(&[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(words.last(), None);
        let mut words = spdy();
        words.follow(&[0, 0, 0, 3, 0, 0, 0, 5, b'h']);
        assert_eq!(words.last(), None);
        words.follow(b"ello\0");
        assert_eq!(words.last(), None, "a head that is not whole");
        let mut words = socket();
        words.follow(&[0x88, 2, 0x03, 0xe8]);
        assert_eq!(words.last(), None);
        assert_eq!(session("portforward", "x-stream-protocol-version", "portforward.k8s.io").last(), None);
        assert_eq!(session("exec", "sec-websocket-protocol", "base64.channel.k8s.io").last(), None);
    }
}
