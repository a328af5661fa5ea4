//! Text in elastic columns, and the parts that many descriptions share.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::apply::LAST_APPLIED;
use super::super::pods::selector_of;
use super::super::time;

/// Longest annotation that is shown whole.
const LONGEST: usize = 140;

/// Text with tabs between cells; columns are aligned at the end, as Go's tabwriter does with two spaces.
pub struct Page {
    text: String,
    /// The time that ages count to.
    pub now: Timestamp,
}

impl Page {
    /// An empty page.
    pub fn new(now: Timestamp) -> Page {
        Page { text: String::new(), now }
    }

    /// A line, indented by two spaces per level.
    pub fn line(&mut self, level: usize, text: &str) {
        self.text.push_str(&"  ".repeat(level));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// `Name:<tab>value`
    pub fn field(&mut self, level: usize, name: &str, value: &str) {
        self.line(level, &format!("{name}:\t{value}"));
    }

    /// As [`Page::field`], unless the value is missing or empty.
    pub fn field_some(&mut self, level: usize, name: &str, value: &Value) {
        let text = plain(value);
        if !text.is_empty() {
            self.field(level, name, &text);
        }
    }

    /// Text without indentation or line end.
    pub fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The text with its tabs.
    pub fn unaligned(self) -> String {
        self.text
    }

    /// The aligned text.
    pub fn finish(self) -> String {
        align(&self.text)
    }

    /// `Labels:` with one line each.
    pub fn labels(&mut self, name: &str, labels: &Value) {
        self.multiline("", name, "\t", entries(labels, |key, value| vec![format!("{key}={value}")]));
    }

    /// `Annotations:` with one line each; what apply keeps for itself is left out, and long lines are cut.
    pub fn annotations(&mut self, name: &str, annotations: &Value) {
        let mut shown = annotations.clone();
        if let Some(map) = shown.as_object_mut() {
            map.remove(LAST_APPLIED);
        }
        let lines = |key: &str, value: &str| {
            let value = value.strip_suffix('\n').unwrap_or(value);
            if !value.contains('\n') && key.len() + value.len() + 2 <= LONGEST {
                return vec![format!("{key}: {value}")];
            }
            let lines = value.split('\n').map(|line| format!("  {}", shorten(line, LONGEST - 2)));
            std::iter::once(format!("{key}:")).chain(lines).collect()
        };
        self.multiline("", name, "\t", entries(&shown, lines));
    }

    /// `CreationTimestamp:`
    pub fn created(&mut self, object: &Value) {
        self.field(0, "CreationTimestamp", &time::long(&plain(&object["metadata"]["creationTimestamp"])));
    }

    /// A switch, which may be missing.
    pub fn truth(&self, value: &Value) -> &'static str {
        match value.as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        }
    }

    /// A head with values below each other.
    pub fn multiline(&mut self, before: &str, name: &str, gap: &str, lines: Vec<String>) {
        if lines.is_empty() {
            self.raw(&format!("{before}{name}:{gap}<none>\n"));
        }
        for (index, line) in lines.iter().enumerate() {
            match index {
                0 => self.raw(&format!("{before}{name}:{gap}{line}\n")),
                _ if gap == "\t" => self.raw(&format!("{before}{gap}{line}\n")),
                // Without columns the values stand below each other by spaces.
                _ => self.raw(&format!("{before}{}{line}\n", " ".repeat(name.len() + 1 + gap.len()))),
            }
        }
    }

    /// Name, namespace, labels and annotations.
    pub fn metadata(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.field(0, "Name", &plain(&metadata["name"]));
        self.field_some(0, "Namespace", &metadata["namespace"]);
        self.marked(object);
    }

    /// Name and namespace.
    pub fn named(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.field(0, "Name", &plain(&metadata["name"]));
        self.field(0, "Namespace", &plain(&metadata["namespace"]));
    }

    /// Labels and annotations.
    pub fn marked(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.labels("Labels", &metadata["labels"]);
        self.annotations("Annotations", &metadata["annotations"]);
    }

    /// `Controlled By:` with the owner that controls the object.
    pub fn controller(&mut self, object: &Value) {
        let owners = object["metadata"]["ownerReferences"].as_array();
        let owner = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
        if let Some(owner) = owner {
            self.field(0, "Controlled By", &format!("{}/{}", plain(&owner["kind"]), plain(&owner["name"])));
        }
    }

    /// The table of events.
    pub fn events(&mut self, events: &[Value]) {
        if events.is_empty() {
            self.line(0, "Events:\t<none>");
            return;
        }
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in events {
            let ago = |time: &Value| time::age(time.as_str(), self.now);
            let first = ago(if event["eventTime"].is_null() { &event["firstTimestamp"] } else { &event["eventTime"] });
            let series = &event["series"];
            let age = match event["count"].as_i64().unwrap_or_default() {
                _ if series.is_object() => {
                    format!("{} (x{} over {first})", ago(&series["lastObservedTime"]), plain(&series["count"]))
                }
                0 | 1 => first,
                count => format!("{} (x{count} over {first})", ago(&event["lastTimestamp"])),
            };
            let from = match event["source"]["component"].as_str() {
                Some(component) if !component.is_empty() => component.to_owned(),
                _ => plain(&event["reportingComponent"]),
            };
            let (kind, reason) = (plain(&event["type"]), plain(&event["reason"]));
            let message = plain(&event["message"]);
            self.line(1, &format!("{kind}\t{reason}\t{age}\t{from}\t{}", message.trim()));
        }
    }
}

