//! What must hold whatever died: every acknowledged write is there, revisions rise with time, watches told of every
//! change, no pod was bound twice, and no leader's write was committed after the next reign had begun.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api, ListParams};

use super::audit::Audit;
use super::ledger::{Ledger, out_of_order};
use super::load::Everything;
use super::observe::moved;
use super::{LABEL, NAMESPACE, Round};
use crate::clients::{self, PATIENCE};
use crate::cluster::Cluster;

/// At most this many findings of a kind are told.
const TOLD: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What was checked, in lines for people.
    pub told: Vec<String>,
    /// What does not hold.
    pub broken: Vec<String>,
}

impl Verdict {
    fn check(&mut self, what: &str, found: Vec<String>) {
        let count = found.len();
        self.told.push(format!("{:<4} {what}", if count == 0 { "ok" } else { "BAD" }));
        self.broken.extend(found.into_iter().take(TOLD));
        if count > TOLD {
            self.broken.push(format!("… and {} more of: {what}", count - TOLD));
        }
    }
}

/// Reads everything through every master that lives, and compares it with what was acknowledged before the read.
pub async fn nothing_lost(cluster: &Cluster, ledger: &Ledger, dead: Option<usize>) -> Result<()> {
    for master in (1..=cluster.masters()).filter(|master| Some(*master) != dead) {
        let lost = lost(cluster, ledger, master).await?;
        ensure!(lost.is_empty(), "through master-{master}: {}", lost.join("; "));
    }
    Ok(())
}

async fn lost(cluster: &Cluster, ledger: &Ledger, master: usize) -> Result<Vec<String>> {
    let expected = ledger.expected();
    let api: Api<ConfigMap> = Api::namespaced(clients::of_master(cluster, master).await?, NAMESPACE);
    let params = ListParams::default().labels(LABEL);
    let list = tokio::time::timeout(PATIENCE * 4, api.list(&params)).await.context("no answer to a list")??;
    let mut found: HashMap<String, (u64, u64)> = HashMap::new();
    for item in list {
        let value = item.data.as_ref().and_then(|data| data.get("value")).and_then(|value| value.parse().ok());
        let revision = item.metadata.resource_version.as_deref().unwrap_or_default().parse()?;
        found.insert(item.metadata.name.unwrap_or_default(), (value.context("no value")?, revision));
    }
    // Meanwhile the writers went on: what they have sent since may be there, and what they deleted may not.
    let later = ledger.expected();
    let mut wrong = Vec::new();
    for (name, expected) in expected {
        let after = later.get(&name).cloned().unwrap_or_default();
        let allowed = super::ledger::Expected { sent: after.sent, deleting: after.deleting, ..expected };
        if let Some(what) = allowed.contradicts(found.get(&name).copied()) {
            wrong.push(format!("{name}: {what}"));
        }
    }
    Ok(wrong)
}

/// Judges a whole run, of these rounds, in which these processes ended though nobody had killed them.
pub async fn judge(cluster: &Cluster, seen: &Everything, rounds: &[Round], ended: &[String]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    verdict.check("no process ended but those that were killed", ended.to_vec());
    let acks = seen.ledger.acks();
    for master in 1..=cluster.masters() {
        let lost = lost(cluster, &seen.ledger, master).await?;
        let what = format!("{} acknowledged writes are there, as new as acknowledged, by master-{master}", acks.len());
        verdict.check(&what, lost);
    }
    verdict.check("what was written later has a greater resourceVersion", out_of_order(&acks));
    for (index, told) in seen.configs.iter().enumerate() {
        let missing = acks.iter().filter(|ack| match ack.value {
            Some(_) => !told.changes.contains(&(ack.name.clone(), ack.revision)),
            None => !told.deleted.contains(&ack.name),
        });
        let missing: Vec<String> = missing.map(|ack| format!("{} at revision {}", ack.name, ack.revision)).collect();
        verdict.check(&format!("the watch on master-{} told of each of them, in order", index + 1), missing);
    }
    for (index, pods) in seen.pods.iter().enumerate() {
        let count = pods.iter().map(|pod| &pod.uid).collect::<std::collections::BTreeSet<_>>().len();
        verdict.check(
            &format!("none of {count} pods changed its node, by the watch on master-{}", index + 1),
            moved(pods),
        );
    }
    verdict.check("no pod was told to be scheduled twice", scheduled_twice(cluster).await?);
    let mut audit = Audit::of(cluster);
    audit.read()?;
    let bindings = audit.bindings.values().map(Vec::len).sum::<usize>();
    verdict.check(
        &format!("{bindings} bindings were committed, none of them for a pod that had one"),
        audit.bound_twice(),
    );
    let (reigns, fenced) = (audit.fences.len(), audit.fenced.len());
    verdict.check(
        &format!("{fenced} writes of leaders in {reigns} reigns, none after the next reign had begun"),
        audit.after_their_fence(),
    );
    let silent = rounds.iter().filter(|round| round.recorded == Some(0));
    verdict.check(
        "deposed leaders that lived recorded what they did",
        silent.map(|round| format!("master-{} recorded nothing after its pause", round.deposed)).collect(),
    );
    verdict.check("no write of scheduler or controllers without a fence", audit.unfenced.clone());
    let enough = [reigns, fenced, bindings, acks.len()].iter().all(|count| *count > rounds.len());
    verdict.check("there was enough to judge", if enough { vec![] } else { vec!["too little happened".to_owned()] });
    let kills = rounds.iter().filter(|round| !round.paused()).count();
    let torn = (audit.broken > kills).then(|| format!("{} of {} lines cannot be read", audit.broken, audit.records));
    verdict.check("the audit logs are whole, but for the kills", torn.into_iter().collect());
    Ok(verdict)
}

async fn scheduled_twice(cluster: &Cluster) -> Result<Vec<String>> {
    let api: Api<Event> = Api::namespaced(clients::of_master(cluster, 1).await?, NAMESPACE);
    let events = api.list(&ListParams::default().fields("reason=Scheduled")).await?;
    let mut counts: BTreeMap<String, i32> = BTreeMap::new();
    for event in events {
        let pod = format!(
            "{} ({})",
            event.involved_object.name.unwrap_or_default(),
            event.involved_object.uid.unwrap_or_default()
        );
        *counts.entry(pod).or_default() += event.count.unwrap_or(1).max(1);
    }
    let twice = counts.iter().filter(|(_, count)| **count > 1);
    Ok(twice.map(|(pod, count)| format!("{pod}: {count} events")).collect())
}
