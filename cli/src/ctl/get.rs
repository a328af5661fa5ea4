//! `trictl get`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use serde_json::{Value, json};

use super::api::{Call, TABLES};
use super::discovery::Resource;
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::print::jsonpath::{Path, compare};
use super::print::table::{self, Aligner, Look};
use super::print::{Format, Formats, PrintFlags, Printer, emit};
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
    #[command(flatten)]
    pub print: PrintFlags,
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
    /// Do not print heads
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub no_headers: bool,
    /// Sort by this jsonpath
    #[arg(long)]
    pub sort_by: Option<String>,
    /// Objects that are not there are no error
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub ignore_not_found: bool,
    /// Objects per page; 0 is all at once
    #[arg(long, default_value_t = 500)]
    pub chunk_size: i64,
    /// Have the server return the appropriate table output; without it, names and ages
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub server_print: bool,
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
            chunk: Some(self.chunk_size),
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
        return raw(session, args, path).await;
    }
    if args.output_watch_events && !args.watch && !args.watch_only {
        return Err(CtlError::plain("--output-watch-events option can only be used with --watch or --watch-only"));
    }
    let printer = args.print.printer(Formats::Tables)?;
    if args.words.is_empty() && args.files.is_empty() {
        return Err(CtlError::bare(
            "You must specify the type of resource to get. Use \"trictl api-resources\" for a complete list of \
             supported resources.\n\nerror: Required resource not specified.\nUse \"trictl explain <resource>\" for a \
             detailed description of that resource (e.g. trictl explain pods).\nSee 'trictl get -h' for help and \
             examples",
        ));
    }
    let (groups, failures) = groups(session, args).await?;
    if args.subresource.is_some() && groups.iter().any(|group| group.listed) {
        return Err(CtlError::plain("subresource cannot be used when bulk resources are specified"));
    }
    if args.watch || args.watch_only {
        return watch::run(session, args, &printer, groups).await;
    }
    show(session, args, &printer, &groups, failures).await
}

async fn show(
    session: &Session,
    args: &GetArgs,
    printer: &Printer,
    groups: &[Group],
    mut failures: Vec<CtlError>,
) -> Result<()> {
    let outcome = if printer.is_table() {
        tables(session, args, printer, groups, &mut failures).await
    } else {
        objects(session, args, printer, groups, &mut failures).await
    };
    failures.extend(outcome.err());
    CtlError::gather(failures)
}

async fn raw(session: &Session, args: &GetArgs, path: &str) -> Result<()> {
    if !args.words.is_empty() || !args.files.is_empty() {
        return Err(CtlError::plain("arguments may not be passed when --raw is specified"));
    }
    if args.print.output.as_deref().is_some_and(|output| !output.is_empty()) {
        return Err(CtlError::plain("--raw and --output are mutually exclusive"));
    }
    if !path.starts_with('/') {
        return Err(CtlError::plain(format!(
            "--raw must be a valid URL path: parse {path:?}: invalid URI for request"
        )));
    }
    let bytes = session.api.bytes(&Call::get(path).accept("application/json, */*")).await?;
    emit(&String::from_utf8_lossy(&bytes))
}

async fn groups(session: &Session, args: &GetArgs) -> Result<(Vec<Group>, Vec<CtlError>)> {
    let selection = args.selection();
    let mut groups: Vec<Group> = Vec::new();
    if !args.files.is_empty() {
        if !args.words.is_empty() {
            return Err(CtlError::plain(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            ));
        }
        let (found, failures) = targets::from_files(session, &args.files).await?;
        for target in found {
            let call = Call::get(with_subresource(target.path(), args));
            match groups.last_mut() {
                Some(group) if group.resource == target.resource => group.calls.push(call),
                _ => groups.push(Group { resource: target.resource.clone(), calls: vec![call], listed: false }),
            }
        }
        return Ok((groups, failures));
    }
    let discovery = session.discovery().await?;
    let (queries, _) = targets::parse(&discovery, &args.words)?;
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
    Ok((groups, Vec::new()))
}

fn with_subresource(path: String, args: &GetArgs) -> String {
    match &args.subresource {
        Some(subresource) => format!("{path}/{subresource}"),
        None => path,
    }
}

