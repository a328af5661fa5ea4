//! `trictl set subject`.

use clap::Args;
use serde_json::{Value, json};

use super::super::errors::{CtlError, Result};
use super::super::generate::rbac::Subjects;
use super::super::session::Session;
use super::{On, change, find};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Update users, groups and service accounts of bindings.
#[derive(Debug, Clone, Default, Args)]
pub struct SubjectArgs {
    #[command(flatten)]
    pub on: On,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    #[command(flatten)]
    pub subjects: Subjects,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &SubjectArgs) -> Result<()> {
    let (found, mut failures) = find(session, &args.on, &args.on.words, args.selector.as_ref()).await?;
    if args.on.all && args.selector.is_some() {
        return Err(CtlError::plain("cannot set --all and --selector at the same time"));
    }
    let cluster_wide = found.iter().any(|target| target.resource.kind == "ClusterRoleBinding");
    let subjects = subjects(&args.subjects, &session.namespace, cluster_wide)?;
    for target in found {
        let edit = |object: &mut Value| {
            if !matches!(target.resource.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
                let why = "setting subjects is only supported for RoleBinding/ClusterRoleBinding";
                return Err(CtlError::bare(format!("error: {}/{} {why}", target.resource.plural, target.name)));
            }
            let mut all = object["subjects"].as_array().cloned().unwrap_or_default();
            all.extend(without(&subjects, &all));
            if !all.is_empty() {
                object["subjects"] = json!(all);
            }
            Ok(())
        };
        failures.extend(change(session, &args.on, &target, "subjects updated", edit).await.err());
    }
    CtlError::gather(failures)
}

fn without(wanted: &[Value], known: &[Value]) -> Vec<Value> {
    wanted.iter().filter(|subject| !known.contains(subject)).cloned().collect()
}

/// Each subject once, sorted within its kind.
fn subjects(args: &Subjects, namespace: &str, cluster_wide: bool) -> Result<Vec<Value>> {
    if args.user.is_empty() && args.group.is_empty() && args.serviceaccount.is_empty() {
        return Err(CtlError::plain("you must specify at least one value of user, group or serviceaccount"));
    }
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort();
        words.dedup();
        words
    };
    let mut all = Vec::new();
    for (kind, words) in [("User", &args.user), ("Group", &args.group)] {
        all.extend(sorted(words).iter().map(|name| json!({"kind": kind, "apiGroup": GROUP, "name": name})));
    }
    for word in sorted(&args.serviceaccount) {
        let (of, name) = match word.split(':').collect::<Vec<_>>().as_slice() {
            [of, name] if !name.is_empty() => ((*of).to_owned(), (*name).to_owned()),
            _ => return Err(CtlError::plain("serviceaccount must be <namespace>:<name>")),
        };
        if of.is_empty() && cluster_wide {
            return Err(CtlError::plain("serviceaccount must be <namespace>:<name>, namespace must be specified"));
        }
        let namespace = if of.is_empty() { namespace.to_owned() } else { of };
        all.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn subjects_are_sorted_and_checked() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let args = Subjects { user: words("b a b"), serviceaccount: words("n:s :t"), ..Subjects::default() };
        let all = subjects(&args, "own", false).unwrap();
        let names: Vec<&str> = all.iter().map(|subject| subject["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "t", "s"]);
        assert_eq!(all[2]["namespace"], "own");
        assert_eq!(without(&all, &all[1..]), all[..1]);
        assert!(subjects(&args, "own", true).is_err());
        assert!(subjects(&Subjects::default(), "own", false).is_err());
        assert!(subjects(&Subjects { serviceaccount: words("x"), ..Subjects::default() }, "own", false).is_err());
    }
}
