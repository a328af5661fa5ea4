//! `trireme member`: the masters.

use std::time::Duration;

use http::Request;
use trireme_apiserver::join::wire::{MEMBERS_PATH, MemberInfo, MemberList};

use super::token::{self, Role};
use super::{Connection, api_error, table};
use crate::joining::JoinToken;

/// `trireme member`
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List the masters.
    List {
        /// Output format.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make a token for a new master, and print what to type on its machine.
    Add {
        /// Name of the new master.
        name: String,
        /// It stays a learner, without a vote, until it is promoted.
        #[arg(long)]
        learner: bool,
        /// How long the token is valid.
        #[arg(long, default_value = "1h", value_parser = token::duration, value_name = "DURATION")]
        ttl: Duration,
    },
    /// Give a learner a vote. Learners that were not held back get theirs by themselves.
    Promote {
        /// Name of the master.
        name: String,
    },
    /// Take a dead master out of the cluster, make a token for its successor, and print what to type on that machine.
    Replace {
        /// Name of the dead master, and of its successor.
        name: String,
        /// Another name for the successor.
        #[arg(long, value_name = "NAME")]
        with: Option<String>,
        /// How long the token is valid.
        #[arg(long, default_value = "1h", value_parser = token::duration, value_name = "DURATION")]
        ttl: Duration,
    },
    /// Take a master out of the cluster for good. Stop it and remove its data directory afterwards.
    Remove {
        /// Name of the master.
        name: String,
    },
}

/// How to print.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs the command.
///
/// # Errors
/// When the cluster cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, pin) = args.connection.connect()?;
    match args.command {
        Command::List { output } => {
            let members = list(&client).await?;
            match output {
                Output::Json => table::json(&members)?,
                Output::Table => table::print(&["NAME", "ADDRESS", "ROLE", "HEALTHY", "LAG"], &rows(&members)),
            }
        }
        Command::Remove { name } => {
            let path = format!("{MEMBERS_PATH}/{}", segment(&name)?);
            let _: MemberInfo = client.request(Request::delete(path).body(Vec::new())?).await.map_err(api_error)?;
            println!("member \"{name}\" removed");
            println!("it ends by itself; on its machine, to leave nothing there: trireme master reset");
        }
        Command::Promote { name } => {
            let path = format!("{MEMBERS_PATH}/{}/promote", segment(&name)?);
            let _: MemberInfo = client.request(Request::post(path).body(Vec::new())?).await.map_err(api_error)?;
            println!("member \"{name}\" promoted");
        }
        Command::Add { name, learner, ttl } => {
            let members = list(&client).await?;
            usable(&name, &members)?;
            let token = token::create(&client, pin, Role::Master, ttl, &format!("for the master {name}")).await?;
            invite(&name, learner, &token, &members);
        }
        Command::Replace { name, with, ttl } => {
            let successor = with.as_ref().unwrap_or(&name);
            let others: Vec<_> = list(&client).await?.into_iter().filter(|member| member.name != name).collect();
            usable(successor, &others)?;
            let path = format!("{MEMBERS_PATH}/{}?dead=true", segment(&name)?);
            let _: MemberInfo = client.request(Request::delete(path).body(Vec::new())?).await.map_err(api_error)?;
            println!("member \"{name}\" removed");
            let token = token::create(&client, pin, Role::Master, ttl, &format!("for the master {successor}")).await?;
            invite(successor, false, &token, &others);
        }
    }
    Ok(())
}

/// Refuses a name that cannot be a master's or is one's already.
fn usable(name: &str, members: &[MemberInfo]) -> anyhow::Result<()> {
    segment(name)?;
    match members.iter().find(|member| member.name == name) {
        Some(member) if member.healthy => anyhow::bail!("there is a master {name:?} already, at {}", member.address),
        Some(_) => {
            anyhow::bail!("there is a master {name:?} already; it does not answer: trireme member replace {name}")
        }
        None => Ok(()),
    }
}

/// Says what to type on the machine of a new master.
fn invite(name: &str, learner: bool, token: &JoinToken, members: &[MemberInfo]) {
    let url = members.iter().find(|member| member.healthy).map_or("https://ADDRESS:6443", |member| &member.address);
    let held = if learner { " --learner" } else { "" };
    println!("\non the machine of {name}, with nothing of an old master in its data directory:\n");
    println!("  TRIREME_TOKEN={token} \\\n    trireme master --join {url} --name {name} --advertise IP{held}\n");
}

/// The masters, by name.
pub(crate) async fn list(client: &kube::Client) -> anyhow::Result<Vec<MemberInfo>> {
    let list: MemberList = client.request(Request::get(MEMBERS_PATH).body(Vec::new())?).await.map_err(api_error)?;
    Ok(list.members)
}

fn rows(members: &[MemberInfo]) -> Vec<Vec<String>> {
    members
        .iter()
        .map(|member| {
            vec![
                member.name.clone(),
                member.address.clone(),
                member.role.clone(),
                if member.healthy { "yes" } else { "no" }.to_owned(),
                member.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
            ]
        })
        .collect()
}

/// A name that can be part of a path.
fn segment(name: &str) -> anyhow::Result<&str> {
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    anyhow::ensure!(fits && name != "." && name != "..", "{name:?} is not the name of a master");
    Ok(name)
}
