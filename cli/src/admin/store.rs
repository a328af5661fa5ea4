//! `trireme store status`: what the store of each master looks like to an operator, and what is not well, in words.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use http::Request;
use serde::Serialize;
use trireme_apiserver::join::wire::{FeatureLevel, MasterStatus, MemberInfo, UPGRADE_PATH};

use super::member::Output;
use super::snapshot::{size, time};
use super::{Connection, api_error, table};
use crate::ctl::time::duration;
use crate::status::collect::{Answer, Collector};

/// Entries behind the leader from which on a member counts as behind.
const BEHIND: u64 = 10_000;
/// Duration of fsyncs, one in a hundred, from which on a disk counts as slow.
const SLOW_DISK_MS: f64 = 100.0;
/// So many of them tell something.
const ENOUGH: u64 = 100;

/// `trireme store`
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Sizes, revisions, term, leader, lag, disk latency of every master's store, and what is not well. Exit codes: 0 all is
    /// well, 1 something is not, 2 no master can be reached.
    Status {
        #[command(flatten)]
        connection: Connection,
        /// Output format.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// How long to wait for an answer.
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
        timeout: Duration,
    },
    /// After an upgrade of all masters: use what only the new version understands, now. No master can go back to the former
    /// version then. Without this it happens an hour after the last master was upgraded.
    Upgrade {
        #[command(flatten)]
        connection: Connection,
    },
}

/// One master's store.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    address: String,
    role: String,
    healthy: bool,
    lag: Option<u64>,
    #[serde(flatten)]
    told: Option<Told>,
}

