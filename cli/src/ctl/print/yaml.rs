//! YAML as Go's encoder writes it: sorted keys, double quotes only where they are needed, literal blocks.

use serde_json::Value;

/// A document without a leading `---`.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    node(&super::sorted(value), 0, &mut out, Place::Top);
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// At the start of a document.
    Top,
    /// After `key:`.
    AfterKey,
    /// After `- `.
    AfterDash,
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn node(value: &Value, depth: usize, out: &mut String, place: Place) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            if place == Place::AfterKey {
                out.push('\n');
            }
            for (index, (key, value)) in map.iter().enumerate() {
                // The first key of a list's item follows its dash.
                if index > 0 || place != Place::AfterDash {
                    indent(depth, out);
                }
                // A block cannot be a key.
                out.push_str(&if key.contains('\n') { double_quoted(key) } else { scalar(key, depth) });
                out.push(':');
                // Lists are not indented below their key.
                let below = if value.is_array() { depth } else { depth + 2 };
                node(value, below, out, Place::AfterKey);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            if place == Place::AfterKey {
                out.push('\n');
            }
            for (index, item) in items.iter().enumerate() {
                if index > 0 || place != Place::AfterDash {
                    indent(depth, out);
                }
                out.push_str("- ");
                node(item, depth + 2, out, Place::AfterDash);
            }
        }
        leaf => {
            if place == Place::AfterKey {
                out.push(' ');
            }
            let text = match leaf {
                Value::Object(_) => "{}".to_owned(),
                Value::Array(_) => "[]".to_owned(),
                Value::String(text) => {
                    let column = out.len() - out.rfind('\n').map_or(0, |end| end + 1);
                    folded(scalar(text, depth), column, depth)
                }
                other => other.to_string(),
            };
            out.push_str(&text);
            out.push('\n');
        }
    }
}

fn scalar(text: &str, depth: usize) -> String {
    if text.contains('\n') && literal_allowed(text) {
        return literal(text, depth);
    }
    if needs_double_quotes(text) {
        return double_quoted(text);
    }
    if needs_single_quotes(text) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    text.to_owned()
}

/// Column from which on the encoder breaks lines at spaces.
const WIDTH: usize = 80;

/// Breaks what is no literal block at single spaces behind the width, as the encoder does.
fn folded(text: String, column: usize, depth: usize) -> String {
    if text.contains('\n') || column + text.len() <= WIDTH {
        return text;
    }
    let chars: Vec<char> = text.chars().collect();
    let double = text.starts_with('"');
    let (mut out, mut column, mut after_space) = (String::new(), column, false);
    for (at, c) in chars.iter().enumerate() {
        let next_is_space = chars.get(at + 1) == Some(&' ');
        let inside = !text.starts_with(['"', '\'']) || (at > 1 && at + 2 < chars.len());
        if *c == ' ' && !after_space && column > WIDTH && inside && (double || !next_is_space) {
            out.push('\n');
            indent(depth, &mut out);
            column = depth;
            if double && next_is_space {
                out.push('\\');
            }
        } else {
            out.push(*c);
            column += 1;
        }
        after_space = *c == ' ';
    }
    out
}

/// Whether a letter is beyond what the encoder takes for printable: emoji are.
fn is_far(c: char) -> bool {
    u32::from(c) > 0xFFFF
}

fn literal_allowed(text: &str) -> bool {
    let printable = text.chars().all(|c| c == '\n' || !(c.is_control() || is_far(c)));
    // Lines that are blank or end in spaces would not come back the same from every parser.
    printable && !text.split('\n').any(|line| line.ends_with(' '))
}

fn literal(text: &str, depth: usize) -> String {
    let chomp = match text {
        _ if text == "\n" || text.ends_with("\n\n") => "+",
        _ if text.ends_with('\n') => "",
        _ => "-",
    };
    // What begins with space has to say by how much it is indented.
    let hint = if text.starts_with([' ', '\n']) { "2" } else { "" };
    let mut out = format!("|{hint}{chomp}");
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth.max(2), &mut out);
            out.push_str(line);
        }
    }
    out
}

