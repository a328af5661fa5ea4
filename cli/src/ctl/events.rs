//! `trictl events`.

use std::time::Duration;

use clap::Args;
use futures::AsyncBufReadExt;
use serde_json::{Value, json};

use super::api::Call;
use super::errors::{CtlError, Result};
use super::print::table::Aligner;
use super::print::{Format, Formats, PrintFlags, Printer, emit};
use super::session::Session;
use super::time;

/// List events.
#[derive(Debug, Clone, Default, Args)]
pub struct EventsArgs {
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Objects per page; 0 is all at once
    #[arg(long, default_value_t = 500)]
    pub chunk_size: i64,
    /// Only events about this object: TYPE/NAME
    #[arg(long = "for", default_value = "", hide_default_value = true)]
    pub about: String,
    /// Do not print heads
    #[arg(long)]
    pub no_headers: bool,
    /// Only events of these types: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    pub types: Vec<String>,
    /// After listing, watch for more
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub print: PrintFlags,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &EventsArgs) -> Result<()> {
    if args.types.iter().any(|kind| !["normal", "warning"].contains(&kind.to_lowercase().as_str())) {
        return Err(CtlError::plain("valid --types are Normal or Warning"));
    }
    let printer = args.print.printer(Formats::Objects)?;
    let mut selector = String::new();
    if !args.about.is_empty() {
        let Some((kind, name)) = args.about.split_once('/') else {
            return Err(CtlError::plain("--for must be in resource/name form"));
        };
        let discovery = session.discovery().await?;
        let resource = discovery.need(kind).map_err(|error| CtlError::bare(error.reason_text()))?;
        selector = format!(
            "involvedObject.kind={},involvedObject.name={name},involvedObject.apiVersion={}",
            resource.kind,
            resource.api_version()
        );
    }
    let path = match args.all_namespaces {
        true => "/api/v1/events".to_owned(),
        false => format!("/api/v1/namespaces/{}/events", session.namespace),
    };
    let (mut events, version) = list(session, args, &path, &selector).await?;
    events.sort_by_key(|event| super::describe::last_seen(event).to_owned());
    let mut view = View { args, printer, aligner: Aligner::default(), heads_shown: args.no_headers };
    if args.watch {
        return view.follow(session, events, &path, &selector, version).await;
    }
    if events.is_empty() {
        match args.all_namespaces {
            true => eprintln!("No events found."),
            false => eprintln!("No events found in {} namespace.", session.namespace),
        }
        return Ok(());
    }
    view.show_all(events)
}

async fn list(session: &Session, args: &EventsArgs, path: &str, selector: &str) -> Result<(Vec<Value>, String)> {
    let (mut events, mut next) = (Vec::new(), String::new());
    loop {
        let call = Call::get(path)
            .query_some("fieldSelector", Some(selector))
            .query("limit", args.chunk_size)
            .query_some("continue", Some(&next));
        let mut page = session.api.json(&call).await?;
        let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        events.extend(items.into_iter().filter(|event| wanted(args, event)));
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            return Ok((events, page["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()));
        }
    }
}

fn wanted(args: &EventsArgs, event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap_or_default();
    args.types.is_empty() || args.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind))
}

struct View<'a> {
    args: &'a EventsArgs,
    printer: Printer,
    aligner: Aligner,
    heads_shown: bool,
}

impl View<'_> {
    fn show_all(&mut self, events: Vec<Value>) -> Result<()> {
        match self.printer.format {
            Format::Table | Format::Wide => {
                let rows = events.iter().map(|event| self.row(event)).collect();
                self.lines(rows)
            }
            Format::Name => emit(&events.iter().map(name).collect::<String>()),
            _ => {
                let items: Vec<Value> = events.into_iter().map(|event| self.stamped(event)).collect();
                let list = json!({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": items});
                emit(&self.printer.render(&list, "events")?)
            }
        }
    }

    fn stamped(&self, event: Value) -> Value {
        let mut stamped = json!({"kind": "Event", "apiVersion": "v1"});
        if let (Value::Object(into), Value::Object(from)) = (&mut stamped, event) {
            into.extend(from.into_iter().filter(|(key, _)| key != "kind" && key != "apiVersion"));
        }
        self.printer.tidy(&mut stamped);
        stamped
    }

    fn show_one(&mut self, event: Value) -> Result<()> {
        match self.printer.format {
            Format::Table | Format::Wide => {
                let row = self.row(&event);
                self.lines(vec![row])
            }
            Format::Name => emit(&name(&event)),
            _ => super::get::emit_document(&self.printer, &self.stamped(event), "event"),
        }
    }

    fn lines(&mut self, rows: Vec<Vec<String>>) -> Result<()> {
        let mut lines = Vec::new();
        if !self.heads_shown {
            self.heads_shown = true;
            let heads = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
            let first = self.args.all_namespaces.then_some("NAMESPACE");
            lines.push(first.into_iter().chain(heads).map(str::to_owned).collect());
        }
        lines.extend(rows);
        emit(&self.aligner.render(&lines))
    }

    fn row(&self, event: &Value) -> Vec<String> {
        let now = jiff::Timestamp::now();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let first = event["firstTimestamp"].as_str().or(event["eventTime"].as_str());
        let series = &event["series"];
        let seen = if series.is_object() {
            let last = time::age(series["lastObservedTime"].as_str(), now);
            format!("{last} (x{} over {})", series["count"], time::age(first, now))
        } else if event["count"].as_i64().unwrap_or_default() > 1 {
            let last = time::age(event["lastTimestamp"].as_str(), now);
            format!("{last} (x{} over {})", event["count"], time::age(first, now))
        } else {
            time::age(first, now)
        };
        let object = &event["involvedObject"];
        let mut row = vec![
            seen,
            text(&event["type"]),
            text(&event["reason"]),
            format!("{}/{}", text(&object["kind"]), text(&object["name"])),
            text(&event["message"]).trim().to_owned(),
        ];
        if self.args.all_namespaces {
            row.insert(0, text(&event["metadata"]["namespace"]));
        }
        row
    }

    /// Shows what there is, then what comes, from one master or the next.
    async fn follow(
        &mut self,
        session: &Session,
        events: Vec<Value>,
        path: &str,
        selector: &str,
        mut version: String,
    ) -> Result<()> {
        for event in events {
            self.show_one(event)?;
        }
        loop {
            let call = Call::get(path)
                .query_some("fieldSelector", Some(selector))
                .query("watch", "true")
                .query("allowWatchBookmarks", "true")
                .query_some("resourceVersion", Some(&version));
            match self.stream(session, &call, &mut version).await {
                Err(error) if !error.is_passing() => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn stream(&mut self, session: &Session, call: &Call, version: &mut String) -> Result<()> {
        let mut stream = session.api.stream(call).await?;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let change: Value = serde_json::from_str(&line)
                .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
            let object = &change["object"];
            if change["type"] == "ERROR" {
                return Err(CtlError::Status(Box::new(object.clone())));
            }
            if let Some(newest) = object["metadata"]["resourceVersion"].as_str() {
                *version = newest.to_owned();
            }
            if matches!(change["type"].as_str(), Some("ADDED" | "MODIFIED")) && wanted(self.args, object) {
                self.show_one(object.clone())?;
            }
        }
    }
}

fn name(event: &Value) -> String {
    format!("event/{}\n", event["metadata"]["name"].as_str().unwrap_or_default())
}
