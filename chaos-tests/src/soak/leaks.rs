//! What a node's machine holds, against what its living pods need: processes, cgroups, network namespaces, links,
//! addresses, rules, mounts, folders.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::desired::{All, Living};
use crate::cluster::Cluster;
use crate::command::{eventually, run};
use crate::usage;

/// A node's machine before anything ran on it.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    data: PathBuf,
    mounts: BTreeSet<String>,
    folders: BTreeSet<String>,
    rules: usize,
}

impl Host {
    /// All nodes as they are now.
    pub fn all(cluster: &Cluster) -> Result<Vec<Host>> {
        let nodes = cluster.hosts().iter().filter(|host| host.starts_with("node-"));
        nodes
            .map(|name| {
                let data = cluster.root().join(name).join("data");
                let rules = settled_rules(cluster, name)?.lines().count();
                let (mounts, folders) = (mounts(&data), entries(&data));
                Ok(Host { name: name.clone(), data, mounts, folders, rules })
            })
            .collect()
    }

    /// What is there and not needed, or needed and not there.
    pub fn leaked(&self, cluster: &Cluster, all: &All) -> Result<Vec<String>> {
        let here: Vec<(&String, &Living)> = all.pods.iter().filter(|(_, pod)| pod.node == self.name).collect();
        let uids: BTreeSet<String> = here.iter().map(|(uid, _)| (*uid).clone()).collect();
        let addresses: BTreeSet<String> = here.iter().map(|(_, pod)| pod.ip.clone()).collect();
        let mut wrong = Vec::new();
        let mut compare = |what: &str, found: Vec<String>, needed: &BTreeSet<String>| {
            let mut left = needed.clone();
            for one in found {
                if !left.remove(&one) {
                    wrong.push(format!("{}: {what} {one} is of no living pod, or one too many", self.name));
                }
            }
            wrong.extend(left.iter().map(|one| format!("{}: {what} {one} is missing", self.name)));
        };
        compare("the shim of pod", self.shims(cluster), &uids);
        compare("the folder of pod", entries(&self.data.join("pods")).into_iter().collect(), &uids);
        let logs = entries(&self.data.join("logs"));
        let logs = logs.iter().map(|name| name.rsplit('_').next().unwrap_or_default().to_owned());
        compare("the logs of pod", logs.collect(), &uids);
        let records = entries(&self.data.join("network"));
        compare("the address", records.into_iter().filter(|name| name != "last").collect(), &addresses);
        let (workloads, strangers) = self.workloads(cluster);
        compare("the process of pod", workloads, &uids);
        compare("the process of the shim of pod", self.in_shims_cgroups(cluster), &uids);
        wrong.extend(strangers);
        for cgroup in self.cgroups(cluster) {
            let uid = cgroup.1;
            if !uids.contains(&uid) {
                wrong.push(format!("{}: the cgroup {} is of no living pod", self.name, cgroup.0.display()));
            }
        }
        let links = in_netns(cluster, &self.name, &["ip", "-o", "link"])?;
        let veths = links.lines().filter(|line| line.split(": ").nth(1).is_some_and(|name| name.starts_with("trv")));
        let veths = veths.count();
        if veths != here.len() {
            wrong.push(format!("{}: {veths} links for {} pods", self.name, here.len()));
        }
        let namespaces = self.namespaces(cluster).len();
        if namespaces != here.len() {
            wrong.push(format!("{}: {namespaces} network namespaces for {} pods", self.name, here.len()));
        }
        wrong.extend(self.rules_left(cluster, all)?);
        let needed = |path: &String| uids.iter().any(|uid| path.contains(uid.as_str()));
        let mounts = mounts(&self.data).into_iter().filter(|path| !self.mounts.contains(path) && !needed(path));
        wrong.extend(mounts.map(|path| format!("{}: the mount {path}", self.name)));
        let known = ["pods", "logs", "network", "images", "last", "lock"];
        let folders = entries(&self.data);
        let folders = folders.iter().filter(|name| !self.folders.contains(*name) && !known.contains(&name.as_str()));
        wrong.extend(folders.map(|name| format!("{}: {name} in the data directory", self.name)));
        let unfinished = entries(&self.data.join("images/tmp"));
        wrong.extend(unfinished.iter().map(|name| format!("{}: images/tmp/{name}", self.name)));
        Ok(wrong)
    }

