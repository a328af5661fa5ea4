//! Arguments that a user gives to all masters or all nodes of a local cluster, checked before anything is started.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::{Args, FromArgMatches};

use super::layout::Kind;
use crate::{master, node};

/// What hosts of this kind are to get: what is given, else what is remembered.
///
/// # Errors
/// When it is nothing that such a host understands.
pub fn chosen(kind: Kind, given: &[String], remembered: &[String]) -> anyhow::Result<Vec<String>> {
    if given.is_empty() {
        return Ok(remembered.to_vec());
    }
    let chosen: Vec<String> = given.iter().filter(|argument| !argument.is_empty()).cloned().collect();
    let flag = match kind {
        Kind::Master => "--master-arg",
        Kind::Node => "--node-arg",
    };
    check(kind, &chosen).with_context(|| format!("{flag} cannot be used"))?;
    Ok(chosen)
}

/// Reads arguments as the host will, beside those that `up` itself gives to it.
fn check(kind: Kind, arguments: &[String]) -> anyhow::Result<()> {
    match kind {
        Kind::Master => {
            let own = ["--data-dir", "/", "--advertise", "10.0.0.1", "--name", "x", "--join", "x", "--token", "x"];
            parse::<master::Args>("trireme master", &own, arguments)?.validate()
        }
        Kind::Node => {
            let own = ["--data-dir", "/", "--address", "10.0.0.1", "--name", "x", "--join", "x", "--token", "x"];
            let more = ["--images", "/", "--cgroup-root", "/x"];
            let args: node::Args = parse("trireme node", &[&own[..], &more].concat(), arguments)?;
            args.config("x", IpAddr::V4(Ipv4Addr::LOCALHOST), Path::new("/")).map(drop)
        }
    }
}

fn parse<A: Args + FromArgMatches>(name: &'static str, own: &[&str], arguments: &[String]) -> anyhow::Result<A> {
    let words = std::iter::once(name).chain(own.iter().copied()).chain(arguments.iter().map(String::as_str));
    let matches = A::augment_args(clap::Command::new(name)).try_get_matches_from(words);
    matches.and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| {
        let text = error.to_string();
        // The rest is usage of a command that nobody typed.
        let first = text.split("\n\n").next().unwrap_or_default();
        anyhow!("{}", first.strip_prefix("error: ").unwrap_or(first))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn given_ones_replace_what_is_remembered() {
        let old = words("--node-monitor-grace-period=9s");
        assert_eq!(chosen(Kind::Master, &[], &old).unwrap(), old);
        let new = words("--node-monitor-grace-period 5s --default-unreachable-toleration-seconds=2");
        assert_eq!(chosen(Kind::Master, &new, &old).unwrap(), new);
        assert!(chosen(Kind::Master, &[String::new()], &old).unwrap().is_empty());
    }

    #[test]
    fn what_a_host_would_not_understand_is_refused() {
        let cases = [
            (Kind::Master, "--node-monitor-grace-period=soon", "invalid value 'soon'"),
            (Kind::Master, "--node-monitor-grace-period=1ms", "must be between 1s and 24h"),
            (Kind::Master, "--data-dir=/x", "cannot be used multiple times"),
            (Kind::Master, "--nonsense", "unexpected argument '--nonsense'"),
            (Kind::Node, "--node-lease-duration-seconds=0", "must be between 1 and 86400"),
            (Kind::Node, "--node-status-update-frequency=-1s", "invalid duration"),
            (Kind::Node, "--max-pods=0", "at least one pod"),
        ];
        for (kind, given, said) in cases {
            let error = format!("{:#}", chosen(kind, &words(given), &[]).unwrap_err());
            assert!(error.contains(said), "{given}: {error}");
            assert!(!error.contains("Usage"), "{error}");
        }
    }
}
