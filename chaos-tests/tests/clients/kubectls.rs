//! Every verb of kubectl, with the oldest and the newest kubectl of this machine (with all, if `TRIREME_ALL_KUBECTLS` is
//! set): what a user types, and what is to be seen, in `kubectl.txt`.
//!
//! A line with `$ ` is a command for a shell, with `K` for kubectl; what follows, up to an empty line, is what it prints,
//! errors too, and its exit code if that is not 0. What cannot be the same twice (ages, uids, versions) is made the same.
//! `$ <27 ` and `$ >=27 ` are for versions of kubectl below 1.27, and from it on. With `TRIREME_REWRITE=1` the file is
//! written anew from what the newest kubectl that a command is for prints.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trireme_chaos_tests::kubectl::Kubectl;
use trireme_chaos_tests::plain::plain;
use trireme_chaos_tests::{Cluster, run_for};

const SCRIPT: &str = include_str!("kubectl.txt");
/// Longest time that one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A command, and what it prints.
#[derive(Debug, Clone)]
struct Step {
    /// What stands before it.
    comments: String,
    /// The versions that it is for, as written.
    versions: String,
    command: String,
    expected: String,
}

impl Step {
    fn is_for(&self, minor: u32) -> bool {
        let bound = |text: &str| text.parse::<u32>().unwrap_or_default();
        match (self.versions.strip_prefix(">="), self.versions.strip_prefix('<')) {
            (Some(least), _) => minor >= bound(least),
            (_, Some(above)) => minor < bound(above),
            _ => true,
        }
    }
}

fn steps(script: &str) -> Vec<Step> {
    let (mut steps, mut comments): (Vec<Step>, String) = (Vec::new(), String::new());
    let mut open = false;
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let (versions, command) = match command.split_once(' ') {
                Some((word, rest)) if word.starts_with(['<', '>']) => (word, rest),
                _ => ("", command),
            };
            steps.push(Step {
                comments: std::mem::take(&mut comments),
                versions: versions.to_owned(),
                command: command.to_owned(),
                expected: String::new(),
            });
            open = true;
        } else if line.is_empty() {
            open = false;
        } else if let Some(step) = steps.last_mut().filter(|_| open) {
            // An empty line of output is written as a dot.
            step.expected.push_str(if line == "." { "" } else { line });
            step.expected.push('\n');
        } else {
            comments.push_str(line);
            comments.push('\n');
        }
    }
    steps
}

fn written(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        if !step.comments.is_empty() {
            text.push_str(&format!("{}\n", step.comments));
        }
        let versions = if step.versions.is_empty() { String::new() } else { format!("{} ", step.versions) };
        text.push_str(&format!("$ {versions}{}\n", step.command));
        for line in step.expected.lines() {
            text.push_str(if line.is_empty() { "." } else { line });
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// One kubectl with a namespace and a home of its own.
struct Typist<'a> {
    kubectl: &'a Kubectl,
    namespace: String,
    home: PathBuf,
}

impl<'a> Typist<'a> {
    fn new(cluster: &Cluster, kubectl: &'a Kubectl) -> Result<Typist<'a>> {
        let namespace = format!("kc-{}", kubectl.minor);
        let home = cluster.dir.join(format!("home-{namespace}"));
        std::fs::create_dir_all(&home)?;
        std::fs::copy(cluster.root().join("kubeconfig"), home.join("kubeconfig"))?;
        Ok(Typist { kubectl, namespace, home })
    }

    fn run(&self, command: &str) -> Result<String> {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("K() {{ \"$K\" \"$@\"; }}; exec 2>&1; {command}")])
            .env("K", &self.kubectl.path)
            .env("NS", &self.namespace)
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .env("KUBECTL_EXTERNAL_DIFF", "diff -u")
            .current_dir(&self.home);
        let outcome = run_for(&mut shell, LIMIT)?;
        let program = self.kubectl.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = outcome.out.replace(&self.home.display().to_string(), "HOME").replace(&self.namespace, "NS");
        let mut text = plain(&text.replace(&program, "kubectl"));
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if outcome.code != Some(0) {
            text.push_str(&format!("[exit {}]\n", outcome.code.unwrap_or(-1)));
        }
        Ok(text)
    }

    /// What is printed by each step that this kubectl is for; nothing for the others.
    fn all(&self, steps: &[Step]) -> Result<Vec<Option<String>>> {
        let each = |step: &Step| match step.is_for(self.kubectl.minor) {
            true => self.run(&step.command).with_context(|| step.command.clone()).map(Some),
            false => Ok(None),
        };
        steps.iter().map(each).collect()
    }

    fn differences(&self, steps: &[Step], printed: &[Option<String>]) -> Vec<String> {
        let pairs = steps.iter().zip(printed);
        let wrong =
            pairs.filter_map(|(step, text)| text.as_ref().filter(|text| **text != step.expected).map(|t| (step, t)));
        let version = &self.kubectl.version;
        wrong
            .map(|(step, text)| {
                format!("=== {version} $ {}\n--- expected\n{}+++ printed\n{text}", step.command, step.expected)
            })
            .collect()
    }
}

