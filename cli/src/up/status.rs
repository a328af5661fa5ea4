//! `trireme status`: which host runs, which is ready.

use anyhow::bail;
use serde::Serialize;

use super::layout::{Host, Kind, Layout};
use super::process;
use super::ready::{self, Access};
use crate::admin::member::Output;
use crate::admin::table;

/// One host, as programs read it.
#[derive(Serialize)]
struct Row {
    name: String,
    address: String,
    pid: Option<i32>,
    ready: bool,
    problem: Option<String>,
}

/// Prints the hosts; an error if one of them is not well.
pub async fn run(layout: &Layout, output: Output) -> anyhow::Result<()> {
    let Some(cluster) = layout.load()? else {
        bail!("there is no cluster {:?} in {}; boot one with \"trireme up\"", layout.name, layout.root.display());
    };
    let hosts = layout.hosts(&cluster);
    let missing = problems(&hosts).await?;
    let rows: Vec<Row> = hosts
        .iter()
        .map(|host| {
            let pid = process::recorded(host).map(|process| process.pid);
            let problem = match pid {
                None => Some("not running".to_owned()),
                Some(_) => missing.iter().find_map(|line| {
                    let rest = line.strip_prefix(&host.name)?.strip_prefix(" (")?;
                    Some(rest.trim_end_matches(')').to_owned())
                }),
            };
            Row { name: host.name.clone(), address: host.ip.to_string(), pid, ready: problem.is_none(), problem }
        })
        .collect();
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => table::print(&["HOST", "ADDRESS", "PID", "READY", "PROBLEM"], &cells(&rows)),
    }
    let ill = rows.iter().filter(|row| !row.ready).count();
    if ill > 0 {
        bail!(
            "{ill} of {} hosts are not ready; \"trireme up --name {}\" brings back what died",
            rows.len(),
            layout.name
        );
    }
    Ok(())
}

async fn problems(hosts: &[Host]) -> anyhow::Result<Vec<String>> {
    let access = hosts.iter().filter(|h| h.kind == Kind::Master).find_map(|host| Access::of_master(host).ok());
    match access {
        Some(access) => ready::Probe::new(&access, hosts)?.missing().await,
        None => {
            Ok(hosts.iter().map(|host| format!("{} (no master has data, or it cannot be read)", host.name)).collect())
        }
    }
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    rows.iter()
        .map(|row| {
            vec![
                row.name.clone(),
                row.address.clone(),
                row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                if row.ready { "yes" } else { "no" }.to_owned(),
                row.problem.clone().unwrap_or_default(),
            ]
        })
        .collect()
}
