//! `trictl get`.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::api::{Call, TABLES};
use super::discovery::Resource;
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::print::jsonpath::{Path, compare};
use super::print::table::{self, Aligner, Look};
use super::print::{Format, emit};
use super::session::Session;
use super::targets::{self, Query, Selection, Target};

mod watch;

/// Display one or many resources.
#[derive(Debug, Clone, Default, Args)]
pub struct GetArgs {
    /// TYPE[,TYPE...] [NAME...] or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Output format: wide, json, yaml, name, jsonpath=..., custom-columns=...
    #[arg(short, long)]
    pub output: Option<String>,
    /// List the objects of all namespaces
    #[arg(short = 'A', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub all_namespaces: bool,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector
    #[arg(long)]
    pub field_selector: Option<String>,
    /// After listing, watch for changes
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub watch: bool,
    /// Watch for changes without listing first
    #[arg(long)]
    pub watch_only: bool,
    /// With a watch, tell what happened to each object
    #[arg(long)]
    pub output_watch_events: bool,
    /// Show all labels as the last column
    #[arg(long)]
    pub show_labels: bool,
    /// Show these labels as columns
    #[arg(short = 'L', long, value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Show the kind in front of names
    #[arg(long)]
    pub show_kind: bool,
    /// Keep managedFields in JSON and YAML
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Do not print heads
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub no_headers: bool,
    /// Sort by this jsonpath
    #[arg(long)]
    pub sort_by: Option<String>,
    /// Objects that are not there are no error
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub ignore_not_found: bool,
    /// Objects per page
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u32,
    /// Raw URI to request
    #[arg(long)]
    pub raw: Option<String>,
    /// Get this subresource instead (status, scale)
    #[arg(long)]
    pub subresource: Option<String>,
}

impl GetArgs {
    fn selection(&self) -> Selection {
        Selection {
            labels: self.selector.clone(),
            fields: self.field_selector.clone(),
            all_namespaces: self.all_namespaces,
            all: false,
        }
    }
}

/// What is shown together: one type's objects.
struct Group {
    resource: Arc<Resource>,
    calls: Vec<Call>,
    listed: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &GetArgs) -> Result<()> {
    if let Some(path) = &args.raw {
        let bytes = session.api.bytes(&Call::get(path.clone()).accept("application/json, */*")).await?;
        return emit(&String::from_utf8_lossy(&bytes));
    }
    let format = Format::parse(args.output.as_deref())?;
    let (groups, several, mut failures) = groups(session, args).await?;
    if args.watch || args.watch_only {
        return watch::run(session, args, &format, groups).await;
    }
    let outcome = if format.is_table() {
        tables(session, args, &format, &groups, several, &mut failures).await
    } else {
        objects(session, args, &format, &groups, &mut failures).await
    };
    if let Err(error) = outcome {
        failures.push(error);
    }
    CtlError::gather(failures)
}

async fn groups(session: &Session, args: &GetArgs) -> Result<(Vec<Group>, bool, Vec<CtlError>)> {
    let selection = args.selection();
    let mut groups: Vec<Group> = Vec::new();
    if !args.files.is_empty() {
        let (found, failures) = targets::from_files(session, &args.files).await?;
        for target in found {
            let call = Call::get(with_subresource(target.path(), args));
            match groups.last_mut() {
                Some(group) if group.resource == target.resource => group.calls.push(call),
                _ => groups.push(Group { resource: target.resource.clone(), calls: vec![call], listed: false }),
            }
        }
        let several = groups.len() > 1;
        return Ok((groups, several, failures));
    }
    if args.words.is_empty() {
        return Err(CtlError::Plain(
            "You must specify the type of resource to get. Use \"trictl api-resources\" for a complete list of \
             supported resources.\n\nerror: Required resource not specified."
                .to_owned(),
        ));
    }
    let discovery = session.discovery().await?;
    let (queries, several) = targets::parse(&discovery, &args.words)?;
    for query in queries {
        groups.push(match query {
            Query::Every(resource) => {
                let call = Call::get(targets::scope(session, &resource, &selection))
                    .query_some("labelSelector", selection.labels.as_deref())
                    .query_some("fieldSelector", selection.fields.as_deref());
                Group { resource, calls: vec![call], listed: true }
            }
            Query::Named(_, _) if selection.labels.is_some() => {
                return Err(CtlError::plain("name cannot be provided when a selector is specified"));
            }
            Query::Named(resource, _) if args.all_namespaces && resource.namespaced => {
                return Err(CtlError::plain("a resource cannot be retrieved by name across all namespaces"));
            }
            Query::Named(resource, names) => {
                let path = |name: &String| resource.object_path(Some(&session.namespace), name);
                let calls = names.iter().map(|name| Call::get(with_subresource(path(name), args))).collect();
                Group { resource, calls, listed: false }
            }
        });
    }
    Ok((groups, several, Vec::new()))
}