/// Both ends of what there is, or all.
fn chosen(cluster: &Cluster) -> Vec<&Kubectl> {
    let mut all: Vec<&Kubectl> = cluster.kubectls.iter().collect();
    all.sort_by_key(|kubectl| kubectl.minor);
    all.dedup_by_key(|kubectl| kubectl.minor);
    match std::env::var_os("TRIREME_ALL_KUBECTLS") {
        None if all.len() > 2 => vec![all[0], all[all.len() - 1]],
        _ => all,
    }
}

/// Namespaces, and what is in none.
fn clean(cluster: &Cluster, kubectls: &[&Kubectl]) -> Result<()> {
    let names: Vec<String> = kubectls.iter().map(|kubectl| format!("kc-{}", kubectl.minor)).collect();
    let mut words: Vec<String> = ["delete", "--ignore-not-found"].map(str::to_owned).to_vec();
    for name in &names {
        for kind in ["namespace", "clusterrole", "clusterrolebinding", "priorityclass"] {
            words.push(format!("{kind}/{name}"));
        }
    }
    run_for(cluster.command(&cluster.newest().path, None).args(words), LIMIT)?.ok().map(drop)
}

/// Runs the script with each kubectl, all at the same time.
pub fn verbs(cluster: &Cluster) -> Result<()> {
    let kubectls = chosen(cluster);
    println!("kubectl: {}", kubectls.iter().map(|kubectl| kubectl.version.as_str()).collect::<Vec<_>>().join(", "));
    clean(cluster, &kubectls)?;
    let outcome = typed(cluster, &kubectls);
    clean(cluster, &kubectls)?;
    outcome
}

fn typed(cluster: &Cluster, kubectls: &[&Kubectl]) -> Result<()> {
    let mut steps = steps(SCRIPT);
    let typists = kubectls.iter().map(|kubectl| Typist::new(cluster, kubectl)).collect::<Result<Vec<Typist<'_>>>>()?;
    let printed: Vec<Result<Vec<Option<String>>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = typists.iter().map(|typist| scope.spawn(|| typist.all(&steps))).collect();
        let panicked = |_| Err(anyhow::anyhow!("panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let printed = printed.into_iter().collect::<Result<Vec<_>>>()?;
    if std::env::var_os("TRIREME_REWRITE").is_some() {
        for texts in &printed {
            for (step, text) in steps.iter_mut().zip(texts) {
                step.expected = text.clone().unwrap_or_else(|| step.expected.clone());
            }
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kubectl.txt");
        std::fs::write(path, written(&steps))?;
    }
    let wrong: Vec<String> =
        typists.iter().zip(&printed).flat_map(|(typist, texts)| typist.differences(&steps, texts)).collect();
    ensure!(wrong.is_empty(), "{} commands print something else:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
