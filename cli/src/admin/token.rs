//! `trireme token`: short-lived tokens with which machines join. They are upstream's bootstrap token Secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use trireme_client::tls::CaPin;

use super::{Connection, api_error, table};
use crate::joining::JoinToken;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
/// How long a new cluster may take to make its system namespaces.
const NEW_CLUSTER: Duration = Duration::from_secs(10);
const PREFIX: &str = "bootstrap-token-";

/// `trireme token`
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make a token and print it.
    Create {
        /// What may join with it.
        #[arg(long, value_enum)]
        role: Role,
        /// How long it is valid, for example 30m, 1h, 1h30m or 2d.
        #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
        ttl: Duration,
        /// A note for `trireme token list`.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the tokens, without their secrets.
    List,
    /// Delete a token: nobody joins with it any more.
    Delete {
        /// Id of the token (the part before the dot), or the whole token.
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

/// What a token lets join.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Masters. Such a token hands out the cluster's keys: treat it as the cluster itself.
    Master,
    /// Node agents.
    Node,
}

impl Role {
    fn group(self) -> &'static str {
        match self {
            Role::Master => "system:bootstrappers:trireme:masters",
            Role::Node => "system:bootstrappers:trireme:nodes",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the cluster cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (client, pin) = args.connection.connect()?;
    match args.command {
        Command::Create { role, ttl, description } => {
            println!("{}", create(&client, pin, role, ttl, &description).await?);
            Ok(())
        }
        Command::List => list(&client).await,
        Command::Delete { tokens } => delete(&client, &tokens).await,
    }
}

/// Makes a token.
///
/// # Errors
/// When the API refuses the Secret.
pub async fn create(
    client: &kube::Client,
    pin: CaPin,
    role: Role,
    ttl: Duration,
    description: &str,
) -> anyhow::Result<JoinToken> {
    let expiration = jiff::Timestamp::now()
        .checked_add(jiff::SignedDuration::try_from(ttl)?)
        .context("the token would live too long")?;
    // The API keeps whole seconds.
    let expiration = expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let token = JoinToken { id: random(6), secret: random(16), pin };
    let data = [
        ("token-id", token.id.as_str()),
        ("token-secret", token.secret.as_str()),
        ("expiration", &expiration),
        ("usage-bootstrap-authentication", "true"),
        ("auth-extra-groups", role.group()),
        ("description", description),
    ];
    let secret = Secret {
        metadata: ObjectMeta { name: Some(format!("{PREFIX}{}", token.id)), ..ObjectMeta::default() },
        type_: Some(TYPE.into()),
        string_data: Some(data.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()),
        ..Secret::default()
    };
    let deadline = tokio::time::Instant::now() + NEW_CLUSTER;
    loop {
        match secrets(client).create(&PostParams::default(), &secret).await {
            Ok(_) => return Ok(token),
            // A cluster that has just been founded is about to make its system namespaces.
            Err(kube::Error::Api(status)) if not_yet(&status) && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(api_error(error)),
        }
    }
}

/// Whether the system namespace is not there yet, or in the middle of being made.
fn not_yet(status: &kube::core::Status) -> bool {
    status.code == 404 || status.code == 403 && status.message.contains("being terminated")
}

async fn list(client: &kube::Client) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    let mut rows = Vec::new();
    for secret in secrets(client).list(&ListParams::default()).await.map_err(api_error)? {
        if secret.type_.as_deref() != Some(TYPE) {
            continue;
        }
        let data = secret.data.unwrap_or_default();
        let field = |name: &str| text(&data, name);
        let groups = field("auth-extra-groups");
        let role = match (groups.contains(Role::Master.group()), groups.contains(Role::Node.group())) {
            (true, _) => "master",
            (_, true) => "node",
            _ => "other",
        };
        rows.push(vec![field("token-id"), role.into(), left(&field("expiration"), now), field("description")]);
    }
    if rows.is_empty() {
        println!("No tokens; make one with \"trireme token create --role node\".");
    } else {
        table::print(&["ID", "ROLE", "EXPIRES IN", "DESCRIPTION"], &rows);
    }
    Ok(())
}

async fn delete(client: &kube::Client, tokens: &[String]) -> anyhow::Result<()> {
    for token in tokens {
        let id = token.split('.').next().unwrap_or_default();
        if id.len() != 6 || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            bail!("{id:?} is not the id of a token: six lower-case letters or digits");
        }
    }
    for token in tokens {
        let id = token.split('.').next().unwrap_or_default();
        match delete_one(client, id).await {
            Ok(()) => println!("token \"{id}\" deleted"),
            Err(kube::Error::Api(status)) if status.code == 404 => bail!("there is no token with the id {id:?}"),
            Err(error) => return Err(api_error(error)),
        }
    }
    Ok(())
}

/// Deletes the token with an id.
///
/// # Errors
/// When there is none, or the cluster cannot be reached.
pub(crate) async fn delete_one(client: &kube::Client, id: &str) -> Result<(), kube::Error> {
    secrets(client).delete(&format!("{PREFIX}{id}"), &DeleteParams::default()).await.map(drop)
}

fn secrets(client: &kube::Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn text(data: &BTreeMap<String, k8s_openapi::ByteString>, name: &str) -> String {
    data.get(name).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

fn left(expiration: &str, now: jiff::Timestamp) -> String {
    if expiration.is_empty() {
        return "never".into();
    }
    match expiration.parse::<jiff::Timestamp>() {
        Ok(at) if at <= now => "expired".into(),
        Ok(at) => table::age(at.as_second() - now.as_second()),
        Err(_) => "invalid".into(),
    }
}

/// Letters and digits of a bootstrap token, evenly distributed, from the system's generator.
fn random(length: usize) -> String {
    use rand::Rng;
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// `90s`, `30m`, `1h30m`, `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30m, 1h or 2d");
    let mut seconds: u64 = 0;
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let value: u64 = number.parse().map_err(|_| wrong())?;
        number.clear();
        seconds = value.checked_mul(unit).and_then(|v| seconds.checked_add(v)).ok_or_else(wrong)?;
    }
    if !number.is_empty() || seconds == 0 {
        return Err(wrong());
    }
    if seconds > 366 * 86400 {
        return Err("a token may live a year at most".into());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("2d").unwrap(), Duration::from_secs(172_800));
        for bad in ["", "0s", "10", "h", "1x", "-1h", "999999999999999999999h", "9999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn made_up_tokens_have_the_form_of_bootstrap_tokens() {
        let pin: CaPin = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let token = JoinToken { id: random(6), secret: random(16), pin };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
    }
}