fn with_subresource(path: String, args: &GetArgs) -> String {
    match &args.subresource {
        Some(subresource) => format!("{path}/{subresource}"),
        None => path,
    }
}

fn look(args: &GetArgs, format: &Format, resource: &Resource, several: bool) -> Look {
    Look {
        wide: matches!(format, Format::Wide),
        namespace: args.all_namespaces && resource.namespaced,
        labels: args.show_labels,
        label_columns: args.label_columns.clone(),
        no_headers: args.no_headers,
        kind: (several || args.show_kind).then(|| resource.label()),
    }
}

async fn tables(
    session: &Session,
    args: &GetArgs,
    format: &Format,
    groups: &[Group],
    several: bool,
    failures: &mut Vec<CtlError>,
) -> Result<()> {
    let mut printed = false;
    for group in groups {
        let look = look(args, format, &group.resource, several);
        let (columns, mut rows) = table_of(session, args, group, failures).await;
        if let Some(path) = &args.sort_by {
            sort(&mut rows, &Path::relaxed(path)?, |row| &row["object"]);
        }
        if rows.is_empty() {
            continue;
        }
        let mut lines = Vec::with_capacity(rows.len() + 1);
        if !look.no_headers {
            lines.push(table::heads(&columns, &look));
        }
        lines.extend(rows.iter().map(|row| table::row(&columns, row, &look)));
        let gap = if printed && !look.no_headers { "\n" } else { "" };
        emit(&format!("{gap}{}", Aligner::default().render(&lines)))?;
        printed = true;
    }
    if !printed && failures.is_empty() && !args.ignore_not_found {
        let namespaced = groups.iter().any(|group| group.resource.namespaced);
        if args.all_namespaces || !namespaced {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {} namespace.", session.namespace);
        }
    }
    Ok(())
}