    /// Uids of the pods whose shims run.
    fn shims(&self, cluster: &Cluster) -> Vec<String> {
        let pids = usage::running(&cluster.root().join("bin/trireme"), "shim");
        let folders = pids.iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok());
        let here = folders.filter(|folder| folder.starts_with(&self.data));
        here.filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned())).collect()
    }

    /// Cgroups of pods, with the pod's uid.
    fn cgroups(&self, cluster: &Cluster) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for top in cgroups(&format!("trireme/{}/{}", cluster.name, self.name)) {
            collect(&top, &mut found);
        }
        found
    }

    /// Uid of the pod for each process in a pod's cgroup, and those that are not what its container runs. Pods here have
    /// one container and no process beside it: their shims are in cgroups of their own.
    fn workloads(&self, cluster: &Cluster) -> (Vec<String>, Vec<String>) {
        let mut pids: BTreeSet<(i32, String)> = BTreeSet::new();
        for (folder, uid) in self.cgroups(cluster) {
            processes(&folder, &uid, &mut pids);
        }
        let command = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let strangers = pids.iter().filter_map(|(pid, uid)| {
            let words = command(*pid);
            let shown = String::from_utf8_lossy(&words).replace('\0', " ");
            (!words.starts_with(b"sleep\0")).then(|| format!("{}: pid {pid} ({shown}) in pod {uid}", self.name))
        });
        let strangers = strangers.collect();
        (pids.into_iter().map(|(_, uid)| uid).collect(), strangers)
    }

    /// Uid of the pod for each process in the cgroup of a pod's shim, and once for such a cgroup without any.
    fn in_shims_cgroups(&self, cluster: &Cluster) -> Vec<String> {
        let (mut pids, mut uids): (BTreeSet<(i32, String)>, BTreeSet<String>) = Default::default();
        for top in cgroups(&format!("trireme/{}/{}/shims", cluster.name, self.name)) {
            let folders = fs::read_dir(&top).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
            for folder in folders {
                let uid = folder.file_name().to_string_lossy().into_owned();
                processes(&folder.path(), &uid, &mut pids);
                uids.insert(uid);
            }
        }
        let mut found: Vec<String> = pids.into_iter().map(|(_, uid)| uid).collect();
        let empty: Vec<String> = uids.into_iter().filter(|uid| !found.contains(uid)).collect();
        found.extend(empty);
        found
    }

    /// Network namespaces of processes in the node's cgroups.
    fn namespaces(&self, cluster: &Cluster) -> BTreeSet<u64> {
        let mut pids: BTreeSet<(i32, String)> = BTreeSet::new();
        for (folder, uid) in self.cgroups(cluster) {
            processes(&folder, &uid, &mut pids);
        }
        let host =
            fs::metadata(format!("/run/netns/{}", netns(cluster, &self.name))).map(|m| m.ino()).unwrap_or_default();
        let inode = |pid: i32| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino());
        pids.iter().filter_map(|(pid, _)| inode(*pid)).filter(|inode| *inode != host).collect()
    }

    /// Addresses in rules that belong to nobody; and, without pods, rules that were not there before.
    fn rules_left(&self, cluster: &Cluster, all: &All) -> Result<Vec<String>> {
        let text = rules(cluster, &self.name)?;
        let pods: BTreeSet<&str> = all.pods.values().map(|pod| pod.ip.as_str()).collect();
        let mut wrong = BTreeSet::new();
        for word in text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '/')) {
            let whose = |known: bool, what: &str| {
                (!known && !word.contains('/')).then(|| format!("{}: rules for {what} {word}", self.name))
            };
            if word.starts_with("10.244.") {
                wrong.extend(whose(pods.contains(word), "the pod"));
            } else if word.starts_with("10.96.") {
                wrong.extend(whose(all.services.contains(word), "the service"));
            }
        }
        let lines = text.lines().count();
        if all.pods.is_empty() && lines != self.rules {
            wrong.insert(format!("{}: {lines} lines of rules, {} before", self.name, self.rules));
        }
        Ok(wrong.into_iter().collect())
    }
}

/// What is left of a cluster that was taken down.
pub fn after_down(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let mut left: Vec<String> =
        cgroups(&format!("trireme/{name}")).iter().map(|dir| dir.display().to_string()).collect();
    let namespaces = run(Command::new("ip").args(["netns", "list"]))?.ok()?;
    left.extend(namespaces.lines().filter(|line| line.contains(&format!("trireme-{name}-"))).map(str::to_owned));
    left.extend(mounts(&cluster.dir));
    for verb in ["master", "node", "shim"] {
        let pids = usage::running(&cluster.root().join("bin/trireme"), verb);
        left.extend(pids.iter().map(|pid| format!("trireme {verb}, pid {pid}")));
    }
    if cluster.dir.exists() {
        left.push(cluster.dir.display().to_string());
    }
    Ok(left)
}

fn netns(cluster: &Cluster, host: &str) -> String {
    format!("trireme-{}-{host}", cluster.name)
}

fn in_netns(cluster: &Cluster, host: &str, words: &[&str]) -> Result<String> {
    run(Command::new("ip").args(["netns", "exec", &netns(cluster, host)]).args(words))?.ok()
}

fn rules(cluster: &Cluster, host: &str) -> Result<String> {
    in_netns(cluster, host, &["nft", "list", "ruleset"])
}

/// Rules of a node once the service of the masters has all of them as endpoints, which takes a moment after boot.
fn settled_rules(cluster: &Cluster, host: &str) -> Result<String> {
    let subnet = cluster.subnet()?;
    eventually(Duration::from_secs(30), || {
        let text = rules(cluster, host)?;
        let missing = (1..=cluster.masters()).find(|n| !text.contains(&format!("10.90.{subnet}.{}:6443", 10 + n)));
        ensure!(missing.is_none(), "{host} has no rule that leads to master {missing:?}:\n{text}");
        Ok(text)
    })
}

/// Mount points of this machine below a folder.
fn mounts(below: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(below)).map(str::to_owned).collect()
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Directories of a cgroup path in all hierarchies.
fn cgroups(path: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    let points = points.filter_map(|line| line.split(' ').nth(1));
    points.map(|point| Path::new(point).join(path)).filter(|dir| dir.is_dir()).collect()
}

/// Cgroups named after pods, with the uid.
fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.strip_prefix("pod").filter(|uid| uid.len() == 36) {
            Some(uid) => found.push((entry.path(), uid.to_owned())),
            None => collect(&entry.path(), found),
        }
    }
}

fn processes(folder: &Path, uid: &str, into: &mut BTreeSet<(i32, String)>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    into.extend(text.lines().filter_map(|line| line.parse().ok()).map(|pid| (pid, uid.to_owned())));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        processes(&entry.path(), uid, into);
    }
}
