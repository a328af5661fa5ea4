//! Which process every host has, so that one that ends by itself is noticed: `trireme up` brings it back like one that
//! was killed.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::usage;

/// A process: its pid, and when the kernel started it, since pids are given again.
type Life = (i32, u64);

/// The processes of a cluster's hosts, those aside that were killed and not brought back yet.
#[derive(Debug, Default)]
pub struct Lives {
    alive: BTreeMap<String, Life>,
    ended: Vec<String>,
}

impl Lives {
    /// All hosts as they are now.
    ///
    /// # Errors
    /// When one does not run.
    pub fn of(cluster: &Cluster) -> Result<Lives> {
        let mut lives = Lives::default();
        lives.remember(cluster)?;
        Ok(lives)
    }

    /// Processes that ended though nobody had killed them.
    pub fn ended(&self) -> &[String] {
        &self.ended
    }

    /// Looks whether every host that was not killed still has its process.
    pub fn check(&mut self, cluster: &Cluster, when: &str) {
        self.compare(when, |host| cluster.pid(host).ok().and_then(life));
    }

    fn compare(&mut self, when: &str, now: impl Fn(&str) -> Option<Life>) {
        let ended = &mut self.ended;
        self.alive.retain(|host, life| {
            let found = now(host);
            if found != Some(*life) {
                let instead = found.map(|(pid, _)| format!("; it has pid {pid} now")).unwrap_or_default();
                ended.push(format!("{host} (pid {}) had ended by itself, seen {when}{instead}", life.0));
            }
            found == Some(*life)
        });
    }

    /// `kill -9` of a host's process; false if it had ended before.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, cluster: &Cluster, host: &str) -> Result<bool> {
        self.check(cluster, &format!("before {host} was killed"));
        let running = self.alive.remove(host).is_some();
        if running {
            cluster.kill(host)?;
        }
        Ok(running)
    }

    /// Brings back what was killed.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn mend(&mut self, cluster: &Cluster) -> Result<()> {
        self.check(cluster, "before the killed ones were brought back");
        cluster.mend()?;
        self.remember(cluster)
    }

    fn remember(&mut self, cluster: &Cluster) -> Result<()> {
        for host in cluster.hosts() {
            if !self.alive.contains_key(host) {
                let found = life(cluster.pid(host)?);
                ensure!(found.is_some(), "{host} does not run");
                self.alive.extend(found.map(|life| (host.clone(), life)));
            }
        }
        Ok(())
    }
}

fn life(pid: i32) -> Option<Life> {
    usage::started(pid).map(|started| (pid, started))
}

/// A stopped process, which goes on when this is dropped, whatever happens.
#[derive(Debug)]
pub struct Paused {
    pid: Pid,
}

impl Paused {
    /// Stops a host's process.
    ///
    /// # Errors
    /// When there is none.
    pub fn stop(cluster: &Cluster, host: &str) -> Result<Paused> {
        let pid = Pid::from_raw(cluster.pid(host)?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Paused { pid })
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = kill(self.pid, Signal::SIGCONT) {
            eprintln!("kill -CONT {}: {error}", self.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_unbidden_is_named_once() {
        let alive = ["master-1", "master-2", "node-1", "node-2"].map(|host| (host.to_owned(), (7, 100)));
        let mut lives = Lives { alive: alive.into(), ended: vec![] };
        let now = |host: &str| match host {
            "master-2" => None,
            "node-1" => Some((7, 101)),
            "node-2" => Some((8, 100)),
            _ => Some((7, 100)),
        };
        lives.compare("then", now);
        lives.compare("later", now);
        assert_eq!(lives.alive.keys().collect::<Vec<_>>(), ["master-1"]);
        assert_eq!(lives.ended.len(), 3);
        assert_eq!(lives.ended[0], "master-2 (pid 7) had ended by itself, seen then");
    }
}
