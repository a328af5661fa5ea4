//! `trictl top`: what nodes and pods use, if the metrics API is served.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::Value;
use trireme_api::quantity::Quantity;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::print::emit;
use super::print::table::aligned;
use super::session::Session;

const API: &str = "/apis/metrics.k8s.io/v1beta1";
/// Seconds after which a pod should have metrics.
const DELAY: i64 = 120;

/// Of what.
#[derive(Debug, Clone, Subcommand)]
pub enum Top {
    /// Display resource (CPU/memory) usage of nodes
    #[command(visible_aliases = ["nodes", "no"])]
    Node(NodeArgs),
    /// Display resource (CPU/memory) usage of pods
    #[command(visible_aliases = ["pods", "po"])]
    Pod(PodArgs),
}

/// `top node`
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// NAME
    pub words: Vec<String>,
    /// Do not print heads
    #[arg(long)]
    pub no_headers: bool,
    /// Label selector
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Per cent of what nodes have, not of what pods may take
    #[arg(long)]
    pub show_capacity: bool,
    /// Columns for swap too
    #[arg(long)]
    pub show_swap: bool,
    /// Sort by cpu or memory
    #[arg(long, default_value = "", hide_default_value = true)]
    pub sort_by: String,
    /// Accepted for kubectl's sake: JSON is what is asked for
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub use_protocol_buffers: bool,
}

/// `top pod`
#[derive(Debug, Clone, Default, Args)]
pub struct PodArgs {
    /// NAME
    pub words: Vec<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// A line for each container
    #[arg(long)]
    pub containers: bool,
    /// Field selector
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// Do not print heads
    #[arg(long)]
    pub no_headers: bool,
    /// Label selector
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// A column for swap too
    #[arg(long)]
    pub show_swap: bool,
    /// Sort by cpu or memory
    #[arg(long, default_value = "", hide_default_value = true)]
    pub sort_by: String,
    /// A last line with the sum
    #[arg(long)]
    pub sum: bool,
    /// Accepted for kubectl's sake: JSON is what is asked for
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub use_protocol_buffers: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, verb: &Top) -> Result<()> {
    match verb {
        Top::Node(args) => nodes(session, args).await,
        Top::Pod(args) => pods(session, args).await,
    }
}

/// The one name, if there is one, after a look at the other flags.
fn named<'a>(
    words: &'a [String],
    what: &str,
    sort_by: &str,
    selected: bool,
    complaint: &str,
) -> Result<Option<&'a str>> {
    if words.len() > 1 {
        return Err(CtlError::usage(format!("{what} [NAME | -l label]")));
    }
    if !matches!(sort_by, "" | "cpu" | "memory") {
        return Err(CtlError::plain("--sort-by accepts only cpu or memory"));
    }
    let name = words.first().map(String::as_str).filter(|name| !name.is_empty());
    if name.is_some() && selected {
        return Err(CtlError::plain(complaint));
    }
    Ok(name)
}

async fn available(session: &Session) -> Result<()> {
    let groups = session.api.json(&Call::get("/apis")).await?;
    let mut groups = groups["groups"].as_array().into_iter().flatten();
    match groups.any(|group| group["name"] == "metrics.k8s.io") {
        true => Ok(()),
        false => Err(CtlError::plain("Metrics API not available")),
    }
}

/// One object's metrics, or those of a selection.
async fn metrics(
    session: &Session,
    path: String,
    name: Option<&str>,
    labels: &str,
    fields: &str,
) -> Result<Vec<Value>> {
    match name {
        Some(name) => Ok(vec![session.api.json(&Call::get(format!("{path}/{name}"))).await?]),
        None => {
            let call =
                Call::get(path).query_some("labelSelector", Some(labels)).query_some("fieldSelector", Some(fields));
            let mut list = session.api.json(&call).await?;
            Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
        }
    }
}

/// Amounts of what is measured.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu: Quantity,
    memory: Quantity,
    swap: Quantity,
}

impl Usage {
    fn of(value: &Value) -> Usage {
        let amount = |name: &str| Quantity::from_value(&value[name]).unwrap_or_default();
        Usage { cpu: amount("cpu"), memory: amount("memory"), swap: amount("swap") }
    }

    fn and(self, other: Usage) -> Usage {
        Usage { cpu: self.cpu + other.cpu, memory: self.memory + other.memory, swap: self.swap + other.swap }
    }

