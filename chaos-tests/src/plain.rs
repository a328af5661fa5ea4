//! Takes out of two clients' outputs what cannot be the same.

/// The text with times, ages, uids and versions of objects replaced, and without the lines that klog writes.
pub fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        // Complaints of client-go's discovery cache, which come several times over.
        if line.contains("memcache.go") {
            continue;
        }
        let line = match line.strip_prefix('W').map(|rest| rest.split_once(".go:")) {
            Some(Some((_, rest))) => format!("W {}", rest.split_once("] ").map_or(rest, |(_, rest)| rest)),
            _ => line.to_owned(),
        };
        out.push_str(&words(&versions(&line)));
    }
    out
}

/// `resourceVersion: "12"` and its like.
fn versions(line: &str) -> String {
    for name in ["resourceVersion", "Resource Version", "to be 1, was "] {
        if let Some((head, tail)) = line.split_once(name) {
            let digits: String = tail.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            let mut short = String::new();
            for c in digits.chars() {
                if c != '0' || !short.ends_with('0') {
                    short.push(c);
                }
            }
            return format!("{head}{name}{short}");
        }
    }
    line.to_owned()
}

/// Replaces what is recognized at the beginning of words.
fn words(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    let mut inside = false;
    while let Some(c) = rest.chars().next() {
        let found = if inside { None } else { [date, stamp, uid, age].into_iter().find_map(|found| found(rest)) };
        match found {
            Some((length, what)) => {
                out.push_str(what);
                // Columns are as wide as what stands in them.
                rest = rest[length..].trim_start_matches(' ');
                inside = false;
            }
            None => {
                out.push(c);
                inside = c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/');
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// Whether a text begins with a shape: `9` is a digit, `h` a hexadecimal one, `a` a letter, others stand for themselves.
fn shaped(text: &str, shape: &str) -> bool {
    let mut chars = text.chars();
    shape.chars().all(|wanted| {
        chars.next().is_some_and(|c| match wanted {
            '9' => c.is_ascii_digit(),
            'h' => c.is_ascii_hexdigit(),
            'a' => c.is_ascii_alphabetic(),
            wanted => c == wanted,
        })
    })
}

fn date(text: &str) -> Option<(usize, &'static str)> {
    const SHAPE: &str = "aaa, 99 aaa 9999 99:99:99 +0000";
    shaped(text, SHAPE).then_some((SHAPE.len(), "DATE"))
}

fn stamp(text: &str) -> Option<(usize, &'static str)> {
    const SHAPE: &str = "9999-99-99T99:99:99";
    shaped(text, SHAPE).then(|| (text.find('Z').map_or(SHAPE.len(), |end| end + 1), "TIME"))
}

fn uid(text: &str) -> Option<(usize, &'static str)> {
    const SHAPE: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    shaped(text, SHAPE).then_some((SHAPE.len(), "UID"))
}

/// `5s`, `2m3s`, `3d`, at the end of a word.
fn age(text: &str) -> Option<(usize, &'static str)> {
    let mut length = 0;
    for _ in 0..2 {
        let digits = text[length..].len() - text[length..].trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let unit = text[length + digits..].chars().next();
        if digits == 0 || !unit.is_some_and(|unit| matches!(unit, 's' | 'm' | 'h' | 'd' | 'y')) {
            break;
        }
        length += digits + 1;
    }
    let ends = text[length..].chars().next().is_none_or(|c| matches!(c, ' ' | '\n' | ')' | '\t'));
    (length > 0 && ends).then_some((length, "AGE"))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_differs_is_taken_out() {
        for (text, expected) in [
            ("web   1/1   3 (5m2s ago)   44m\n", "web   1/1   3 (AGEago)   AGE\n"),
            ("uid: 11111111-2222-3333-4444-555555555555\n", "uid: UID\n"),
            ("Start Time:  Sat, 21 Nov 2026 10:11:12 +0000\n", "Start Time:  DATE\n"),
            ("t: \"2026-11-21T10:11:12Z\"\n", "t: \"TIME\"\n"),
            ("  resourceVersion: \"1234\"\n", "  resourceVersion: \"0\"\n"),
            ("name-5s and v5m\n", "name-5s and v5m\n"),
            ("E1121 10:11:12 1 memcache.go:265] x\nrest\n", "rest\n"),
            ("W1121 10:11:12.3 1 helpers.go:703] text\n", "W text\n"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
