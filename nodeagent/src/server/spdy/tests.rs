//! Sessions against a hand-driven peer.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::frame::{Control, Head, Outgoing, control};
use super::headers::{Compressor, Decompressor, Headers};
use super::session::Session;
use super::shared::MAX_STREAMS;

/// A client that writes and reads frames.
pub(in crate::server) struct Peer {
    io: DuplexStream,
    compressor: Compressor,
    decompressor: Decompressor,
}

#[derive(Debug, PartialEq)]
pub(in crate::server) enum Seen {
    Data(u32, bool, Bytes),
    Control(Control),
    Reply(u32),
    End,
}

pub(in crate::server) fn pair() -> (Session, Peer) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let peer = Peer { io: theirs, compressor: Compressor::new(), decompressor: Decompressor::new() };
    (Session::start(ours), peer)
}

impl Peer {
    pub(in crate::server) async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let headers: Headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let block = self.compressor.write(&headers);
        let mut out = BytesMut::new();
        control(&mut out, 1, 0, 10 + block.len());
        out.put_u32(id);
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&block);
        self.raw(&out).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    async fn send(&mut self, frame: Outgoing) {
        let mut out = BytesMut::new();
        frame.encode(&mut self.compressor, &mut out);
        self.raw(&out).await;
    }

    pub(in crate::server) async fn data(&mut self, stream: u32, fin: bool, bytes: &'static [u8]) {
        self.send(Outgoing::Data { stream, fin, bytes: Bytes::from_static(bytes) }).await;
    }

    pub(in crate::server) async fn reset(&mut self, stream: u32) {
        self.send(Outgoing::Reset { stream, status: 5 }).await;
    }

    /// Returns once the session has seen everything before it.
    pub(in crate::server) async fn ping(&mut self) {
        self.send(Outgoing::Ping(1)).await;
        while self.next().await != Seen::Control(Control::Ping(1)) {}
    }

    /// The next frame that is not a grant.
    pub(in crate::server) async fn next(&mut self) -> Seen {
        loop {
            let seen = tokio::time::timeout(Duration::from_secs(5), self.any()).await.unwrap();
            if !matches!(seen, Seen::Control(Control::WindowUpdate { .. })) {
                return seen;
            }
        }
    }

    async fn any(&mut self) -> Seen {
        let mut head = [0; 8];
        if self.io.read_exact(&mut head).await.is_err() {
            return Seen::End;
        }
        match Head::parse(head) {
            Head::Data { stream, fin, length } => {
                let mut body = vec![0; length];
                self.io.read_exact(&mut body).await.unwrap();
                Seen::Data(stream, fin, body.into())
            }
            Head::Control { version, kind, flags, length } => {
                Control::check(version, length).unwrap();
                let mut body = vec![0; length];
                self.io.read_exact(&mut body).await.unwrap();
                match Control::parse(kind, flags, &body).unwrap() {
                    Control::Reply { stream, block, .. } => {
                        assert!(self.decompressor.read(&block).unwrap().is_empty());
                        Seen::Reply(stream)
                    }
                    other => Seen::Control(other),
                }
            }
        }
    }
}