/// What a master that answers tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    term: u64,
    revision: u64,
    compacted_revision: u64,
    last_log_index: u64,
    applied_index: u64,
    lineage: String,
    feature_level: u32,
    total_bytes: u64,
    state_bytes: u64,
    in_use_bytes: u64,
    log_bytes: u64,
    disk_available_bytes: Option<u64>,
    fsync_count: u64,
    fsync_p50_ms: f64,
    fsync_p99_ms: f64,
    fsync_max_ms: f64,
    last_snapshot: Option<String>,
    #[serde(skip)]
    disk_share: Option<f64>,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    healthy: bool,
    leader: Option<String>,
    term: u64,
    revision: u64,
    lineage: Option<String>,
    members: Vec<Row>,
    problems: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the kubeconfig cannot be used or no master answers.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (connection, output, timeout) = match args.command {
        Command::Status { connection, output, timeout } => (connection, output, timeout),
        Command::Upgrade { connection } => return upgrade(&connection).await,
    };
    let mut collector = Collector::new(connection.resolve()?, timeout)?;
    let answers = collector.masters().await?;
    if answers.iter().all(|answer| answer.status.is_err()) {
        let why = answers.iter().filter_map(|a| a.status.as_ref().err().map(|e| format!("{}: {e}", a.url)));
        anyhow::bail!("no master answers ({})", why.collect::<Vec<_>>().join("; "));
    }
    let report = report(&answers);
    match output {
        Output::Json => table::json(&report)?,
        Output::Table => print(&report),
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn upgrade(connection: &Connection) -> anyhow::Result<ExitCode> {
    let (client, _) = connection.connect()?;
    let request = Request::post(UPGRADE_PATH).body(Vec::new())?;
    let raised: FeatureLevel = client.request(request).await.map_err(api_error)?;
    println!("the masters use feature level {}", raised.feature_level);
    Ok(ExitCode::SUCCESS)
}

fn told(status: &MasterStatus) -> Told {
    let store = &status.store;
    Told {
        term: status.term,
        revision: status.revision,
        compacted_revision: status.compacted_revision,
        last_log_index: status.last_log_index,
        applied_index: status.applied_index,
        lineage: status.lineage.clone(),
        feature_level: store.feature_level,
        total_bytes: status.db_size_bytes,
        state_bytes: store.state_bytes,
        in_use_bytes: store.in_use_bytes,
        log_bytes: store.log_bytes,
        disk_available_bytes: status.disk.map(|disk| disk.available_bytes),
        fsync_count: store.fsync_count,
        fsync_p50_ms: store.fsync_p50_ms,
        fsync_p99_ms: store.fsync_p99_ms,
        fsync_max_ms: store.fsync_max_ms,
        last_snapshot: store.snapshot_at.map(|at| time(at * 1000)),
        disk_share: status.disk.map(|disk| disk.available_bytes as f64 / disk.total_bytes.max(1) as f64),
    }
}

/// Makes the report. Pure.
fn report(answers: &[Answer]) -> Report {
    let told_by: Vec<&MasterStatus> = answers.iter().filter_map(|a| a.status.as_ref().ok()).collect();
    // Whoever leads with a quorum knows best who belongs to the group, else whoever is in the newest term.
    let best = told_by.iter().max_by_key(|s| (s.in_contact && s.role == "leader", s.in_contact, s.term));
    let members: Vec<MemberInfo> = best.map(|s| s.members.clone()).unwrap_or_default();
    let of = |id: u64| told_by.iter().find(|s| s.id == id);
    let mut rows: Vec<Row> = members
        .iter()
        .map(|member| Row {
            name: member.name.clone(),
            address: member.address.clone(),
            role: member.role.clone(),
            healthy: of(member.id).is_some_and(|s| s.in_contact),
            lag: member.lag,
            told: of(member.id).map(|s| told(s)),
        })
        .collect();
    for stranger in told_by.iter().filter(|s| members.iter().all(|member| member.id != s.id)) {
        let (name, address) = (stranger.name.clone(), stranger.address.clone());
        let told = Some(told(stranger));
        rows.push(Row { name, address, role: "stranger".to_owned(), healthy: false, lag: None, told });
    }
    let told_leader = told_by.iter().find(|s| s.in_contact && s.role == "leader").map(|s| s.name.clone());
    let leader = told_leader.or_else(|| unheard(&told_by));
    if leader.is_none() {
        // Somebody leads only in the memory of whoever followed it.
        rows.iter_mut().filter(|row| row.role == "leader").for_each(|row| row.role = "follower".to_owned());
    }
    let mut problems = problems(&rows, leader.as_deref());
    problems.extend(told_by.iter().flat_map(|s| s.alarms.iter().map(|alarm| format!("{}: {alarm}", s.name))));
    Report {
        healthy: problems.is_empty(),
        leader,
        term: told_by.iter().map(|s| s.term).max().unwrap_or_default(),
        revision: told_by.iter().map(|s| s.revision).max().unwrap_or_default(),
        lineage: best.map(|s| s.lineage.clone()),
        members: rows,
        problems,
    }
}

/// The leader that others follow while it does not answer here.
fn unheard(told_by: &[&MasterStatus]) -> Option<String> {
    let newest = told_by.iter().filter(|s| s.in_contact && s.leader.is_some()).max_by_key(|s| s.term)?;
    newest.leader.clone().filter(|name| told_by.iter().all(|s| s.name != *name))
}

/// What there is to say of the quorum.
fn quorum(rows: &[Row], leader: Option<&str>) -> Option<String> {
    let voters: Vec<&Row> = rows.iter().filter(|r| matches!(r.role.as_str(), "leader" | "follower")).collect();
    let healthy = voters.iter().filter(|r| r.healthy).count();
    let (all, needed) = (voters.len(), voters.len() / 2 + 1);
    // A leader that others hear is there, although it does not answer here.
    let silent = voters.iter().find(|r| r.told.is_none() && Some(r.name.as_str()) == leader);
    let there = healthy + usize::from(silent.is_some());
    match (leader, silent) {
        (None, _) if healthy < needed => Some(format!(
            "no quorum: {healthy} of {all} voters are in contact with a leader, {needed} are needed. Start the others; if they \
             are lost for good, see \"A majority is lost\" in docs/operations.md"
        )),
        (None, _) => Some("no leader answers: they may be choosing one just now; ask again".to_owned()),
        (Some(_), Some(_)) if there < needed => Some(format!(
            "whether there is a quorum cannot be told from here: {there} of {all} voters are known to be in contact, {needed} \
             are needed"
        )),
        (Some(_), _) if there == needed && all > 2 => {
            Some("no further voter may fail: the quorum is just there".to_owned())
        }
        _ => None,
    }
}

/// What is not well, in words for the person who has to do something about it.
fn problems(rows: &[Row], leader: Option<&str>) -> Vec<String> {
    let mut found: Vec<String> = quorum(rows, leader).into_iter().collect();
    for row in rows {
        let name = &row.name;
        let Some(told) = &row.told else {
            if leader == Some(name.as_str()) {
                let others: Vec<&str> = rows.iter().filter(|row| row.healthy).map(|row| row.name.as_str()).collect();
                found.push(format!(
                    "the leader {name} does not answer here, at {}; {} in contact with it: check the network between this \
                     machine and it, and port 6443",
                    row.address,
                    match &others[..] {
                        [one] => format!("{one} is"),
                        all => format!("{} are", all.join(", ")),
                    }
                ));
                continue;
            }
            found.push(format!(
                "{name} does not answer at {}. Start it{}",
                row.address,
                if leader.is_some() {
                    format!("; if it is lost for good: trireme member replace {name}")
                } else {
                    String::new()
                }
            ));
            continue;
        };
        if row.role == "stranger" {
            found.push(format!("{name} answers but is no member: trireme master reset there, then join it anew"));
        } else if !row.healthy && leader.is_some() {
            found.push(format!("{name} is cut off from the leader: check port 2380 between the masters"));
        }
        if row.lag.is_some_and(|lag| lag > BEHIND) {
            found.push(format!("{name} is {} entries behind the leader", row.lag.unwrap_or_default()));
        }
        if told.fsync_count >= ENOUGH && told.fsync_p99_ms > SLOW_DISK_MS {
            found.push(format!(
                "the disk of {name} is slow: one fsync in a hundred takes more than {:.0} ms (longest {:.0} ms)",
                told.fsync_p99_ms, told.fsync_max_ms
            ));
        }
        if told.disk_share.is_some_and(|share| share < 0.05) {
            let left = size(told.disk_available_bytes.unwrap_or_default());
            found.push(format!("the disk of {name} is nearly full: {left} left"));
        }
    }
    let distinct = |of: fn(&Told) -> String| -> BTreeSet<String> {
        rows.iter().filter_map(|row| row.told.as_ref().map(of)).collect()
    };
    let lineages = distinct(|t| t.lineage.clone());
    if lineages.len() > 1 {
        let all = lineages.into_iter().collect::<Vec<_>>().join(", ");
        found.push(format!("masters of different lineages answer ({all}): those of a former one have to be reset"));
    }
    found
}

fn print(report: &Report) {
    let columns = [
        "NAME",
        "ROLE",
        "HEALTHY",
        "LAG",
        "TERM",
        "REVISION",
        "COMPACTED",
        "STATE",
        "IN USE",
        "LOG",
        "FSYNC P50/P99",
        "LAST SNAPSHOT",
    ];
    let rows: Vec<Vec<String>> = report.members.iter().map(cells).collect();
    table::print(&columns, &rows);
    println!();
    println!("lineage  {}", report.lineage.as_deref().unwrap_or("unknown"));
    let leader = report.leader.as_deref();
    let silent = report.members.iter().any(|row| row.told.is_none() && Some(row.name.as_str()) == leader);
    println!("leader   {}{}", leader.unwrap_or("none"), if silent { " (does not answer here)" } else { "" });
    if report.problems.is_empty() {
        println!("all is well");
    }
    for problem in &report.problems {
        println!("problem  {problem}");
    }
}

fn cells(row: &Row) -> Vec<String> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let lag = row.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
    let mut cells = vec![row.name.clone(), row.role.clone(), yes(row.healthy), lag];
    match &row.told {
        Some(t) => cells.extend([
            t.term.to_string(),
            t.revision.to_string(),
            t.compacted_revision.to_string(),
            size(t.state_bytes),
            size(t.in_use_bytes),
            size(t.log_bytes),
            format!("{:.1}/{:.1} ms", t.fsync_p50_ms, t.fsync_p99_ms),
            t.last_snapshot.clone().unwrap_or_else(|| "none".to_owned()),
        ]),
        None => cells.extend(std::iter::repeat_n("-".to_owned(), 8)),
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, role: &str, healthy: bool) -> Row {
        let told = Told {
            term: 1,
            revision: 2,
            compacted_revision: 1,
            last_log_index: 3,
            applied_index: 3,
            lineage: "l".into(),
            feature_level: 1,
            total_bytes: 3,
            state_bytes: 2,
            in_use_bytes: 1,
            log_bytes: 1,
            disk_available_bytes: Some(50),
            fsync_count: 1000,
            fsync_p50_ms: 1.0,
            fsync_p99_ms: 2.0,
            fsync_max_ms: 3.0,
            last_snapshot: None,
            disk_share: Some(0.5),
        };
        Row {
            name: name.into(),
            address: format!("https://{name}:6443"),
            role: role.into(),
            healthy,
            lag: Some(0),
            told: Some(told),
        }
    }

    fn group() -> Vec<Row> {
        vec![row("a", "leader", true), row("b", "follower", true), row("c", "follower", true)]
    }

    #[test]
    fn what_is_not_well_is_said_in_words() {
        assert!(problems(&group(), Some("a")).is_empty());
        let changed = |change: fn(&mut Vec<Row>)| {
            let mut rows = group();
            change(&mut rows);
            problems(&rows, Some("a")).join("\n")
        };
        let dead = changed(|rows| rows[2] = Row { told: None, healthy: false, ..row("c", "follower", false) });
        assert!(dead.contains("c does not answer") && dead.contains("no further voter may fail"), "{dead}");
        assert!(changed(|rows| rows[1].lag = Some(1_000_000)).contains("b is 1000000 entries behind"));
        let told = |row: &mut Row, change: fn(&mut Told)| row.told.iter_mut().for_each(change);
        let mut rows = group();
        told(&mut rows[1], |t| t.fsync_p99_ms = 250.0);
        told(&mut rows[2], |t| (t.disk_share, t.lineage) = (Some(0.04), "other".into()));
        let found = problems(&rows, Some("a")).join("\n");
        for part in ["the disk of b is slow", "the disk of c is nearly full", "different lineages"] {
            assert!(found.contains(part), "{found}");
        }
        let mut rows = group();
        rows.iter_mut().for_each(|row| row.healthy = false);
        assert!(problems(&rows, None)[0].contains("no quorum: 0 of 3 voters"));
        // Some are in contact, but the one that leads just changes.
        let found = problems(&group(), None).join("\n");
        assert!(!found.contains("quorum") && found.contains("ask again"), "{found}");
        // A learner is no voter.
        let learner = vec![row("a", "leader", true), row("b", "learner", false)];
        assert!(!problems(&learner, Some("a")).join("\n").contains("quorum"));
    }

    /// What a master answers that knows this group.
    fn answer(name: &str, in_contact: bool, leader: Option<&str>) -> Answer {
        let members = ["a", "b", "c"].map(|member| {
            let role = if Some(member) == leader { "leader" } else { "follower" };
            let id = u64::from(member.as_bytes()[0]);
            serde_json::json!({"name": member, "address": format!("https://{member}:6443"), "role": role, "healthy": true,
                               "lag": null, "id": id, "peerAddress": ""})
        });
        let status = serde_json::json!({
            "name": name, "id": u64::from(name.as_bytes()[0]), "address": format!("https://{name}:6443"), "peerAddress": "",
            "role": if leader == Some(name) { "leader" } else { "follower" }, "inContact": in_contact, "leader": leader,
            "term": 2, "lineage": "l", "revision": 1, "compactedRevision": 0, "lastLogIndex": 1, "appliedIndex": 1,
            "dbSizeBytes": 1, "disk": null, "residentBytes": null, "certificates": [], "version": "1",
            "kubernetesVersion": "1", "startTime": "", "now": "", "members": members,
        });
        let status = serde_json::from_value(status).map_err(|error| error.to_string());
        Answer { url: format!("https://{name}:6443"), status, ready: Ok(()) }
    }

    #[test]
    fn a_leader_that_only_others_hear_is_no_lost_quorum() {
        let silent = Answer { url: "https://a:6443".into(), status: Err("no answer".into()), ready: Ok(()) };
        let others =
            |leader, in_contact| [answer("b", in_contact, leader), answer("c", in_contact, leader), silent.clone()];
        let found = report(&others(Some("a"), true));
        let told = found.problems.join("\n");
        assert!(told.contains("the leader a does not answer here") && told.contains("b, c are in contact"), "{told}");
        assert!(!told.contains("no quorum") && !told.contains("lost for good"), "{told}");
        assert_eq!((found.leader.as_deref(), found.healthy), (Some("a"), false));
        assert_eq!(found.members[0].role, "leader");
        // Nobody hears it: then nobody leads.
        let found = report(&others(Some("a"), false));
        assert!(found.problems[0].contains("no quorum: 0 of 3"), "{:?}", found.problems);
        assert!(found.leader.is_none() && found.members.iter().all(|row| row.role == "follower"));
    }
}
