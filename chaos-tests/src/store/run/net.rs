//! A network namespace for each member, on one bridge, and what is cut or lost between them.
//!
//! What does not get through is dropped where it arrives, so that each direction can be cut alone.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// Names of everything begin so; the process id follows.
const PREFIX: &str = "ts";
static COUNT: AtomicU8 = AtomicU8::new(0);
/// Held while a subnet is chosen and taken.
static CHOOSING: Mutex<()> = Mutex::new(());

/// What a member does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deaf {
    /// Nothing from these members.
    pub to: Vec<u32>,
    /// And this many of a hundred packets from the others are lost.
    pub loss: u32,
}

/// The network; it is taken away when this is dropped.
#[derive(Debug)]
pub struct Net {
    name: String,
    subnet: u8,
    members: u32,
}

/// Runs a program with text as its input.
fn feed(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{program} {}: {said}\n{input}", arguments.join(" "));
    Ok(())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    done.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default()
}

impl Net {
    /// Makes a network for so many members, numbered from 1.
    ///
    /// # Errors
    /// When this machine does not allow it.
    pub fn new(members: u32) -> Result<Net> {
        ensure!(nix::unistd::geteuid().is_root(), "this makes network namespaces: run it as root");
        orphans();
        let _one = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
        let letter = char::from(b'a' + COUNT.fetch_add(1, Ordering::Relaxed) % 26);
        let name = format!("{PREFIX}{}{letter}", std::process::id());
        let addresses = output("ip", &["-o", "-4", "address"]);
        let first = (std::process::id() % 200) as u8;
        let free = (0..=255u8).map(|k| first.wrapping_add(k)).find(|n| !addresses.contains(&format!(" 10.231.{n}.")));
        let subnet = free.context("no free subnet in 10.231.0.0/16")?;
        let net = Net { name, subnet, members };
        let mut batch = format!("link add {0}b type bridge\naddress add 10.231.{subnet}.254/24 dev {0}b\n", net.name);
        batch += &format!("link set {}b up\n", net.name);
        for member in 1..=members {
            let space = net.space(member);
            batch += &format!("netns add {space}\nlink add {space} type veth peer name eth0 netns {space}\n");
            batch += &format!("link set {space} master {}b up\n", net.name);
        }
        feed("ip", &["-batch", "-"], &batch)?;
        for member in 1..=members {
            let inside = format!("link set lo up\naddress add {}/24 dev eth0\nlink set eth0 up\n", net.address(member));
            feed("ip", &["-n", &net.space(member), "-batch", "-"], &inside)?;
        }
        Ok(net)
    }

    /// Name of a member's namespace.
    pub fn space(&self, member: u32) -> String {
        format!("{}m{member}", self.name)
    }

    /// Address of a member.
    pub fn address(&self, member: u32) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.subnet, member as u8)
    }

    /// Makes a member deaf; by default it hears everything again.
    ///
    /// # Errors
    /// When the rules are not taken.
    pub fn deafen(&self, member: u32, deaf: &Deaf) -> Result<()> {
        let mut rules = String::new();
        for other in &deaf.to {
            rules += &format!("ip saddr {} drop\n", self.address(*other));
        }
        if deaf.loss > 0 {
            let others = (1..=self.members).filter(|other| *other != member);
            let others: Vec<String> = others.map(|other| self.address(other).to_string()).collect();
            rules += &format!("ip saddr {{ {} }} numgen random mod 100 < {} drop\n", others.join(", "), deaf.loss);
        }
        let chain = format!("chain arrive {{\ntype filter hook input priority 0; policy accept;\n{rules}}}");
        let script = format!("table inet chaos\ndelete table inet chaos\ntable inet chaos {{\n{chain}\n}}\n");
        feed("ip", &["netns", "exec", &self.space(member), "nft", "-f", "-"], &script)
    }

    /// Everybody hears everybody.
    ///
    /// # Errors
    /// When the rules are not taken.
    pub fn heal(&self) -> Result<()> {
        (1..=self.members).try_for_each(|member| self.deafen(member, &Deaf::default()))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes namespaces and links of that name.
fn remove(name: &str) {
    for space in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let space = space.file_name().to_string_lossy().into_owned();
        if space.starts_with(name) {
            output("ip", &["netns", "delete", &space]);
        }
    }
    output("ip", &["link", "delete", &format!("{name}b")]);
}

/// Removes what runs left that were killed.
fn orphans() {
    for space in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let space = space.file_name().to_string_lossy().into_owned();
        if let Some((run, pid)) = run_of(&space)
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            println!("removing the network {run:?}, which an earlier run left");
            remove(run);
        }
    }
}

/// The run that a namespace belongs to, and its process.
fn run_of(space: &str) -> Option<(&str, u32)> {
    let rest = space.strip_prefix(PREFIX)?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let run = space.get(..PREFIX.len() + digits + 1)?;
    let rest = space.strip_prefix(run)?;
    rest.starts_with('m').then_some((run, run[PREFIX.len()..PREFIX.len() + digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_runs_are_told_from_others() {
        assert_eq!(run_of("ts4711am3"), Some(("ts4711a", 4711)));
        for other in ["ts", "ts4711", "ts4711a", "tsam3", "t4711am3", "ts4711ab"] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }
}
