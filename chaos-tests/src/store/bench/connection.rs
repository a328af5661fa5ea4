//! A connection to a member of either side, with the same few calls.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trireme_raftstore::port::{Client, WatchStream};
use trireme_raftstore::{Consistency, KeyRange, Op, PeerTls, RangeRequest, Role, Txn, WatchRequest};

use super::group::Side;
use super::grpc::{self, Answers, Channel};
use super::messages as etcd;

/// How to speak TLS to either.
#[derive(Clone)]
pub struct Tls {
    /// To our store.
    pub ours: Arc<PeerTls>,
    /// To etcd.
    pub etcd: Arc<ClientConfig>,
}

/// A connection; cloning shares it.
#[derive(Clone)]
pub enum Connection {
    /// To our store.
    Ours(Client),
    /// To etcd.
    Etcd(Channel<Full<Bytes>>),
}

/// Who leads, as a member sees it.
#[derive(Debug)]
pub struct Seen {
    /// The leader's id; 0 if none is known.
    pub leader: u64,
    /// Whether that is the member itself.
    pub leads: bool,
    /// Whether every member has a vote.
    pub voters: bool,
    /// Raft's term.
    pub term: u64,
}

fn ours(put: (Bytes, Bytes)) -> Op {
    Op::Put { key: put.0, value: put.1, expires_at_ms: None }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn new(side: Side, address: &str, tls: &Tls) -> Result<Self> {
        Ok(match side {
            Side::Ours => Self::Ours(Client::connect(address, &tls.ours).await?),
            Side::Etcd => Self::Etcd(Channel::connect(address, tls.etcd.clone()).await?),
        })
    }

    /// Writes a key.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<()> {
        match self {
            Self::Ours(client) => {
                client.txn(Txn { then: vec![ours((key, value))], ..Txn::default() }).await?;
            }
            Self::Etcd(channel) => {
                let _: etcd::PutResponse = channel.unary(&grpc::PUT, &etcd::PutRequest { key, value }).await?;
            }
        }
        Ok(())
    }

    /// Writes many keys in one transaction.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub async fn put_many(&self, puts: Vec<(Bytes, Bytes)>) -> Result<()> {
        match self {
            Self::Ours(client) => {
                client.txn(Txn { then: puts.into_iter().map(ours).collect(), ..Txn::default() }).await?;
            }
            Self::Etcd(channel) => {
                let operation = |(key, value)| etcd::RequestOp {
                    request: Some(etcd::Operation::Put(etcd::PutRequest { key, value })),
                };
                let request = etcd::TxnRequest { success: puts.into_iter().map(operation).collect() };
                let _: etcd::TxnResponse = channel.unary(&grpc::TXN, &request).await?;
            }
        }
        Ok(())
    }

    /// Reads a key that must be there.
    ///
    /// # Errors
    /// When it is not, or there is no answer.
    pub async fn get(&self, key: Bytes, linearizable: bool) -> Result<()> {
        let found = match self {
            Self::Ours(client) => {
                let consistency = if linearizable { Consistency::Linearizable } else { Consistency::Local };
                let range = KeyRange::Key(key);
                let request = RangeRequest { range, revision: None, limit: 0, consistency, keys_only: false };
                client.range(request).await?.kvs.len()
            }
            Self::Etcd(channel) => {
                let request = etcd::RangeRequest { key, serializable: !linearizable };
                let answer: etcd::RangeResponse = channel.unary(&grpc::RANGE, &request).await?;
                answer.kvs.len()
            }
        };
        ensure!(found == 1, "{found} answers to a read of one key");
        Ok(())
    }

    /// Who leads.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn leader(&self) -> Result<Seen> {
        match self {
            Self::Ours(client) => {
                let status = client.status().await?;
                let voters = status.members.len() == super::group::SIZE;
                let voters = voters && status.members.iter().all(|m| m.role != Role::Learner);
                let leader = status.leader.unwrap_or(0);
                Ok(Seen { leader, leads: leader == status.id, voters, term: status.term })
            }
            Self::Etcd(channel) => {
                let status: etcd::StatusResponse = channel.unary(&grpc::STATUS, &etcd::StatusRequest {}).await?;
                let own = status.header.context("no header")?.member_id;
                Ok(Seen { leader: status.leader, leads: status.leader == own, voters: true, term: status.raft_term })
            }
        }
    }
}

type Stream = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Watches of one prefix.
pub enum Watches {
    /// Of our store: a stream each.
    Ours(Vec<WatchStream>),
    /// Of etcd: many on one stream, as its own client does it. Dropping the sender ends the stream.
    Etcd(Answers, mpsc::Sender<Bytes>),
}

impl Watches {
    /// Opens some on one new connection; returns when all have begun.
    ///
    /// # Errors
    /// When one does not begin.
    pub async fn open(side: Side, address: &str, tls: &Tls, prefix: &str, count: usize) -> Result<Self> {
        match side {
            Side::Ours => {
                let client = Client::connect(address, &tls.ours).await?;
                let mut watches = Vec::new();
                for _ in 0..count {
                    let range = KeyRange::Prefix(prefix.to_owned().into());
                    watches.push(client.watch_bare(WatchRequest { range, start_revision: None }).await?);
                }
                Ok(Self::Ours(watches))
            }
            Side::Etcd => {
                let channel: Channel<Stream> = Channel::connect(address, tls.etcd.clone()).await?;
                let (requests, queue) = mpsc::channel(16);
                let body = StreamBody::new(ReceiverStream::new(queue).map(|message| Ok(Frame::data(message))));
                let mut end = prefix.as_bytes().to_vec();
                *end.last_mut().context("an empty prefix")? += 1;
                let create = etcd::WatchCreate { key: prefix.to_owned().into(), range_end: end.into() };
                let create = grpc::frame(&etcd::WatchRequest { create: Some(create) });
                // The answer begins with the first message.
                requests.send(create.clone()).await?;
                let mut answers = Answers::new(channel.send(&grpc::WATCH, body.boxed_unsync()).await?);
                for i in 0..count {
                    if i > 0 {
                        requests.send(create.clone()).await?;
                    }
                    let begun: etcd::WatchResponse = answers.next().await?.context("the watch ended")?;
                    ensure!(begun.created && !begun.canceled, "a watch did not begin");
                }
                Ok(Self::Etcd(answers, requests))
            }
        }
    }

    /// Tells how many events come, as they come; runs until the watches end.
    pub async fn count(self, mut seen: impl FnMut(usize)) -> Result<()> {
        match self {
            Self::Ours(watches) => {
                let streams = watches.into_iter().map(|watch| {
                    futures::stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) })
                        .boxed()
                });
                let mut all = futures::stream::select_all(streams);
                while let Some(batch) = all.next().await {
                    seen(batch?.events.len());
                }
                bail!("the watches ended")
            }
            Self::Etcd(mut answers, _open) => loop {
                let answer: etcd::WatchResponse = answers.next().await?.context("the watch ended")?;
                ensure!(!answer.canceled, "a watch was ended");
                seen(answer.events.len());
            },
        }
    }
}