fn look(args: &GetArgs, printer: &Printer, resource: &Resource, several: bool, namespaces: bool) -> Look {
    Look {
        wide: matches!(printer.format, Format::Wide),
        namespace: args.all_namespaces && (resource.namespaced || namespaces),
        labels: args.show_labels,
        label_columns: args.label_columns.clone(),
        no_headers: args.no_headers,
        kind: (several || args.show_kind).then(|| resource.label()),
    }
}

async fn tables(
    session: &Session,
    args: &GetArgs,
    printer: &Printer,
    groups: &[Group],
    failures: &mut Vec<CtlError>,
) -> Result<()> {
    let mut answers = Vec::new();
    for group in groups {
        let failed = failures.len();
        let (columns, rows) = table_of(session, args, group, failures).await;
        // What failed does not count as a kind that was asked for.
        if group.listed && failures.len() == failed || !rows.is_empty() {
            answers.push((group, columns, rows));
        }
    }
    let several = answers.iter().any(|(group, ..)| group.resource != answers[0].0.resource);
    // What is in no namespace has the column too, behind what is in one.
    let (mut printed, mut namespaces) = (false, false);
    for (group, columns, mut rows) in answers {
        if let Some(path) = &args.sort_by {
            sort(&mut rows, &Path::relaxed(path)?, |row| &row["object"]);
        }
        if rows.is_empty() {
            continue;
        }
        let look = look(args, printer, &group.resource, several, namespaces);
        namespaces |= group.resource.namespaced;
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
        nothing_found(session, args.all_namespaces || !groups.iter().any(|group| group.resource.namespaced));
    }
    Ok(())
}

/// Says that there is nothing.
pub fn nothing_found(session: &Session, everywhere: bool) {
    if everywhere {
        eprintln!("No resources found");
    } else {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
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
            let mut call = call.clone();
            if args.server_print {
                call = call.accept(TABLES);
            }
            if group.listed {
                call = call.query("limit", args.chunk_size).query_some("continue", Some(&next));
            }
            // Sorting needs more than the metadata that tables carry.
            if args.sort_by.is_some() && args.server_print {
                call = call.query("includeObject", "Object");
            }
            let answer = match session.api.json(&call).await {
                Ok(answer) => answer,
                Err(error) if error.is_not_found() && args.ignore_not_found => break,
                Err(error) if group.listed => {
                    failures.push(targets::while_listing(error, &group.resource, &args.selection()));
                    break;
                }
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
    printer: &Printer,
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
                    printer.tidy(&mut object);
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
    if matches!(printer.format, Format::Name) {
        let lines: Vec<String> =
            found.into_iter().map(|(resource, object)| targets::of_object(&resource, object).label() + "\n").collect();
        return emit(&lines.concat());
    }
    if single {
        return match found.first() {
            Some((resource, object)) => emit(&rendered(args, printer, object, &resource.label())?),
            None => Ok(()),
        };
    }
    let items: Vec<Value> = found.into_iter().map(|(_, object)| object).collect();
    if items.is_empty() && !failures.is_empty() {
        return Ok(());
    }
    let list = json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}});
    emit(&rendered(args, printer, &list, "list")?)
}

fn rendered(args: &GetArgs, printer: &Printer, object: &Value, label: &str) -> Result<String> {
    let mut printer = printer.clone();
    if let Format::Columns(columns) = &mut printer.format {
        columns.bare = args.no_headers;
    }
    printer.render(object, label)
}

/// How many documents verbs have printed: from the second on, YAML separates them.
static DOCUMENTS: AtomicUsize = AtomicUsize::new(0);

/// Prints one object as a document of its own.
pub fn emit_document(printer: &Printer, object: &Value, label: &str) -> Result<()> {
    let first = DOCUMENTS.fetch_add(1, Ordering::Relaxed) == 0;
    let text = printer.render(object, label)?;
    match printer.format {
        Format::Yaml if !first => emit(&format!("---\n{text}")),
        _ => emit(&text),
    }
}

/// Prints one object the way other verbs' `-o` asks for; tables become `kind/name done`.
pub fn show_result(target: &Target, object: &Value, printer: &Printer, done: &str) -> Result<()> {
    match printer.format {
        Format::Table | Format::Wide => emit(&format!("{} {done}\n", target.label())),
        Format::Name => emit(&format!("{}\n", target.label())),
        _ => {
            let mut object = object.clone();
            targets::stamp(&mut object, &target.resource);
            printer.tidy(&mut object);
            emit_document(printer, &object, &target.resource.label())
        }
    }
}
