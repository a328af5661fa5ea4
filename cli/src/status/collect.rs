//! Asking: every master about itself, one of them about the cluster, every node's agent about its machine. All at once,
//! each for a limited time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::{StreamExt, TryFutureExt, future};
use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;
use serde_json::Value;
use trireme_apiserver::join::wire::{DiskInfo, MasterStatus, STATUS_PATH};
use trireme_client::masters::{self, MastersConfig, MastersError};

use super::report::Memory;

/// Agents that are asked at one time.
const AGENTS: usize = 32;

/// What one master said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where it was asked.
    pub url: String,
    /// About itself.
    pub status: Result<MasterStatus, String>,
    /// Whether it is ready to serve, a quorum included.
    pub ready: Result<(), String>,
}

/// What one node's agent said.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// Its disk.
    pub disk: Option<DiskInfo>,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Seconds until its certificate runs out, and how long it is valid in all.
    pub certificate: Option<(i64, i64)>,
}

/// What the API knows.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Their heartbeats.
    pub leases: Vec<Lease>,
    /// Pods of all namespaces.
    pub pods: Vec<Pod>,
    /// Deployments of all namespaces.
    pub deployments: Vec<Deployment>,
    /// Events of all namespaces.
    pub events: Vec<Event>,
}

/// Clients of all masters.
pub struct Collector {
    access: MastersConfig,
    timeout: Duration,
    clients: HashMap<String, kube::Client>,
    /// Turns to whichever master answers.
    pub any: kube::Client,
}

impl Collector {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// When the access cannot be used.
    pub fn new(access: MastersConfig, timeout: Duration) -> anyhow::Result<Collector> {
        let mut shared = access.clone();
        shared.timing.dial = timeout.min(Duration::from_secs(1));
        shared.timing.patience = Duration::ZERO;
        let any = masters::connect(shared)?.0;
        Ok(Collector { access, timeout, clients: HashMap::new(), any })
    }

    /// Asks all masters that are known, then those that they know.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub async fn masters(&mut self) -> anyhow::Result<Vec<Answer>> {
        let known = self.access.urls.clone();
        let mut answers = self.ask(&known).await?;
        let mut more: Vec<String> = Vec::new();
        for member in answers.iter().filter_map(|answer| answer.status.as_ref().ok()).flat_map(|status| &status.members)
        {
            let url = member.address.trim_end_matches('/');
            if !known.iter().any(|k| k.trim_end_matches('/') == url) && !more.iter().any(|m| m == url) {
                more.push(url.to_owned());
            }
        }
        if !more.is_empty() {
            answers.extend(self.ask(&more).await?);
        }
        // The same master under two names answers twice.
        let mut seen = Vec::new();
        answers.retain(|answer| match &answer.status {
            Ok(status) if seen.contains(&status.id) => false,
            Ok(status) => {
                seen.push(status.id);
                true
            }
            Err(_) => true,
        });
        Ok(answers)
    }

    async fn ask(&mut self, urls: &[String]) -> anyhow::Result<Vec<Answer>> {
        for url in urls {
            if !self.clients.contains_key(url) {
                let mut config = MastersConfig { urls: vec![url.clone()], ..self.access.clone() };
                config.timing.dial = self.timeout;
                config.timing.patience = Duration::ZERO;
                self.clients.insert(url.clone(), masters::connect(config)?.0);
            }
        }
        let asking = urls.iter().filter_map(|url| Some(self.one(url, self.clients.get(url)?)));
        Ok(future::join_all(asking).await)
    }

    async fn one(&self, url: &str, client: &kube::Client) -> Answer {
        let status = self.get::<MasterStatus>(client, STATUS_PATH);
        let ready = async {
            let text = self.text(client, "/readyz").await?;
            if text.trim() == "ok" { Ok(()) } else { Err(text) }
        };
        let (status, ready) = tokio::join!(status, ready);
        Answer { url: url.to_owned(), status, ready: ready.map_err(|text| readiness(&text)) }
    }

    async fn text(&self, client: &kube::Client, path: &str) -> Result<String, String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(self.timeout, client.request_text(request)).await;
        asked.map_err(|_| format!("no answer within {} s", self.timeout.as_secs_f32()))?.map_err(|error| reason(&error))
    }

    async fn get<T: DeserializeOwned>(&self, client: &kube::Client, path: &str) -> Result<T, String> {
        let text = self.text(client, path).await?;
        serde_json::from_str(&text).map_err(|error| format!("its answer is not understood: {error}"))
    }

    /// Lists what the status is about. `stale` asks for what a master knows by itself.
    pub async fn facts(&self, stale: bool) -> Result<Facts, String> {
        let client = &self.any;
        let lists = future::try_join5(
            self.list::<Node>(client, stale),
            self.list::<Lease>(client, stale),
            self.list::<Pod>(client, stale),
            self.list::<Deployment>(client, stale),
            self.list::<Event>(client, stale),
        );
        let (nodes, leases, pods, deployments, events) = lists.await?;
        Ok(Facts { nodes, leases, pods, deployments, events })
    }

    async fn list<K>(&self, client: &kube::Client, stale: bool) -> Result<Vec<K>, String>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let parameters = if stale { ListParams::default().match_any() } else { ListParams::default() };
        let api = Api::<K>::all(client.clone());
        // A list may be long.
        let limit = self.timeout * 3;
        let listed = tokio::time::timeout(limit, api.list(&parameters)).await;
        let listed = listed.map_err(|_| "no answer in time".to_owned()).and_then(|list| list.map_err(|e| reason(&e)));
        listed.map(|list| list.items).map_err(|why| format!("{} cannot be listed: {why}", K::plural(&())))
    }

    /// Asks the agents of these nodes.
    pub async fn agents(&self, names: Vec<String>) -> BTreeMap<String, Result<Agent, String>> {
        let asking = futures::stream::iter(names).map(|name| async move {
            let agent = self.agent(&name).await;
            (name, agent)
        });
        asking.buffer_unordered(AGENTS).collect().await
    }

    async fn agent(&self, name: &str) -> Result<Agent, String> {
        let base = format!("/api/v1/nodes/{name}/proxy");
        let (summary, metrics) = (format!("{base}/stats/summary"), format!("{base}/metrics"));
        let summary = self.get::<Value>(&self.any, &summary);
        let (summary, metrics) = future::try_join(summary, self.text(&self.any, &metrics)).map_err(shorter).await?;
        Ok(read_agent(&summary, &metrics))
    }
}

