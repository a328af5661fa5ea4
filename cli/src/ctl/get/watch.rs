//! `trictl get -w`: a list, then its changes, over the masters' fail-over.

use std::time::{Duration, Instant};

use futures::AsyncBufReadExt;
use serde_json::{Value, json};

use super::super::api::{Call, TABLES};
use super::super::errors::{CtlError, Result};
use super::super::print::table::{self, Aligner, Look};
use super::super::print::{Format, Printer, emit, sorted};
use super::super::session::Session;
use super::super::targets;
use super::{GetArgs, Group, array, as_table, look};

/// For how long a broken watch is taken up again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints what the list holds, then every change, until interrupted.
pub(super) async fn run(session: &Session, args: &GetArgs, printer: &Printer, groups: Vec<Group>) -> Result<()> {
    let [group] = groups.as_slice() else {
        return Err(CtlError::plain("you may only specify a single resource type"));
    };
    let [call] = group.calls.as_slice() else {
        super::show(session, args, printer, &groups, Vec::new()).await?;
        return Err(CtlError::plain("you may only watch a single resource or type of resource at a time"));
    };
    let call = if group.listed { call.clone() } else { single(session, args, group)? };
    let mut view = View {
        args,
        printer: watching(args, printer),
        group,
        look: look(args, printer, &group.resource, false, false),
        columns: Vec::new(),
        aligner: Aligner::default(),
        heads_shown: false,
        documents: 0,
        alive: Instant::now(),
    };
    let call = if printer.is_table() && args.server_print { call.accept(TABLES) } else { call };
    let first = session.api.json(&call).await?;
    let mut version = first["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    if !group.listed && items(&first).is_empty() && !args.ignore_not_found {
        // Asked for by name: the same complaint as without a watch.
        session.api.json(&group.calls[0]).await?;
    }
    if args.watch_only {
        if first["kind"] == "Table" {
            view.columns = array(first["columnDefinitions"].clone());
        }
    } else {
        view.show("ADDED", &first)?;
    }
    loop {
        let following = follow(session, &call, &mut version, &mut view);
        let followed = match session.api.timeout() {
            // The limit of a request is one of a watch too.
            Some(limit) => match tokio::time::timeout(limit, following).await {
                Ok(followed) => followed,
                Err(_) => return Ok(()),
            },
            None => following.await,
        };
        match followed {
            Ok(()) => {}
            // The connection broke; another master goes on from the same version.
            Err(error) if error.is_passing() && view.alive.elapsed() < PATIENCE => {
                tracing::debug!(?error, "watch interrupted");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A single object is watched as a list of one.
fn single(session: &Session, args: &GetArgs, group: &Group) -> Result<Call> {
    let name = match args.words.as_slice() {
        [_, name] => name.as_str(),
        [word] => word.split_once('/').map(|(_, name)| name).unwrap_or_default(),
        _ => "",
    };
    if name.is_empty() {
        return Err(CtlError::plain("watch is only supported on individual resources and resource collections"));
    }
    let path = targets::scope(session, &group.resource, &args.selection());
    Ok(Call::get(path).query("fieldSelector", format!("metadata.name={name}")))
}

fn items(list: &Value) -> Vec<Value> {
    let field = if list["kind"] == "Table" { "rows" } else { "items" };
    array(list[field].clone())
}

async fn follow(session: &Session, call: &Call, version: &mut String, view: &mut View<'_>) -> Result<()> {
    let call = call
        .clone()
        .query("watch", "true")
        .query("allowWatchBookmarks", "true")
        .query_some("resourceVersion", Some(version));
    let mut stream = session.api.stream(&call).await?;
    let mut line = String::new();
    loop {
        view.alive = Instant::now();
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let event: Value =
            serde_json::from_str(&line).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
        let object = &event["object"];
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "ERROR" {
            return Err(CtlError::Status(Box::new(object.clone())));
        }
        let metadata =
            if object["kind"] == "Table" { &object["rows"][0]["object"]["metadata"] } else { &object["metadata"] };
        let newest = metadata["resourceVersion"].as_str().or(object["metadata"]["resourceVersion"].as_str());
        if let Some(newest) = newest.filter(|newest| !newest.is_empty()) {
            *version = newest.to_owned();
        }
        if kind != "BOOKMARK" {
            view.show(kind, object)?;
        }
    }
}

struct View<'a> {
    args: &'a GetArgs,
    printer: Printer,
    group: &'a Group,
    look: Look,
    columns: Vec<Value>,
    aligner: Aligner,
    heads_shown: bool,
    documents: usize,
    /// When a watch was last known to work.
    alive: Instant,
}

/// Heads of chosen columns stand above the first object only.
fn watching(args: &GetArgs, printer: &Printer) -> Printer {
    let mut printer = printer.clone();
    if let Format::Columns(columns) = &mut printer.format {
        columns.bare = args.no_headers;
    }
    printer
}

/// Kinds of events, of one width.
fn padded(event: &str) -> String {
    format!("{event:<8}")
}

impl View<'_> {
    fn show(&mut self, event: &str, object: &Value) -> Result<()> {
        if self.printer.is_table() { self.show_table(event, object) } else { self.show_objects(event, object) }
    }

    fn show_table(&mut self, event: &str, object: &Value) -> Result<()> {
        let answer = as_table(object.clone());
        let columns = array(answer["columnDefinitions"].clone());
        if !columns.is_empty() {
            self.columns = columns;
        }
        let rows = array(answer["rows"].clone());
        let mut lines = Vec::new();
        if !self.heads_shown && !self.look.no_headers && !rows.is_empty() {
            self.heads_shown = true;
            let heads = table::heads(&self.columns, &self.look);
            lines.push(self.with_event("EVENT", heads));
        }
        lines
            .extend(rows.iter().map(|row| self.with_event(&padded(event), table::row(&self.columns, row, &self.look))));
        emit(&self.aligner.render(&lines))
    }

    fn with_event(&self, event: &str, mut row: Vec<String>) -> Vec<String> {
        if self.args.output_watch_events {
            row.insert(0, event.to_owned());
        }
        row
    }

    fn show_objects(&mut self, event: &str, object: &Value) -> Result<()> {
        let objects = match object["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![object.clone()],
        };
        for mut object in objects {
            targets::stamp(&mut object, &self.group.resource);
            let mut text = match self.args.output_watch_events {
                // As kubectl does, with everything that the server says.
                true => self.as_event(event, object)?,
                false => {
                    self.printer.tidy(&mut object);
                    self.printer.render(&object, &self.group.resource.label())?
                }
            };
            if matches!(self.printer.format, Format::Yaml) && self.documents > 0 {
                text.insert_str(0, "---\n");
            }
            if let Format::Columns(columns) = &mut self.printer.format {
                columns.bare = true;
            }
            self.documents += 1;
            emit(&text)?;
        }
        Ok(())
    }

    /// The object inside what happened to it; JSON takes one line.
    fn as_event(&self, event: &str, object: Value) -> Result<String> {
        if matches!(self.printer.format, Format::Name) {
            let name = self.printer.render(&object, &self.group.resource.label())?;
            return Ok(format!("{} {name}", padded(event)));
        }
        let event = json!({"type": event, "object": sorted(&object)});
        match self.printer.format {
            Format::Json => Ok(format!("{event}\n")),
            _ => self.printer.render(&event, "event"),
        }
    }
}
