//! The list of exceptions.

use std::path::Path;

use crate::Finding;

/// `RULE PLACE REASON`
struct Entry {
    rule: String,
    place: String,
    line: String,
}

pub struct Exceptions {
    entries: Vec<Entry>,
}

impl Exceptions {
    pub fn read(root: &Path) -> Exceptions {
        let text = std::fs::read_to_string(root.join("chaos-tests/tests/tidy/exceptions.txt")).unwrap();
        Exceptions::parse(&text)
    }

    fn parse(text: &str) -> Exceptions {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let entries = lines
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let mut next = || words.next().unwrap_or_default().to_owned();
                let (rule, place, reason) = (next(), next(), next());
                assert!(reason.len() >= 15, "an exception needs a reason: {line}");
                Entry { rule, place, line: line.to_owned() }
            })
            .collect();
        Exceptions { entries }
    }

    /// What is left of the findings, and the entries for these rules that matched nothing.
    pub fn apply(&self, rules: &[&str], findings: Vec<Finding>) -> (Vec<Finding>, Vec<String>) {
        let covers = |entry: &Entry, finding: &Finding| entry.rule == finding.rule && entry.place == finding.place;
        let mine = self.entries.iter().filter(|entry| rules.contains(&entry.rule.as_str()));
        let unused = mine.filter(|entry| !findings.iter().any(|f| covers(entry, f))).map(|e| e.line.clone()).collect();
        let open = findings.into_iter().filter(|f| !self.entries.iter().any(|entry| covers(entry, f))).collect();
        (open, unused)
    }
}

#[test]
fn exceptions_cover_and_expire() {
    let list = Exceptions::parse(
        "# comment\nfile a.rs it is a table of upstream's facts\nfile b.rs it was long once, long ago\n",
    );
    let findings = vec![Finding::new("file", "a.rs", "x"), Finding::new("doc", "a.rs", "y")];
    let (open, unused) = list.apply(&["file", "doc"], findings);
    assert_eq!(open, vec![Finding::new("doc", "a.rs", "y")]);
    assert_eq!(unused, vec!["file b.rs it was long once, long ago".to_owned()]);
}