/// Columns and rows of a group, gathered over its calls and their pages.
async fn table_of(
    session: &Session,
    args: &GetArgs,
    group: &Group,
    failures: &mut Vec<CtlError>,
) -> (Vec<Value>, Vec<Value>) {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for call in &group.calls {
        let mut next = String::new();
        loop {
            let mut call = call.clone().accept(TABLES);
            if group.listed {
                call = call.query("limit", args.chunk_size).query_some("continue", Some(&next));
            }
            // Sorting needs more than the metadata that tables carry.
            if args.sort_by.is_some() {
                call = call.query("includeObject", "Object");
            }
            let answer = match session.api.json(&call).await {
                Ok(answer) => answer,
                Err(error) if error.is_not_found() && args.ignore_not_found => break,
                Err(error) => {
                    failures.push(error);
                    break;
                }
            };
            let mut answer = as_table(answer);
            if columns.is_empty() {
                columns = array(answer["columnDefinitions"].take());
            }
            rows.extend(array(answer["rows"].take()));
            next = answer["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if next.is_empty() {
                break;
            }
        }
    }
    (columns, rows)
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Servers may ignore the wish for a table.
fn as_table(answer: Value) -> Value {
    if answer["kind"] == "Table" {
        return answer;
    }
    let objects = match answer["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![answer.clone()],
    };
    let mut table = table::fallback(&objects, jiff::Timestamp::now());
    table["metadata"] = answer["metadata"].clone();
    table
}

fn sort(values: &mut [Value], path: &Path, part: impl Fn(&Value) -> &Value) {
    values.sort_by(|left, right| {
        let key = |value: &Value| path.find(part(value)).first().map(|found| (*found).clone());
        match (key(left), key(right)) {
            (Some(left), Some(right)) => natural(&left, &right),
            (left, right) => left.is_some().cmp(&right.is_some()),
        }
    });
}

/// Quantities and numbers by size, texts by their order.
fn natural(left: &Value, right: &Value) -> std::cmp::Ordering {
    compare(left, right).unwrap_or_else(|| left.to_string().cmp(&right.to_string()))
}

async fn objects(
    session: &Session,
    args: &GetArgs,
    format: &Format,
    groups: &[Group],
    failures: &mut Vec<CtlError>,
) -> Result<()> {
    let mut found: Vec<(Arc<Resource>, Value)> = Vec::new();
    let single = groups.len() == 1 && !groups[0].listed && groups[0].calls.len() == 1;
    for group in groups {
        for call in &group.calls {
            let objects = if group.listed {
                targets::list(session, &group.resource, &args.selection()).await
            } else {
                session.api.json(call).await.map(|object| vec![object])
            };
            match objects {
                Ok(objects) => found.extend(objects.into_iter().map(|mut object| {
                    targets::stamp(&mut object, &group.resource);
                    if !args.show_managed_fields {
                        hide_managed_fields(&mut object);
                    }
                    (group.resource.clone(), object)
                })),
                Err(error) if error.is_not_found() && args.ignore_not_found => {}
                Err(error) => failures.push(error),
            }
        }
    }
    if let Some(path) = &args.sort_by {
        let path = Path::relaxed(path)?;
        found.sort_by(|left, right| {
            let key = |pair: &(Arc<Resource>, Value)| path.find(&pair.1).first().map(|found| (*found).clone());
            natural(&key(left).unwrap_or_default(), &key(right).unwrap_or_default())
        });
    }
    if matches!(format, Format::Name) {
        let lines: Vec<String> =
            found.into_iter().map(|(resource, object)| targets::of_object(&resource, object).label() + "\n").collect();
        return emit(&lines.concat());
    }
    if single {
        return match found.first() {
            Some((resource, object)) => emit(&rendered(args, format, object, &resource.label())?),
            None => Ok(()),
        };
    }
    let items: Vec<Value> = found.into_iter().map(|(_, object)| object).collect();
    if items.is_empty() && !failures.is_empty() {
        return Ok(());
    }
    let list = json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}});
    emit(&rendered(args, format, &list, "list")?)
}

fn rendered(args: &GetArgs, format: &Format, object: &Value, label: &str) -> Result<String> {
    let text = format.render(object, label)?;
    match format {
        Format::Columns(_) if args.no_headers => {
            Ok(text.split_once('\n').map(|(_, rest)| rest).unwrap_or("").to_owned())
        }
        _ => Ok(text),
    }
}

/// managedFields are for machines.
pub fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
}

/// Prints one object the way other verbs' `-o` asks for; tables become `kind/name done`.
pub fn show_result(target: &Target, object: &Value, format: &Format, done: &str) -> Result<()> {
    match format {
        Format::Table | Format::Wide => emit(&format!("{} {done}\n", target.label())),
        Format::Name => emit(&format!("{}\n", target.label())),
        _ => {
            let mut object = object.clone();
            targets::stamp(&mut object, &target.resource);
            hide_managed_fields(&mut object);
            emit(&format.render(&object, &target.resource.label())?)
        }
    }
}
