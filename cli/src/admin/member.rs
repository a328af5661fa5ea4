//! `trireme member`: the masters.

use http::Request;
use trireme_apiserver::join::wire::{MEMBERS_PATH, MemberInfo, MemberList};

use super::{Connection, api_error, table};

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
    let (client, _) = args.connection.connect()?;
    match args.command {
        Command::List { output } => {
            let members = list(&client).await?;
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&members)?),
                Output::Table => table::print(&["NAME", "ADDRESS", "ROLE", "HEALTHY", "LAG"], &rows(&members)),
            }
        }
        Command::Remove { name } => {
            let path = format!("{MEMBERS_PATH}/{}", segment(&name)?);
            let _: MemberInfo = client.request(Request::delete(path).body(Vec::new())?).await.map_err(api_error)?;
            println!("member \"{name}\" removed");
        }
    }
    Ok(())
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
