//! `trictl logs`.

use clap::Args;
use futures::AsyncBufReadExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::pods;
use super::session::Session;
use super::targets::{self, Selection, Target};
use super::{print, time};

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
    #[arg(long)]
    pub all_pods: bool,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Lines from the end; -1 is all (10 with a selector)
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Only lines newer than this (5s, 2m, 3h)
    #[arg(long)]
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
    #[arg(long)]
    pub prefix: bool,
    /// Go on with the others if one fails
    #[arg(long)]
    pub ignore_errors: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &LogsArgs) -> Result<()> {
    if args.since.is_some() && args.since_time.is_some() {
        return Err(CtlError::plain("at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    let sources = sources(session, args).await?;
    if args.follow && sources.len() > args.max_log_requests {
        return Err(CtlError::plain(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
             --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        )));
    }
    if args.follow && sources.len() > 1 {
        return follow_all(session, args, sources).await;
    }
    for (pod, container) in sources {
        let outcome = copy(session, args, &pod, &container).await;
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
        (Some(_), _) => return Err(CtlError::plain("only a selector (-l) or a POD name is allowed")),
        (None, [_]) => {
            let mut found = pods::find(session, words).await?;
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

fn prefix(args: &LogsArgs, pod: &Target, container: &str) -> String {
    if args.prefix { format!("[pod/{}/{container}] ", pod.name) } else { String::new() }
}

async fn copy(session: &Session, args: &LogsArgs, pod: &Target, container: &str) -> Result<()> {
    let mut stream = session.api.stream(&call(args, pod, container)?).await?;
    let prefix = prefix(args, pod, container);
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        write(&prefix, &line)?;
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

/// Follows several logs at once; lines stay whole.
async fn follow_all(session: &Session, args: &LogsArgs, sources: Vec<(Target, String)>) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(String, Vec<u8>)>(256);
    let readers = sources.iter().map(|(pod, container)| {
        let sender = sender.clone();
        async move {
            let mut stream = session.api.stream(&call(args, pod, container)?).await?;
            loop {
                let mut line = Vec::new();
                if stream.read_until(b'\n', &mut line).await? == 0 {
                    return Ok(());
                }
                if sender.send((prefix(args, pod, container), line)).await.is_err() {
                    return Ok(());
                }
            }
        }
    });
    let reading = futures::future::join_all(readers.collect::<Vec<_>>());
    // Only the readers hold on to it: the writer ends with the last of them.
    drop(sender);
    let writing = async {
        while let Some((prefix, line)) = receiver.recv().await {
            write(&prefix, &line)?;
        }
        Ok::<(), CtlError>(())
    };
    let (results, written) = futures::join!(reading, writing);
    written?;
    let failures: Vec<CtlError> = results.into_iter().filter_map(Result::err).collect();
    if args.ignore_errors {
        failures.iter().for_each(|error| eprint!("{}", error.text()));
        return print::emit("");
    }
    CtlError::gather(failures)
}
