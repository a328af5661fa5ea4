//! `trictl logs`.

mod follow;

use std::time::Duration;

use clap::Args;
use futures::AsyncBufReadExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::pods;
use super::session::Session;
use super::targets::{self, Selection, Target};
use super::time;

/// Print the logs of containers.
#[derive(Debug, Clone, Default, Args)]
pub struct LogsArgs {
    /// POD or TYPE/NAME, then optionally the container
    pub words: Vec<String>,
    /// Go on as the log grows
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub follow: bool,
    /// The log of the container's previous run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub previous: bool,
    /// Container
    #[arg(short, long)]
    pub container: Option<String>,
    /// All containers of the pods
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub all_containers: bool,
    /// All pods of the workload
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub all_pods: bool,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Lines from the end; -1 is all (10 with a selector)
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Only lines newer than this (5s, 2m, 3h)
    #[arg(long, value_parser = super::flags::duration_text)]
    pub since: Option<String>,
    /// Only lines after this time (RFC 3339)
    #[arg(long)]
    pub since_time: Option<String>,
    /// Put the time in front of lines
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub timestamps: bool,
    /// At most this many bytes
    #[arg(long)]
    pub limit_bytes: Option<i64>,
    /// Put pod and container in front of lines
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub prefix: bool,
    /// Go on with the others if one fails
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub ignore_errors: bool,
    /// How long to wait for a pod of TYPE/NAME
    #[arg(long, default_value = "20s", value_parser = super::flags::duration_text)]
    pub pod_running_timeout: String,
    /// Accepted for kubectl's sake: agents always have certificates of the cluster
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub insecure_skip_tls_verify_backend: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
}

/// What is wrong with the flags, if anything is.
fn validate(args: &LogsArgs) -> Result<()> {
    let plain = |text: String| Err(CtlError::Plain(text));
    if args.since.is_some() && args.since_time.is_some() {
        return plain("at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned());
    }
    let positional = args.words.get(1).filter(|_| args.words.len() == 2);
    if let Some(name) = args.container.as_ref().or(positional).filter(|_| args.all_containers) {
        return plain(format!("--all-containers=true should not be specified with container name {name}"));
    }
    if args.container.is_some() && positional.is_some() {
        return plain("only one of -c or an inline [CONTAINER] arg is allowed".to_owned());
    }
    if args.limit_bytes.is_some_and(|bytes| bytes < 0) {
        return plain("--limit-bytes must be greater than 0".to_owned());
    }
    if args.since.as_ref().is_some_and(|since| since.starts_with('-')) {
        return plain("--since must be greater than 0".to_owned());
    }
    if args.tail.is_some_and(|lines| lines < -1) {
        return plain("--tail must be greater than or equal to -1".to_owned());
    }
    if let Some(time) = &args.since_time
        && time.parse::<jiff::Timestamp>().is_err()
    {
        let layout = "2006-01-02T15:04:05Z07:00";
        return plain(format!("parsing time {time:?} as {layout:?}: cannot parse {time:?} as \"2006\""));
    }
    Ok(())
}

/// A log, and what is put in front of its lines.
struct Source {
    pod: Target,
    container: String,
    prefix: String,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &LogsArgs) -> Result<()> {
    validate(args)?;
    let prefixed = args.prefix || args.all_pods;
    let sources = sources(session, args).await?.into_iter().map(|(pod, container)| {
        let prefix = if prefixed { format!("[pod/{}/{container}] ", pod.name) } else { String::new() };
        Source { pod, container, prefix }
    });
    let sources: Vec<Source> = sources.collect();
    if args.follow && sources.len() > args.max_log_requests {
        return Err(CtlError::plain(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
             --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        )));
    }
    if args.follow && sources.len() > 1 {
        return follow_all(session, args, &sources).await;
    }
    for source in &sources {
        let print = |line: &[u8]| write(&source.prefix, line);
        let outcome = match args.follow {
            true => follow::run(session, args, source, async |line: Vec<u8>| write(&source.prefix, &line)).await,
            false => copy(session, args, source, print).await,
        };
        match outcome {
            Err(error) if args.ignore_errors => eprint!("{}", error.text()),
            other => other?,
        }
    }
    Ok(())
}

async fn sources(session: &Session, args: &LogsArgs) -> Result<Vec<(Target, String)>> {
    let (words, positional) = match args.words.as_slice() {
        [pod, container] if !pod.contains('/') => (std::slice::from_ref(pod), Some(container.as_str())),
        [workload, container] => (std::slice::from_ref(workload), Some(container.as_str())),
        words => (words, None),
    };
    let wanted = args.container.as_deref().or(positional);
    let found = match (&args.selector, words) {
        (Some(selector), []) => {
            let resource = session.discovery().await?.need("pods")?;
            let selection = Selection { labels: Some(selector.clone()), ..Selection::default() };
            let found = targets::list(session, &resource, &selection).await?;
            if found.is_empty() {
                eprintln!("No resources found in {} namespace.", session.namespace);
            }
            found.into_iter().map(|pod| targets::of_object(&resource, pod)).collect()
        }
        (Some(_), _) => {
            return Err(CtlError::Usage("only a selector (-l) or a POD name is allowed".to_owned()));
        }
        (None, [_]) => {
            let mut found = find(session, words, args).await?;
            if found.len() > 1 && !args.all_pods {
                eprintln!("Found {} pods, using pod/{}", found.len(), found[0].name);
                found.truncate(1);
            }
            found
        }
        _ => return Err(CtlError::Usage("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command".to_owned())),
    };
    let mut sources = Vec::new();
    for pod in found {
        let object = pod.object.clone().unwrap_or(Value::Null);
        if args.all_containers {
            sources.extend(pods::containers(&object).into_iter().map(|name| (pod.clone(), name)));
        } else {
            let name = pods::container(&object, wanted, false)?;
            sources.push((pod, name));
        }
    }
    Ok(sources)
}