#[tokio::test]
async fn streams_carry_data_both_ways_and_end() {
    let (mut session, mut peer) = pair();
    peer.open(1, &[("streamtype", "stdin")]).await;
    let stream = session.accept().await.unwrap();
    assert_eq!(stream.headers.get("streamtype").map(String::as_str), Some("stdin"));
    let (mut reader, mut writer) = stream.accept().await.unwrap();
    assert_eq!(peer.next().await, Seen::Reply(1));
    peer.data(1, false, b"hello").await;
    peer.data(1, true, b" you").await;
    let mut got = Vec::new();
    while let Some(chunk) = reader.read().await {
        got.extend_from_slice(&chunk);
    }
    assert_eq!(got, b"hello you");
    writer.write("out".into()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(peer.next().await, Seen::Data(1, false, "out".into()));
    assert_eq!(peer.next().await, Seen::Data(1, true, Bytes::new()));
    assert_eq!(session.open_streams(), 0);
    peer.send(Outgoing::Ping(3)).await;
    assert_eq!(peer.next().await, Seen::Control(Control::Ping(3)));
    let end = tokio::spawn(session.finish());
    assert_eq!(peer.next().await, Seen::Control(Control::GoAway));
    assert_eq!(peer.next().await, Seen::End);
    drop(peer);
    end.await.unwrap();
}

#[tokio::test]
async fn without_talk_of_windows_data_flows_freely_and_with_it_they_bind() {
    let (mut session, mut peer) = pair();
    peer.open(1, &[]).await;
    let (_reader, mut writer) = session.accept().await.unwrap().accept().await.unwrap();
    let big = Bytes::from(vec![7; 300 << 10]);
    writer.write(big).await.unwrap();
    assert_eq!(peer.next().await, Seen::Reply(1));
    let mut got = 0;
    while got < 300 << 10 {
        let Seen::Data(1, false, bytes) = peer.next().await else { panic!("not data") };
        got += bytes.len();
    }
    // The first grant leaves both windows below zero: they have to be filled up before anything more comes.
    peer.send(Outgoing::WindowUpdate { stream: 1, delta: 300 << 10 }).await;
    peer.send(Outgoing::Ping(1)).await;
    assert_eq!(peer.next().await, Seen::Control(Control::Ping(1)));
    let writing = tokio::spawn(async move {
        writer.write("more".into()).await.unwrap();
        writer
    });
    peer.send(Outgoing::Ping(3)).await;
    assert_eq!(peer.next().await, Seen::Control(Control::Ping(3)));
    assert!(!writing.is_finished());
    peer.send(Outgoing::WindowUpdate { stream: 0, delta: 300 << 10 }).await;
    assert_eq!(peer.next().await, Seen::Data(1, false, "more".into()));
    writing.await.unwrap();
}

#[tokio::test]
async fn what_is_read_is_granted_anew() {
    let (mut session, mut peer) = pair();
    peer.open(1, &[]).await;
    let (mut reader, _writer) = session.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(peer.next().await, Seen::Reply(1));
    peer.send(Outgoing::Data { stream: 1, fin: false, bytes: vec![1; 20 << 10].into() }).await;
    let mut got = 0;
    while got < 20 << 10 {
        got += reader.read().await.unwrap().len();
    }
    let mut granted = [0, 0];
    while granted.contains(&0) {
        let Seen::Control(Control::WindowUpdate { stream, delta }) = peer.any().await else { panic!("no grant") };
        granted[stream as usize] += delta;
    }
    assert!(granted[0] == granted[1] && granted[0] >= 16 << 10, "{granted:?}");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_the_peer_back() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut session = Session::start(ours);
    let mut peer = Peer { io: theirs, compressor: Compressor::new(), decompressor: Decompressor::new() };
    peer.open(1, &[]).await;
    let (mut reader, _writer) = session.accept().await.unwrap().accept().await.unwrap();
    let flood = tokio::spawn(async move {
        for _ in 0..64 {
            peer.send(Outgoing::Data { stream: 1, fin: false, bytes: vec![1; 16 << 10].into() }).await;
        }
        peer.data(1, true, b"").await;
        peer
    });
    let held = tokio::time::timeout(Duration::from_millis(300), async { flood.is_finished() }).await.unwrap();
    assert!(!held, "a megabyte went nowhere");
    let mut got = 0;
    while let Some(chunk) = reader.read().await {
        got += chunk.len();
    }
    assert_eq!(got, 1 << 20);
    flood.await.unwrap();
}

#[tokio::test]
async fn a_reset_ends_both_ends_of_a_stream() {
    let (mut session, mut peer) = pair();
    peer.open(1, &[]).await;
    let (mut reader, mut writer) = session.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(peer.next().await, Seen::Reply(1));
    peer.send(Outgoing::Reset { stream: 1, status: 5 }).await;
    assert_eq!(reader.read().await, None);
    writer.gone().cancelled().await;
    assert!(writer.write("x".into()).await.is_err());
    // Data on it is dropped, others go on.
    peer.data(1, false, b"late").await;
    peer.open(3, &[]).await;
    let (_, other) = session.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(peer.next().await, Seen::Reply(3));
    drop(other);
    assert_eq!(peer.next().await, Seen::Control(Control::Reset { stream: 3, status: 5 }));
    assert_eq!(session.open_streams(), 0);
}

#[tokio::test]
async fn refused_and_too_many_streams_are_reset() {
    let (mut session, mut peer) = pair();
    peer.open(1, &[]).await;
    session.accept().await.unwrap().refuse().await;
    assert_eq!(peer.next().await, Seen::Control(Control::Reset { stream: 1, status: 5 }));
    let mut kept = Vec::new();
    for index in 0..MAX_STREAMS {
        peer.open(3 + 2 * index as u32, &[]).await;
        kept.push(session.accept().await.unwrap());
    }
    let one_more = 3 + 2 * MAX_STREAMS as u32;
    peer.open(one_more, &[]).await;
    assert_eq!(peer.next().await, Seen::Control(Control::Reset { stream: one_more, status: 3 }));
}

#[tokio::test]
async fn broken_rules_end_the_session() {
    let head = |first: [u8; 4], length: usize| {
        let mut frame = first.to_vec();
        frame.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        frame
    };
    let cases = [
        head([0x80, 2, 0, 6], 4),
        head([0x80, 3, 0, 1], 0xff_ffff),
        head([0x80, 3, 0, 6], 0),
        [head([0x80, 3, 0, 1], 14), vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"junk".to_vec()].concat(),
        [head([0x80, 3, 0, 9], 8), vec![0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]].concat(),
    ];
    for frame in cases {
        let (mut session, mut peer) = pair();
        peer.raw(&frame).await;
        assert_eq!(peer.next().await, Seen::Control(Control::GoAway), "{frame:?}");
        assert_eq!(peer.next().await, Seen::End, "{frame:?}");
        assert!(session.accept().await.is_none());
    }
    for id in [2, 1] {
        let (mut session, mut peer) = pair();
        peer.open(1, &[]).await;
        let _kept = session.accept().await.unwrap();
        peer.open(id, &[]).await;
        assert_eq!(peer.next().await, Seen::Control(Control::GoAway), "stream {id}");
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_ends_everything() {
    let (mut session, mut peer) = pair();
    peer.open(1, &[]).await;
    let (mut reader, writer) = session.accept().await.unwrap().accept().await.unwrap();
    peer.data(1, false, b"half a fra").await;
    assert_eq!(reader.read().await.as_deref(), Some(&b"half a fra"[..]));
    peer.raw(&[0, 0, 0, 1, 0, 0]).await;
    drop(peer);
    assert_eq!(reader.read().await, None);
    writer.gone().cancelled().await;
    assert!(session.accept().await.is_none());
}