fn read_agent(summary: &Value, metrics: &str) -> Agent {
    let node = &summary["node"];
    let disk = || {
        let (total, available) = (node["fs"]["capacityBytes"].as_u64()?, node["fs"]["availableBytes"].as_u64()?);
        Some(DiskInfo { total_bytes: total, available_bytes: available })
    };
    let memory = || {
        let (used, available) =
            (node["memory"]["workingSetBytes"].as_u64()?, node["memory"]["availableBytes"].as_u64()?);
        Some(Memory { total_bytes: used + available, available_bytes: available })
    };
    let metric = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok()).map(|value| value as i64)
    };
    let left = metric("kubelet_certificate_manager_server_ttl_seconds");
    let life = metric("trireme_certificate_lifetime_seconds").unwrap_or(365 * 86_400);
    Agent { disk: disk(), memory: memory(), certificate: left.map(|left| (left, life)) }
}

/// Why a request failed, in few words.
fn reason(error: &kube::Error) -> String {
    if let Some(cause) = MastersError::of(error) {
        return match cause {
            MastersError::Unreachable(failures) => failures
                .first()
                .map_or_else(|| "cannot be reached".to_owned(), |failure| shorter(failure.reason.clone())),
            other => other.to_string(),
        };
    }
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            "it does not tell about itself; is it an older version?".to_owned()
        }
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Without the addresses, which stand beside it, and without the system's error numbers.
fn shorter(text: String) -> String {
    let mut text = text;
    if let Some((_, rest)) = text.split_once("error trying to reach service: ") {
        text = rest.to_owned();
    }
    if let Some(rest) = text.strip_prefix("dial tcp ") {
        text = rest.split_once(": ").map_or(rest, |(_, why)| why).to_owned();
    }
    let text = text.split(" (os error").next().unwrap_or_default().trim();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The checks of `/readyz` that failed.
fn readiness(text: &str) -> String {
    let failed: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("[-]")).collect();
    // One check under upstream's name says the same as ours.
    let failed: Vec<&str> = failed.into_iter().filter(|line| !line.starts_with("etcd ")).collect();
    if failed.is_empty() { shorter(text.lines().next().unwrap_or_default().to_owned()) } else { failed.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn agents_are_read() {
        let summary = json!({"node": {"fs": {"capacityBytes": 100, "availableBytes": 40},
                                      "memory": {"workingSetBytes": 30, "availableBytes": 70}}});
        let metrics = "# TYPE x gauge\nkubelet_certificate_manager_server_ttl_seconds 31535999\n";
        let agent = read_agent(&summary, metrics);
        assert_eq!(agent.disk, Some(DiskInfo { total_bytes: 100, available_bytes: 40 }));
        assert_eq!(agent.memory, Some(Memory { total_bytes: 100, available_bytes: 70 }));
        assert_eq!(agent.certificate, Some((31_535_999, 365 * 86_400)));
        assert!(read_agent(&json!({}), "").disk.is_none());
    }

    #[test]
    fn reasons_are_short() {
        assert_eq!(shorter("dial tcp 10.0.0.1:6443: Connection refused (os error 111)".into()), "connection refused");
        assert_eq!(
            shorter("error trying to reach service: dial tcp 10.0.0.5:10250: Connection refused (os error 111)".into()),
            "connection refused"
        );
        let text = "[+]ping ok\n[-]etcd failed: no quorum\n[-]quorum failed: no quorum\nreadyz check failed\n";
        assert_eq!(readiness(text), "quorum failed: no quorum");
        assert_eq!(readiness("no answer within 2 s"), "no answer within 2 s");
    }
}