/// The pods behind a word; a workload's are waited for.
async fn find(session: &Session, words: &[String], args: &LogsArgs) -> Result<Vec<Target>> {
    let timeout = time::duration(&args.pod_running_timeout).map_err(CtlError::Usage)?;
    let begun = std::time::Instant::now();
    loop {
        match pods::find(session, words).await {
            // kubectl looks for a pod of a plain name in a way of its own, and says so.
            Err(error) if error.is_not_found() && matches!(words, [name] if !name.contains('/')) => {
                let (why, namespace) = (error.reason_text(), &session.namespace);
                return Err(CtlError::plain(format!("error from server (NotFound): {why} in namespace {namespace:?}")));
            }
            Err(CtlError::Plain(text)) if text.starts_with("no pods found for") => {
                if begun.elapsed() >= timeout {
                    return Err(CtlError::plain("timed out waiting for the condition"));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            other => return other,
        }
    }
}

fn call(args: &LogsArgs, pod: &Target, container: &str) -> Result<Call> {
    let tail = args.tail.or(args.selector.as_ref().map(|_| 10)).filter(|lines| *lines >= 0);
    let since = match &args.since {
        Some(text) => {
            let since = time::duration(text).map_err(CtlError::Usage)?;
            Some((since.as_secs_f64().ceil() as u64).max(1).to_string())
        }
        None => None,
    };
    let mut call = Call::get(format!("{}/log", pod.path()))
        .accept("*/*")
        .query("container", container)
        .query_some("sinceSeconds", since.as_deref())
        .query_some("sinceTime", args.since_time.as_deref())
        .query_some("tailLines", tail.map(|lines| lines.to_string()).as_deref())
        .query_some("limitBytes", args.limit_bytes.map(|bytes| bytes.to_string()).as_deref());
    for (name, on) in [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)] {
        if on {
            call = call.query(name, "true");
        }
    }
    Ok(call)
}

/// Prints a log as it is now.
async fn copy(
    session: &Session,
    args: &LogsArgs,
    source: &Source,
    mut print: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut stream = session.api.stream(&call(args, &source.pod, &source.container)?).await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        print(&line)?;
    }
}

fn write(prefix: &str, line: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(prefix.as_bytes())?;
    out.write_all(line)?;
    out.flush()?;
    Ok(())
}

/// Follows several logs at once; lines stay whole. The first failure ends it, unless failures are to be ignored.
async fn follow_all(session: &Session, args: &LogsArgs, sources: &[Source]) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(&str, Vec<u8>)>(256);
    let readers = sources.iter().map(|source| {
        let sender = sender.clone();
        async move {
            let print = async |line: Vec<u8>| {
                // The writer has failed, and says so.
                let _ = sender.send((source.prefix.as_str(), line)).await;
                Ok(())
            };
            match follow::run(session, args, source, print).await {
                Err(error) if args.ignore_errors => {
                    eprint!("{}", error.text());
                    Ok(())
                }
                other => other,
            }
        }
    });
    let reading = futures::future::try_join_all(readers.collect::<Vec<_>>());
    // Only the readers hold on to it: the writer ends with the last of them.
    drop(sender);
    let writing = async {
        while let Some((prefix, line)) = receiver.recv().await {
            write(prefix, &line)?;
        }
        Ok::<(), CtlError>(())
    };
    futures::try_join!(async { reading.await.map(drop) }, writing).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_contradict_each_other() {
        let said = |args: LogsArgs| validate(&args).map_err(|error| error.text());
        let word = |text: &str| Some(text.to_owned());
        assert_eq!(said(LogsArgs::default()), Ok(()));
        let both = LogsArgs { since: word("5s"), since_time: word("2026-01-01T00:00:00Z"), ..LogsArgs::default() };
        assert!(said(both).is_err_and(|text| text.contains("at most one of")));
        let all = LogsArgs { all_containers: true, container: word("c"), ..LogsArgs::default() };
        assert!(said(all).is_err_and(|text| text.contains("should not be specified with container name c")));
        let twice = LogsArgs { words: vec!["p".into(), "c".into()], container: word("c"), ..LogsArgs::default() };
        assert!(said(twice).is_err_and(|text| text.contains("only one of -c")));
        assert!(said(LogsArgs { tail: Some(-2), ..LogsArgs::default() }).is_err());
        assert!(said(LogsArgs { since_time: word("yesterday"), ..LogsArgs::default() }).is_err());
        assert_eq!(said(LogsArgs { tail: Some(-1), ..LogsArgs::default() }), Ok(()));
    }
}
