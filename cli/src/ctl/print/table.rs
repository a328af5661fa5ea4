//! Tables: the server's, and aligned columns of our own.

use serde_json::Value;

/// Aligns columns as Go's tabwriter does for kubectl: at least 6 wide, 3 spaces between, none after the last.
#[derive(Debug, Default)]
pub struct Aligner {
    widths: Vec<usize>,
}

impl Aligner {
    /// Renders rows; widths seen before stay in force, so that later rows line up.
    pub fn render(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            for (index, cell) in row.iter().take(row.len().saturating_sub(1)).enumerate() {
                if self.widths.len() <= index {
                    self.widths.push(6);
                }
                self.widths[index] = self.widths[index].max(cell.chars().count() + 3);
            }
        }
        let mut out = String::new();
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                out.push_str(cell);
                if index + 1 < row.len() {
                    out.extend(std::iter::repeat_n(' ', self.widths[index].saturating_sub(cell.chars().count())));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Aligned rows with nothing remembered.
pub fn aligned(rows: &[Vec<String>]) -> String {
    Aligner::default().render(rows)
}

/// What to show of a server's table.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Columns of lower priority too.
    pub wide: bool,
    /// A first column with the namespace.
    pub namespace: bool,
    /// A last column with all labels.
    pub labels: bool,
    /// Columns with chosen labels.
    pub label_columns: Vec<String>,
    /// No head.
    pub no_headers: bool,
    /// Names as `kind/name`.
    pub kind: Option<String>,
}

/// Heads of a server's table.
pub fn heads(columns: &[Value], look: &Look) -> Vec<String> {
    let mut heads = Vec::new();
    if look.namespace {
        heads.push("NAMESPACE".to_owned());
    }
    let shown = columns.iter().filter(|column| shown(column, look));
    heads.extend(shown.map(|column| column["name"].as_str().unwrap_or_default().to_uppercase()));
    for label in &look.label_columns {
        heads.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
    }
    if look.labels {
        heads.push("LABELS".to_owned());
    }
    heads
}

/// One row of a server's table.
pub fn row(columns: &[Value], row: &Value, look: &Look) -> Vec<String> {
    let metadata = &row["object"]["metadata"];
    let mut cells = Vec::new();
    if look.namespace {
        cells.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
    }
    for (index, column) in columns.iter().enumerate() {
        if !shown(column, look) {
            continue;
        }
        let text = cell(&row["cells"][index]);
        let is_name = column["format"] == "name" || (index == 0 && column["name"] == "Name");
        cells.push(match &look.kind {
            Some(kind) if is_name => format!("{kind}/{text}"),
            _ => text,
        });
    }
    for label in &look.label_columns {
        cells.push(metadata["labels"][label].as_str().unwrap_or_default().to_owned());
    }
    if look.labels {
        cells.push(labels(&metadata["labels"]));
    }
    cells
}

/// `a=b,c=d` in order, or `<none>`.
pub fn labels(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn shown(column: &Value, look: &Look) -> bool {
    look.wide || column["priority"].as_i64().unwrap_or_default() == 0
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        // A line break would tear the table.
        Value::String(text) => match text.split_once('\n') {
            Some((first, _)) => format!("{first}..."),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

/// A table such as the server would send, for servers that send none.
pub fn fallback(objects: &[Value], now: jiff::Timestamp) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let metadata = &object["metadata"];
            let age = super::super::time::age(metadata["creationTimestamp"].as_str(), now);
            serde_json::json!({"cells": [metadata["name"], age], "object": object})
        })
        .collect();
    serde_json::json!({
        "kind": "Table",
        "columnDefinitions": [{"name": "Name", "format": "name", "priority": 0}, {"name": "Age", "priority": 0}],
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up_and_stay() {
        let mut aligner = Aligner::default();
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let first = aligner.render(&[row(&["NAME", "AGE"]), row(&["long-name", "5s"])]);
        assert_eq!(first, "NAME        AGE\nlong-name   5s\n");
        assert_eq!(aligner.render(&[row(&["a", "1s"])]), "a           1s\n");
        assert_eq!(aligned(&[row(&["a", "b"])]), "a     b\n");
    }

    #[test]
    fn priority_labels_and_kind() {
        let columns = [
            json!({"name": "Name", "format": "name", "priority": 0}),
            json!({"name": "Ready", "priority": 0}),
            json!({"name": "Node", "priority": 1}),
        ];
        let data =
            json!({"cells": ["p", "1/1", null], "object": {"metadata": {"namespace": "d", "labels": {"a": "b"}}}});
        assert_eq!(row(&columns, &data, &Look::default()), ["p", "1/1"]);
        let look = Look {
            wide: true,
            namespace: true,
            labels: true,
            label_columns: vec!["x/a".into(), "a".into()],
            kind: Some("pod".into()),
            ..Look::default()
        };
        assert_eq!(heads(&columns, &look), ["NAMESPACE", "NAME", "READY", "NODE", "A", "A", "LABELS"]);
        assert_eq!(row(&columns, &data, &look), ["d", "pod/p", "1/1", "<none>", "", "b", "a=b"]);
    }
}