/// When an event was seen last.
pub fn last_seen(event: &Value) -> &str {
    let times =
        [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"], &event["firstTimestamp"]];
    times.into_iter().find_map(Value::as_str).unwrap_or_default()
}

/// The pairs of a map in order, each as lines.
pub fn entries(map: &Value, lines: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let mut pairs: Vec<(&String, String)> =
        map.as_object().into_iter().flatten().map(|(key, value)| (key, plain(value))).collect();
    pairs.sort();
    pairs.into_iter().flat_map(|(key, value)| lines(key, &value)).collect()
}

/// A scalar without quotes; nothing for null.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// As [`plain`], with `<none>` for nothing.
pub fn or_none(value: &Value) -> String {
    let text = plain(value);
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// As [`plain`], with `<unset>` for nothing.
pub fn or_unset(value: &Value) -> String {
    if value.is_null() { "<unset>".to_owned() } else { plain(value) }
}

/// `[a b]`, as Go prints lists.
pub fn bracketed(list: &Value) -> String {
    format!("[{}]", items(list).map(plain).collect::<Vec<_>>().join(" "))
}

/// A label selector, or what stands for one that selects everything.
pub fn label_selector(selector: &Value, none: &str) -> String {
    selector_of(&json!({"spec": {"selector": selector}})).unwrap_or_else(|| none.to_owned())
}

/// Text of at most so many bytes, with dots if more was there.
pub fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}...", &text[..end])
}

/// The entries of a map, by their keys.
pub fn in_order(map: &Value) -> Vec<(&String, &Value)> {
    let mut entries: Vec<(&String, &Value)> = map.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// The items of a list, or nothing.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether a list has items.
pub fn some(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty())
}

/// Aligns cells that tabs end: a column's width holds for neighbouring lines that have it.
fn align(text: &str) -> String {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|_| Vec::new()).collect();
    column(&lines, &mut widths, 0, 0, lines.len());
    let mut out = String::with_capacity(text.len() * 2);
    for (line, widths) in lines.iter().zip(&widths) {
        for (index, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if index + 1 < line.len() {
                let width = widths.get(index).copied().unwrap_or_default();
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

fn column(lines: &[Vec<&str>], widths: &mut [Vec<usize>], at: usize, from: usize, to: usize) {
    let mut line = from;
    while line < to {
        if lines[line].len() <= at + 1 {
            line += 1;
            continue;
        }
        let begin = line;
        let mut width = 0;
        while line < to && lines[line].len() > at + 1 {
            width = width.max(lines[line][at].chars().count() + 2);
            line += 1;
        }
        widths[begin..line].iter_mut().for_each(|widths| widths.push(width));
        column(lines, widths, at + 1, begin, line);
    }
}
