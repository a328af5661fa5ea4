//! The set of masters: who is preferred, who failed, and the race to a connection.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use rand::seq::SliceRandom;
use rustls::ClientConfig;

use super::connection::{Dialer, Shared};
use super::{Address, DialFailure, MasterHealth, MastersConfig, MastersError, Timing};

/// A connection with the master that it leads to.
#[derive(Clone)]
pub(crate) struct Route {
    pub address: Arc<Address>,
    pub connection: Shared,
}

type Dialing = SharedFuture<BoxFuture<'static, Result<Route, Arc<Vec<DialFailure>>>>>;

struct Member {
    address: Arc<Address>,
    connection: Option<Shared>,
    failure: Option<(Instant, String)>,
    /// Only one of the URLs that the client started from: tried after all others.
    fallback: bool,
}

impl Member {
    fn new(address: Arc<Address>, fallback: bool) -> Member {
        Member { address, connection: None, failure: None, fallback }
    }
}

struct State {
    members: Vec<Member>,
    /// URL of the master that requests go to.
    preferred: Option<String>,
    /// The race that is on, so that a hundred requests dial once.
    dialing: Option<Dialing>,
    /// Goes up with every change of the TLS settings: what was dialed before is not kept.
    generation: u64,
}

pub(crate) struct Pool {
    state: Mutex<State>,
    seeds: Vec<Arc<Address>>,
    pub dialer: Dialer,
    timing: Timing,
}

impl Pool {
    pub fn new(config: &MastersConfig, tls: ClientConfig) -> Result<Pool, MastersError> {
        let mut seeds = parse_all(&config.urls, config.plain_allowed)?;
        if config.shuffle {
            seeds.shuffle(&mut rand::rng());
        }
        let members = seeds.iter().map(|address| Member::new(address.clone(), false)).collect();
        Ok(Pool {
            state: Mutex::new(State { members, preferred: None, dialing: None, generation: 0 }),
            seeds,
            dialer: Dialer::new(tls, config.server_name.clone(), config.timing.clone()),
            timing: config.timing.clone(),
        })
    }

    /// Uses other TLS settings from now on: open connections are given up, requests in flight on them still end well.
    pub fn replace_tls(&self, tls: ClientConfig) {
        let mut state = self.state.lock();
        self.dialer.replace(tls);
        state.generation += 1;
        state.members.iter_mut().for_each(|member| member.connection = None);
        state.dialing = None;
    }

    pub fn set(&self, urls: &[String]) -> Result<(), MastersError> {
        let wanted = parse_all(urls, false)?;
        let mut state = self.state.lock();
        let mut old = std::mem::take(&mut state.members);
        let mut keep = |address: &Arc<Address>, fallback: bool| match old.iter().position(|m| m.address == *address) {
            Some(index) => Member { fallback, ..old.swap_remove(index) },
            None => Member::new(address.clone(), fallback),
        };
        // The order that is in use stays: agents that shuffled must not all turn to the first of the list.
        let mut members: Vec<Member> = wanted.iter().map(|address| keep(address, false)).collect();
        for seed in &self.seeds {
            if !members.iter().any(|member| member.address == *seed) {
                members.push(keep(seed, true));
            }
        }
        state.members = members;
        Ok(())
    }

