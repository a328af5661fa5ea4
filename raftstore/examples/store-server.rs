//! A member of the store in a process of its own, for tests and benchmarks: `trireme_raftstore::port` says why.
//!
//! It is an example so that what only it needs stays out of the library's dependencies. `cargo build -p trireme-raftstore
//! --example store-server` makes `target/debug/examples/store-server`, as does every `cargo test` of the package.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::signal::unix::{SignalKind, signal};
use trireme_raftstore::port::{self, Client, tls_files};
use trireme_raftstore::{Config, NewMember, RestoreTarget, Store};

const USAGE: &str = "\
store-server: a member of the store, for tests and benchmarks

  store-server certs DIR NAME...
      leaves ca.pem (kept if ca-key.pem is there too) and NAME.pem, NAME-key.pem in DIR; a certificate is for NAME,
      localhost and 127.0.0.1, for servers and clients
  store-server bootstrap|join|open|restore --data DIR --name NAME --peer ADDRESS --client ADDRESS --tls DIR
      founds a group, joins the one that --via ADDRESS[,ADDRESS...] (client ports) belong to, or starts again; prints
      \"ready name=... id=... peer=... client=...\" and ends gracefully at SIGTERM; restore makes a member of the backup
      --from FILE and ends

  --advertise HOST:PORT   where the other members reach the peer server (default: what --peer says)
  --set NAME=NUMBER       heartbeat-ms election-min-ms election-max-ms write-timeout-ms read-timeout-ms snapshot-entries
                          keep-log-entries keep-history-s max-watches watch-events watch-max-lag max-pending-writes
                          min-free-mib reserve-mib feature-level
  --fault NAME[=NUMBER]   something that goes wrong on purpose: trireme_raftstore::faults
  RUST_LOG                what is logged, to standard error (info)
