//! Upstream's operations, and what came of each.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// One operation of upstream's API.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Upstream's name of it.
    pub id: String,
    /// HTTP method.
    pub method: String,
    /// Path with `{name}` and its like.
    pub path: String,
    /// Whether upstream's conformance tests exercise it.
    pub conformance: bool,
    /// What was found; nothing yet.
    pub outcome: Option<std::result::Result<(), String>>,
}

impl Operation {
    /// Group and version, or the first part of the path.
    pub fn group(&self) -> String {
        let parts: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["api", version, ..] => (*version).to_owned(),
            ["apis", group, version, ..] => format!("{group}/{version}"),
            ["api" | "apis", ..] => "discovery".to_owned(),
            _ => "other".to_owned(),
        }
    }

    /// Whether it is served.
    pub fn served(&self) -> bool {
        matches!(self.outcome, Some(Ok(())))
    }
}

/// All operations.
#[derive(Debug)]
pub struct Ledger {
    /// In upstream's order.
    pub operations: Vec<Operation>,
}

impl Ledger {
    /// The operations of versions that are neither alpha nor beta, as upstream's table names their version.
    ///
    /// # Errors
    /// When the table is not there.
    pub fn read(folder: &Path) -> Result<Ledger> {
        let file = folder.join("endpoints.tsv");
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "{}: give the folder with upstream's facts: FACTS=FOLDER (default ../shared/kubernetes)",
                file.display()
            )
        })?;
        let mut operations = Vec::new();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            ensure!(fields.len() == 8, "{}: {line:?} has not eight fields", file.display());
            let unstable = ["alpha", "beta"].iter().any(|word| fields[5].contains(word));
            if !unstable {
                operations.push(Operation {
                    id: fields[0].to_owned(),
                    method: fields[1].to_owned(),
                    path: fields[2].to_owned(),
                    conformance: !fields[7].is_empty(),
                    outcome: None,
                });
            }
        }
        Ok(Ledger { operations })
    }

    /// Whether upstream has an operation.
    pub fn has(&self, method: &str, path: &str) -> bool {
        self.operations.iter().any(|one| one.method == method && one.path == path)
    }

    /// Records what was found of an operation; of one that upstream does not have, nothing. The first failure counts.
    pub fn judge(&mut self, method: &str, path: &str, found: Result<()>) {
        let Some(one) = self.operations.iter_mut().find(|one| one.method == method && one.path == path) else { return };
        let found = found.map_err(|error| format!("{error:#}"));
        if !matches!(one.outcome, Some(Err(_))) {
            one.outcome = Some(found);
        }
    }

    /// Records what was found of putting something where it was read before and after: that counts for both.
    pub fn judge_put<T>(&mut self, path: &str, found: &Result<T>) {
        for method in ["GET", "PUT"] {
            self.judge(method, path, found.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error:#}")));
        }
    }

    /// Served, all, and the same of those that conformance exercises, of each group.
    pub fn groups(&self) -> BTreeMap<String, [usize; 4]> {
        let mut groups: BTreeMap<String, [usize; 4]> = BTreeMap::new();
        for one in &self.operations {
            let counts = groups.entry(one.group()).or_default();
            counts[0] += usize::from(one.served());
            counts[1] += 1;
            counts[2] += usize::from(one.served() && one.conformance);
            counts[3] += usize::from(one.conformance);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn operations_are_counted_by_group_and_a_failure_stays() {
        let folder = tempfile::tempdir().unwrap();
        let table = "id\tmethod\tpath\taction\tgroup\tversion\tkind\tsince\n\
                     a\tGET\t/api/v1/pods\tlist\t\tv1\tPod\t1.9\n\
                     b\tPOST\t/apis/apps/v1/x\tpost\tapps\tv1\tX\t\n\
                     c\tGET\t/apis/apps/v1beta1/x\tlist\tapps\tv1beta1\tX\t\n\
                     d\tGET\t/apis/\t\t\t\t\t1.9\n";
        std::fs::write(folder.path().join("endpoints.tsv"), table).unwrap();
        let mut ledger = Ledger::read(folder.path()).unwrap();
        assert_eq!(ledger.operations.len(), 3);
        ledger.judge("GET", "/api/v1/pods", Ok(()));
        ledger.judge("POST", "/apis/apps/v1/x", Err(anyhow::anyhow!("no")));
        ledger.judge("POST", "/apis/apps/v1/x", Ok(()));
        ledger.judge("GET", "/apis/apps/v1beta1/x", Ok(()));
        ledger.judge_put("/apis/", &Err::<(), _>(anyhow::anyhow!("no")));
        let groups = ledger.groups();
        assert_eq!(groups["v1"], [1, 1, 1, 1]);
        assert_eq!(groups["apps/v1"], [0, 1, 0, 0]);
        assert_eq!(groups["discovery"], [0, 1, 0, 1]);
        assert!(Ledger::read(Path::new("/nowhere")).unwrap_err().to_string().contains("FACTS"));
    }
}