    pub fn urls(&self) -> Vec<String> {
        let state = self.state.lock();
        state.members.iter().filter(|member| !member.fallback).map(|member| member.address.url.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.state.lock().members.len()
    }

    pub fn health(&self) -> Vec<MasterHealth> {
        let state = self.state.lock();
        let health = |member: &Member| MasterHealth {
            url: member.address.url.clone(),
            preferred: state.preferred.as_deref() == Some(&member.address.url),
            connected: member.connection.as_ref().is_some_and(|connection| !connection.is_closed()),
            failure: member.failure.clone(),
        };
        state.members.iter().map(health).collect()
    }

    /// Masters in the order in which to try them: the preferred one, those without a recent failure, those
    /// that failed longest ago, and last the URLs that the cluster no longer lists.
    pub fn order(&self) -> Vec<Arc<Address>> {
        let state = self.state.lock();
        let mut indices: Vec<usize> = (0..state.members.len()).collect();
        indices.sort_by_key(|index| {
            let member = &state.members[*index];
            let preferred = state.preferred.as_deref() == Some(&member.address.url);
            (!preferred, member.fallback, member.failure.as_ref().map(|(at, _)| *at))
        });
        indices.into_iter().map(|index| state.members[index].address.clone()).collect()
    }

    /// A connection to the preferred master, or to whichever answers first.
    pub async fn route(self: &Arc<Self>) -> Result<Route, Arc<Vec<DialFailure>>> {
        let dialing = {
            let mut state = self.state.lock();
            if let Some(route) = open_route(&state) {
                return Ok(route);
            }
            match &state.dialing {
                Some(dialing) => dialing.clone(),
                None => {
                    let (pool, generation) = (self.clone(), state.generation);
                    let dialing = async move { pool.race(generation).await }.boxed().shared();
                    state.dialing = Some(dialing.clone());
                    dialing
                }
            }
        };
        let result = dialing.clone().await;
        let mut state = self.state.lock();
        if state.dialing.as_ref().is_some_and(|current| current.ptr_eq(&dialing)) {
            state.dialing = None;
        }
        result
    }

    /// Dials masters in order, starting the next one whenever one fails or is silent for too long.
    async fn race(self: Arc<Self>, generation: u64) -> Result<Route, Arc<Vec<DialFailure>>> {
        let mut waiting = self.order().into_iter();
        let mut running = FuturesUnordered::new();
        let mut failures = Vec::new();
        let dial = |address: Arc<Address>| {
            let pool = self.clone();
            async move {
                let connection = pool.dialer.shared(&address).await;
                (address, connection)
            }
        };
        if let Some(address) = waiting.next() {
            running.push(dial(address));
        }
        loop {
            let stagger = tokio::time::sleep(self.timing.stagger);
            tokio::select! {
                finished = running.next() => match finished {
                    Some((address, Ok(connection))) => {
                        self.succeeded(&address, connection.clone(), generation);
                        return Ok(Route { address, connection });
                    }
                    Some((address, Err(failure))) => {
                        self.failed_in(&address, &failure.reason, Some(generation));
                        failures.push(failure);
                        if let Some(address) = waiting.next() {
                            running.push(dial(address));
                        }
                    }
                    None => return Err(Arc::new(failures)),
                },
                () = stagger, if waiting.len() > 0 => {
                    if let Some(address) = waiting.next() {
                        running.push(dial(address));
                    }
                }
            }
        }
    }

    fn succeeded(&self, address: &Address, connection: Shared, generation: u64) {
        let mut state = self.state.lock();
        if state.generation != generation {
            return;
        }
        if state.preferred.as_deref() != Some(&address.url) {
            tracing::debug!(master = %address.url, "requests go to this master from now on");
        }
        state.preferred = Some(address.url.clone());
        if let Some(member) = state.members.iter_mut().find(|member| member.address.url == address.url) {
            member.connection = Some(connection);
            member.failure = None;
        }
    }

    /// Notes a failure: the master loses the preference and its connection, and is tried last.
    pub fn failed(&self, address: &Address, reason: &str) {
        self.failed_in(address, reason, None);
    }

    /// As [`Pool::failed`], unless what failed was begun before the TLS settings changed.
    fn failed_in(&self, address: &Address, reason: &str, generation: Option<u64>) {
        tracing::debug!(master = %address.url, reason, "master failed");
        let mut state = self.state.lock();
        if generation.is_some_and(|generation| generation != state.generation) {
            return;
        }
        if state.preferred.as_deref() == Some(&address.url) {
            state.preferred = None;
        }
        if let Some(member) = state.members.iter_mut().find(|member| member.address.url == address.url) {
            member.connection = None;
            member.failure = Some((Instant::now(), reason.to_owned()));
        }
    }

    /// Notes that a single-use connection worked.
    pub fn reached(&self, address: &Address) {
        let mut state = self.state.lock();
        if let Some(member) = state.members.iter_mut().find(|member| member.address.url == address.url) {
            member.failure = None;
        }
    }
}

/// The preferred master's connection, if it is still a member and open.
fn open_route(state: &State) -> Option<Route> {
    let preferred = state.preferred.as_deref()?;
    let member = state.members.iter().find(|member| member.address.url == preferred)?;
    let connection = member.connection.as_ref().filter(|connection| !connection.is_closed())?;
    Some(Route { address: member.address.clone(), connection: connection.clone() })
}

fn parse_all(urls: &[String], plain_allowed: bool) -> Result<Vec<Arc<Address>>, MastersError> {
    let mut addresses: Vec<Arc<Address>> = Vec::with_capacity(urls.len());
    for url in urls {
        let address = Address::parse(url)?;
        if address.plain && !plain_allowed {
            let reason = "plain HTTP is not supported, use https".to_owned();
            return Err(MastersError::Url { url: url.clone(), reason });
        }
        if !addresses.iter().any(|known| known.url == address.url) {
            addresses.push(Arc::new(address));
        }
    }
    if addresses.is_empty() { Err(MastersError::NoMasters) } else { Ok(addresses) }
}