";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] | ["help" | "--help" | "-h", ..] => {
            print!("{USAGE}");
            Ok(())
        }
        ["--version"] => {
            println!("store-server {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        ["certs", dir, names @ ..] if !names.is_empty() => certificates(Path::new(dir), names),
        [how @ ("bootstrap" | "join" | "open" | "restore"), rest @ ..] => run(how, rest),
        _ => Err(format!("these words are not understood\n\n{USAGE}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                text = format!("{text}: {cause}");
                next = cause.source();
            }
            eprintln!("store-server: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The CA of a folder, made if it is not there, and certificates signed by it.
fn certificates(dir: &Path, names: &[&str]) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)?;
    let (ca, key) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "store-server");
    let pair = match std::fs::read_to_string(&key) {
        Ok(pem) => KeyPair::from_pem(&pem)?,
        Err(_) => {
            let pair = KeyPair::generate()?;
            std::fs::write(&ca, params.self_signed(&pair)?.pem())?;
            std::fs::write(&key, pair.serialize_pem())?;
            pair
        }
    };
    let issuer = Issuer::new(params, pair);
    for name in names {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![(*name).to_owned(), "localhost".into(), "127.0.0.1".into()])?;
        params.distinguished_name.push(DnType::CommonName, *name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(dir.join(format!("{name}-key.pem")), key.serialize_pem())?;
    }
    Ok(())
}

/// What the command line says.
struct Settings {
    config: Config,
    client: SocketAddr,
    via: Vec<String>,
    from: Option<PathBuf>,
}

fn settings(words: &[&str]) -> Result<Settings, Failure> {
    let mut values: HashMap<&str, &str> = HashMap::new();
    let (mut sets, mut faults) = (Vec::new(), Vec::new());
    for pair in words.chunks(2) {
        match pair {
            ["--set", set] => sets.push(set.split_once('=').ok_or("--set wants NAME=NUMBER")?),
            ["--fault", fault] => faults.push(*fault),
            [
                name @ ("--data" | "--name" | "--peer" | "--client" | "--tls" | "--advertise" | "--via" | "--from"),
                value,
            ] => {
                if values.insert(name, value).is_some() {
                    return Err(format!("{name} is given twice").into());
                }
            }
            other => return Err(format!("not understood: {}", other.join(" ")).into()),
        }
    }
    let get = |name: &str| values.get(name).copied().ok_or_else(|| format!("{name} is missing"));
    let address = |name: &str| -> Result<SocketAddr, Failure> {
        get(name)?.parse().map_err(|e| format!("{name} {}: {e}", values[name]).into())
    };
    let (name, peer, client) = (get("--name")?, address("--peer")?, address("--client")?);
    let advertise = values.get("--advertise").map_or_else(|| peer.to_string(), |a| (*a).to_owned());
    let tls = tls_files(Path::new(get("--tls")?), name)?;
    let mut config = Config::new(PathBuf::from(get("--data")?), name, peer, advertise, client.to_string(), tls);
    for (what, number) in sets {
        set(&mut config, what, number.parse().map_err(|e| format!("{what}={number}: {e}"))?)?;
    }
    for fault in faults {
        config.faults.set(fault)?;
    }
    let via = values.get("--via").map(|v| v.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let from = values.get("--from").map(PathBuf::from);
    Ok(Settings { config, client, via, from })
}

fn set(config: &mut Config, what: &str, number: u64) -> Result<(), Failure> {
    let (timing, limits) = (&mut config.timing, &mut config.limits);
    let ms = Duration::from_millis(number);
    match what {
        "heartbeat-ms" => timing.heartbeat = ms,
        "election-min-ms" => timing.election_min = ms,
        "election-max-ms" => timing.election_max = ms,
        "write-timeout-ms" => timing.write_timeout = ms,
        "read-timeout-ms" => timing.read_timeout = ms,
        "snapshot-entries" => limits.snapshot_entries = number,
        "keep-log-entries" => limits.keep_log_entries = number,
        "keep-history-s" => limits.keep_history = Duration::from_secs(number),
        "max-watches" => limits.max_watches = usize::try_from(number)?,
        "watch-events" => limits.watch_events = usize::try_from(number)?,
        "watch-max-lag" => limits.watch_max_lag = number,
        "max-pending-writes" => limits.max_pending_writes = usize::try_from(number)?,
        "min-free-mib" => limits.min_free_bytes = number << 20,
        "reserve-mib" => limits.reserve_bytes = number << 20,
        "feature-level" => config.feature_level = u32::try_from(number)?,
        _ => return Err(format!("--set {what}: there is no such number").into()),
    }
    Ok(())
}

fn run(how: &str, words: &[&str]) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let settings = settings(words)?;
    if how == "restore" {
        return restore(&settings);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(how, settings))
}

fn restore(settings: &Settings) -> Result<(), Failure> {
    let Settings { config, from, .. } = settings;
    let target = RestoreTarget {
        data_dir: config.data_dir.clone(),
        name: config.name.clone(),
        peer_address: config.advertise.clone(),
        client_address: config.client_address.clone(),
    };
    let from = from.as_ref().ok_or("--from is missing: restore makes a member of a backup")?;
    let begun = Store::restore_with(from, &target, &config.faults)?;
    println!("restored revision={} former={}", begun.revision, begun.former_revision);
    Ok(())
}

async fn serve(how: &str, settings: Settings) -> Result<(), Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let Settings { config, client, via, .. } = settings;
    let tls = config.tls.clone();
    let (name, peer) = (config.name.clone(), config.listen);
    let store = match how {
        "bootstrap" => Store::bootstrap(config).await?,
        "join" => join(config, &via).await?,
        _ => Store::open(config).await?,
    };
    let port = port::serve(store.clone(), client, &tls).await?;
    println!("ready name={name} id={} peer={peer} client={}", store.status().id, port.address());
    let failed = tokio::select! {
        _ = term.recv() => None,
        _ = int.recv() => None,
        why = store.failed() => Some(why),
    };
    if let Some(why) = failed {
        return Err(why.into());
    }
    // Whoever leads next is known before clients are sent away, so that they need not wait for it.
    if let Err(error) = store.transfer_leadership().await {
        tracing::info!(%error, "leadership is not handed over");
    }
    port.stop().await;
    Ok(store.shutdown().await?)
}

/// Asks members for admission, one after the other, and joins.
async fn join(config: Config, via: &[String]) -> Result<Store, Failure> {
    if Store::has_data(&config.data_dir)? {
        return Err(format!("{} already holds a member: open it", config.data_dir.display()).into());
    }
    let member = NewMember {
        name: config.name.clone(),
        peer_address: config.advertise.clone(),
        client_address: config.client_address.clone(),
        feature_level: config.feature_level,
    };
    let mut failure: Failure = "--via is missing: join asks a member for admission".into();
    for address in via {
        let admitted = async { Client::connect(address, &config.tls).await?.add_member(member.clone()).await };
        match admitted.await {
            Ok(grant) => return Ok(Store::join(config, grant).await?),
            Err(error) => failure = format!("{address}: {error}").into(),
        }
    }
    Err(failure)
}
