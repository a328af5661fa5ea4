//! `-o custom-columns`.

use serde_json::Value;

use super::super::errors::{CtlError, Result};
use super::gotemplate::go_value;
use super::jsonpath::Path;
use super::table::aligned;

/// Heads with the paths below them.
#[derive(Debug, Clone)]
pub struct Columns {
    columns: Vec<(String, Path)>,
    /// Whether heads are left out.
    pub bare: bool,
}

impl Columns {
    /// Parses `NAME:.metadata.name,RSRC:.metadata.resourceVersion`.
    pub fn parse(text: &str) -> Result<Columns> {
        let mut columns = Vec::new();
        for part in split_commas(text) {
            let Some((head, path)) = part.split_once(':') else {
                return Err(CtlError::plain(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                )));
            };
            columns.push((head.to_owned(), Path::relaxed(path)?));
        }
        Ok(Columns { columns, bare: false })
    }

    /// Parses a file: one line of heads, one line of paths.
    pub fn parse_file(text: &str) -> Result<Columns> {
        let mut lines = text.lines();
        let heads: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        let paths: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        if heads.is_empty() || heads.len() != paths.len() {
            return Err(CtlError::plain(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                heads.len(),
                paths.len()
            )));
        }
        let pairs = heads.into_iter().zip(paths);
        let columns = pairs.map(|(head, path)| Ok((head.to_owned(), Path::relaxed(path)?))).collect::<Result<_>>()?;
        Ok(Columns { columns, bare: false })
    }

    /// The heads.
    pub fn heads(&self) -> Vec<String> {
        self.columns.iter().map(|(head, _)| head.clone()).collect()
    }

    /// One object's row.
    pub fn row(&self, object: &Value) -> Vec<String> {
        let cell = |path: &Path| {
            let found = path.find(object);
            let texts: Vec<String> = found.into_iter().map(go_value).collect();
            if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
        };
        self.columns.iter().map(|(_, path)| cell(path)).collect()
    }

    /// A table of one object or of a list's items.
    pub fn render(&self, object: &Value) -> Result<String> {
        let mut rows = if self.bare { Vec::new() } else { vec![self.heads()] };
        match object["items"].as_array().filter(|_| object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")))
        {
            Some(items) => rows.extend(items.iter().map(|item| self.row(item))),
            None => rows.push(self.row(object)),
        }
        Ok(aligned(&rows))
    }
}

/// Commas inside brackets and quotes do not separate columns.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut quote) = (0usize, None);
    for c in text.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('[' | '(' | '{', None) => depth += 1,
            (']' | ')' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_objects_and_lists() {
        let columns = Columns::parse("NAME:.metadata.name,IMG:{.spec.c[*].image},X:metadata.labels['a,b']").unwrap();
        let pod =
            json!({"metadata": {"name": "p", "labels": {"a,b": "1"}}, "spec": {"c": [{"image": "i"}, {"image": "j"}]}});
        assert_eq!(columns.render(&pod).unwrap(), "NAME   IMG   X\np      i,j   1\n");
        let list = json!({"kind": "List", "items": [{"metadata": {"name": "q", "labels": {}}}]});
        assert_eq!(columns.render(&list).unwrap(), "NAME   IMG      X\nq      <none>   <none>\n");
        assert!(Columns::parse("NAME").is_err());
        assert!(Columns::parse_file("A B\n.a .b\n").is_ok());
        assert!(Columns::parse_file("A B\n.a\n").is_err());
    }
}