    fn cells(&self, swap: bool) -> Vec<String> {
        let mi = |amount: &Quantity| format!("{}Mi", amount.value() / (1024 * 1024));
        let mut cells = vec![format!("{}m", self.cpu.milli_value()), mi(&self.memory)];
        cells.extend(swap.then(|| mi(&self.swap)));
        cells
    }
}

/// By what was asked for, the most first, or by name.
fn sort<T>(items: &mut [T], by: &str, usage: impl Fn(&T) -> Usage, name: impl Fn(&T) -> String) {
    items.sort_by(|left, right| match by {
        "cpu" => usage(right).cpu.milli_value().cmp(&usage(left).cpu.milli_value()),
        "memory" => usage(right).memory.value().cmp(&usage(left).memory.value()),
        _ => name(left).cmp(&name(right)),
    });
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

/// Prints a table whose cells all end with a tab, as Go's does.
fn show(mut rows: Vec<Vec<String>>) -> Result<()> {
    rows.iter_mut().for_each(|row| row.push(String::new()));
    emit(&aligned(&rows))
}

async fn nodes(session: &Session, args: &NodeArgs) -> Result<()> {
    let complaint = "only one of NAME or --selector can be provided";
    let name = named(&args.words, "node", &args.sort_by, !args.selector.is_empty(), complaint)?;
    available(session).await?;
    let found = metrics(session, format!("{API}/nodes"), name, &args.selector, "").await?;
    if found.is_empty() {
        return Err(CtlError::plain("metrics not available yet"));
    }
    let nodes = metrics(session, "/api/v1/nodes".to_owned(), name, &args.selector, "").await?;
    let which = if args.show_capacity { "capacity" } else { "allocatable" };
    let available = nodes.iter().map(|node| (text(node, "name"), node["status"][which].clone())).collect();
    show(node_rows(found, available, args))
}

fn node_rows(mut found: Vec<Value>, mut all: BTreeMap<String, Value>, args: &NodeArgs) -> Vec<Vec<String>> {
    sort(&mut found, &args.sort_by, |node| Usage::of(&node["usage"]), |node| text(node, "name"));
    let mut rows = Vec::new();
    if !args.no_headers {
        let mut heads = vec!["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
        heads.extend(args.show_swap.then_some(["SWAP(bytes)", "SWAP(%)"]).into_iter().flatten());
        rows.push(heads.into_iter().map(str::to_owned).collect());
    }
    for node in found {
        let name = text(&node, "name");
        let has = all.remove(&name).unwrap_or_default();
        let (usage, limit) = (Usage::of(&node["usage"]), Usage::of(&has));
        let share = |used: Quantity, of: Quantity| match of.milli_value() {
            0 => "0%".to_owned(),
            of => format!("{}%", (used.milli_value() as f64 / of as f64 * 100.0) as i64),
        };
        let shares = [share(usage.cpu, limit.cpu), share(usage.memory, limit.memory), share(usage.swap, limit.swap)];
        let cells = usage.cells(args.show_swap).into_iter().zip(shares).flat_map(|(used, share)| [used, share]);
        rows.push(std::iter::once(name).chain(cells).collect());
    }
    let columns = if args.show_swap { 6 } else { 4 };
    rows.extend(
        all.into_keys()
            .map(|name| std::iter::once(name).chain(std::iter::repeat_n("<unknown>".to_owned(), columns)).collect()),
    );
    rows
}

async fn pods(session: &Session, args: &PodArgs) -> Result<()> {
    let selected = !args.selector.is_empty() || !args.field_selector.is_empty();
    let complaint = "only one of NAME or selector can be provided";
    let name = named(&args.words, "pod", &args.sort_by, selected, complaint)?;
    available(session).await?;
    let scope = match args.all_namespaces {
        true => String::new(),
        false => format!("/namespaces/{}", session.namespace),
    };
    let path = format!("{API}{scope}/pods");
    let found = metrics(session, path, name, &args.selector, &args.field_selector).await?;
    if found.is_empty() {
        let path = format!("/api/v1{scope}/pods");
        let pods = metrics(session, path, name, &args.selector, &args.field_selector).await?;
        return nothing(session, args, &pods);
    }
    show(pod_rows(found, args))
}

/// Why there are no metrics.
fn nothing(session: &Session, args: &PodArgs, pods: &[Value]) -> Result<()> {
    for pod in pods {
        let created = pod["metadata"]["creationTimestamp"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        let age = created.map_or(0, |at| jiff::Timestamp::now().as_second() - at.as_second());
        if age > DELAY {
            let (namespace, name) = (text(pod, "namespace"), text(pod, "name"));
            let age = super::time::go_duration(std::time::Duration::from_secs(age.unsigned_abs()));
            return Err(CtlError::plain(format!("Metrics not available for pod {namespace}/{name}, age: {age}")));
        }
    }
    if !pods.is_empty() {
        return Err(CtlError::plain("metrics not available yet"));
    }
    match args.all_namespaces {
        true => eprintln!("No resources found"),
        false => eprintln!("No resources found in {} namespace.", session.namespace),
    }
    Ok(())
}

fn containers(pod: &Value) -> Vec<Value> {
    pod["containers"].as_array().cloned().unwrap_or_default()
}

fn pod_rows(mut found: Vec<Value>, args: &PodArgs) -> Vec<Vec<String>> {
    let total = |pod: &Value| containers(pod).iter().fold(Usage::default(), |sum, c| sum.and(Usage::of(&c["usage"])));
    let by_name = |pod: &Value| match args.all_namespaces {
        true => format!("{}/{}", text(pod, "namespace"), text(pod, "name")),
        false => text(pod, "name"),
    };
    sort(&mut found, &args.sort_by, total, by_name);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut heads: Vec<&str> = args.all_namespaces.then_some("NAMESPACE").into_iter().collect();
    heads.extend(args.containers.then_some("POD"));
    heads.extend(["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    heads.extend(args.show_swap.then_some("SWAP(bytes)"));
    let width = heads.len();
    if !args.no_headers {
        rows.push(heads.into_iter().map(str::to_owned).collect());
    }
    for pod in &found {
        let first: Vec<String> = args.all_namespaces.then(|| text(pod, "namespace")).into_iter().collect();
        if !args.containers {
            rows.push([first, vec![text(pod, "name")], total(pod).cells(args.show_swap)].concat());
            continue;
        }
        let mut all = containers(pod);
        let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
        sort(&mut all, &args.sort_by, |container| Usage::of(&container["usage"]), name);
        rows.extend(all.iter().map(|container| {
            let names = vec![text(pod, "name"), name(container)];
            [first.clone(), names, Usage::of(&container["usage"]).cells(args.show_swap)].concat()
        }));
    }
    if args.sum {
        let sum = found.iter().fold(Usage::default(), |sum, pod| sum.and(total(pod))).cells(args.show_swap);
        let empty = vec![String::new(); width - sum.len()];
        rows.push([empty.clone(), vec!["________".to_owned(); sum.len()]].concat());
        rows.push([empty, sum].concat());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_with_their_shares() {
        let metrics = vec![json!({"metadata": {"name": "a"}, "usage": {"cpu": "500m", "memory": "1Gi"}})];
        let all = BTreeMap::from([
            ("a".to_owned(), json!({"cpu": "2", "memory": "4Gi"})),
            ("b".to_owned(), json!({"cpu": "2", "memory": "4Gi"})),
        ]);
        let rows = node_rows(metrics, all, &NodeArgs::default());
        assert_eq!(rows[0], ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
        assert_eq!(rows[1], ["a", "500m", "25%", "1024Mi", "25%"]);
        assert_eq!(rows[2], ["b", "<unknown>", "<unknown>", "<unknown>", "<unknown>"]);
    }

    #[test]
    fn pods_sorted_and_summed() {
        let pod = |name: &str, cpu: &[&str]| {
            let containers: Vec<Value> = cpu
                .iter()
                .map(|cpu| json!({"name": format!("c{cpu}"), "usage": {"cpu": cpu, "memory": "1Mi"}}))
                .collect();
            json!({"metadata": {"name": name, "namespace": "n"}, "containers": containers})
        };
        let found = || vec![pod("a", &["1m"]), pod("b", &["2m", "3m"])];
        let by_cpu = PodArgs { sort_by: "cpu".into(), sum: true, ..PodArgs::default() };
        let rows = pod_rows(found(), &by_cpu);
        assert_eq!(rows[1], ["b", "5m", "2Mi"]);
        assert_eq!(rows[4], ["", "6m", "3Mi"]);
        let each = PodArgs { containers: true, all_namespaces: true, no_headers: true, ..PodArgs::default() };
        assert_eq!(pod_rows(found(), &each)[2], ["n", "b", "c3m", "3m", "1Mi"]);
    }
}