/// Text that would be read as something else than a string.
fn needs_double_quotes(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || is_far(c)) {
        return true;
    }
    let words = ["~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "yes", "Yes", "YES"];
    let more = ["no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "y", "Y", "n", "N", "<<", ".inf", ".nan"];
    if words.contains(&text) || more.contains(&text) {
        return true;
    }
    looks_numeric(text) || looks_like_date(text)
}

fn looks_numeric(text: &str) -> bool {
    let plain = text.replace('_', "");
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    let with_radix = radix
        .iter()
        .any(|(prefix, base)| digits.strip_prefix(prefix).is_some_and(|d| u64::from_str_radix(d, *base).is_ok()));
    // Base 60, which YAML 1.1 knows: 12:30:45.
    let base60 = digits.contains(':') && digits.split(':').all(|part| !part.is_empty() && part.parse::<u32>().is_ok());
    with_radix || base60 || plain.parse::<f64>().is_ok()
}

fn looks_like_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..7].iter().all(u8::is_ascii_digit)
        && bytes[7] == b'-'
        && bytes[8..10].iter().all(u8::is_ascii_digit)
        && (bytes.len() == 10 || matches!(bytes[10], b'T' | b't' | b' '))
}

fn needs_single_quotes(text: &str) -> bool {
    let first_special =
        text.starts_with(['!', '&', '*', '{', '}', '[', ']', ',', '#', '|', '>', '@', '`', '"', '\'', '%']);
    let dash = matches!(text.as_bytes(), [b'-' | b'?' | b':'] | [b'-' | b'?' | b':', b' ', ..]);
    let spaces = text.starts_with(' ') || text.ends_with(' ');
    first_special
        || dash
        || spaces
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.starts_with("---")
        || text.starts_with("...")
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            c if is_far(c) => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn looks_like_gos() {
        let value = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"name": "a", "args": ["-c", "x"],
            "env": []}], "x": {}}, "data": {"t": "true", "n": "10", "e": "", "script": "a\nb\n", "d": "2026-01-02T03:04:05Z"}});
        let expected = "apiVersion: v1\ndata:\n  d: \"2026-01-02T03:04:05Z\"\n  e: \"\"\n  \"n\": \"10\"\n  script: |\n    a\n    b\n  t: \"true\"\nkind: Pod\nspec:\n  containers:\n  - args:\n    - -c\n    - x\n    env: []\n    name: a\n  x: {}\n";
        assert_eq!(document(&value), expected);
    }

    #[test]
    fn long_lines_are_broken_behind_column_80() {
        let value = json!({"a": {"message": format!("{}: {} {}", "x".repeat(60), "y".repeat(20), "z z".repeat(3))}});
        let expected = format!("a:\n  message: '{}: {}\n    z zz zz z'\n", "x".repeat(60), "y".repeat(20));
        assert_eq!(document(&value), expected);
    }

    #[test]
    fn every_text_comes_back() {
        let texts = [
            "",
            " a",
            "a ",
            "a: b",
            "a #b",
            "#a",
            "- a",
            "-",
            "--- a",
            "null",
            "1e3",
            "0x1f",
            "1_000",
            "12:30",
            "'q'",
            "\"q\"",
            "a\tb",
            "a\n",
            "a\n\n",
            "\na",
            "a\n  b",
            "\n\na",
            " a\nb",
            "  a\n\n  b\n",
            "\n",
            "\n\n",
            "\na\n\n",
            "a\tb\nc",
            "a \nb",
            "{x}",
            "[x]",
            "*",
            "&a",
            "!t",
            "%",
            "@",
            "`",
            "a:",
            "?",
            "? x",
            "=",
            "~",
            "yes",
            "\u{7}",
            "back\\slash",
            ".5",
            "+1",
            "ünïcode",
            "\u{1F600}",
            "a\u{1F600}\nb",
            "\u{b}\u{1b}",
            "a\r\nb",
            "key: |\n  x\n",
            ":",
            "|",
            "-1",
        ];
        for text in texts {
            let value = json!({"k": [text, {"n": text}], text: 1});
            let read: Value = serde_norway::from_str(&document(&value)).unwrap();
            assert_eq!(read, super::super::sorted(&value), "{text:?}\n{}", document(&value));
        }
    }
}
