//! What every kind has: objects made, read, listed, watched, changed, scaled and deleted, each time read back.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::NAMESPACE;
use super::api::{Answer, Api, has};
use super::operations::Ledger;

const OBJECTS: &str = include_str!("../../data/compat.json");

/// A kind, and the least that an object of it can be; `{n}` in it is a name, `{i}` a number.
#[derive(Clone, Debug, Deserialize)]
pub struct Kind {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub root: String,
    /// As in paths.
    pub plural: String,
    object: Value,
    /// Two states to write one after the other.
    #[serde(default)]
    status: Vec<Value>,
    /// Whether a decision can be written to it.
    #[serde(default)]
    approval: bool,
}

/// All kinds.
///
/// # Errors
/// When the table is damaged.
pub fn all() -> Result<Vec<Kind>> {
    serde_json::from_str(OBJECTS).context("data/compat.json")
}

/// Where a kind is, as upstream writes it and as it is asked for.
struct Place {
    /// `/api/v1/namespaces/{namespace}/pods`.
    collection: String,
    /// `/api/v1/pods`; the same where there are no namespaces.
    everywhere: String,
    /// The same below `/watch/`.
    watched: [String; 3],
    /// `/api/v1/namespaces/compat/pods`.
    path: String,
}

impl Place {
    fn of(ledger: &Ledger, kind: &Kind) -> Place {
        let (root, plural) = (&kind.root, &kind.plural);
        let everywhere = format!("{root}/{plural}");
        let inside = format!("{root}/namespaces/{{namespace}}/{plural}");
        let namespaced = ledger.has("POST", &inside);
        let collection = if namespaced { inside } else { everywhere.clone() };
        let watch = |path: &str| path.replacen(root.as_str(), &format!("{root}/watch"), 1);
        let watched = [watch(&everywhere), watch(&collection), watch(&format!("{collection}/{{name}}"))];
        Place { path: collection.replace("{namespace}", NAMESPACE), collection, everywhere, watched }
    }
}

impl Kind {
    /// The object under a name, which has to be of letters and digits alone.
    pub fn object(&self, name: &str, number: usize) -> Result<Value> {
        let text = self.object.to_string().replace("{ns}", NAMESPACE);
        Ok(serde_json::from_str(&text.replace("{n}", name).replace("{i}", &number.to_string()))?)
    }
}

/// Tries one kind.
pub async fn try_kind(api: &Api, ledger: &mut Ledger, kind: &Kind, number: usize) {
    let place = Place::of(ledger, kind);
    let item = format!("{}/{{name}}", place.collection);
    let made = create(api, kind, &place, "compata", number).await;
    let (name, uid) = match made {
        Ok(made) => {
            ledger.judge("POST", &place.collection, Ok(()));
            made
        }
        Err(error) => {
            let why = format!("{error:#}");
            let below: Vec<(String, String)> = ledger
                .operations
                .iter()
                .filter(|one| one.path.starts_with(&place.collection) || place.watched.contains(&one.path))
                .map(|one| (one.method.clone(), one.path.clone()))
                .collect();
            for (method, path) in below {
                ledger.judge(&method, &path, Err(anyhow::anyhow!("nothing was made: {why}")));
            }
            return;
        }
    };
    let path = format!("{}/{name}", place.path);
    let reading = async { has(&api.get(&path).await?, &json!({"metadata": {"uid": uid}})) };
    ledger.judge("GET", &item, reading.await);
    for (template, path) in [(&place.collection, &place.path), (&place.everywhere, &place.everywhere)] {
        ledger.judge("GET", template, listed(api, path, &uid).await);
    }
    let watches = [place.everywhere.clone(), place.path.clone(), path.clone()];
    for (template, path) in place.watched.iter().zip(watches) {
        let path = path.replacen(&kind.root, &format!("{}/watch", kind.root), 1);
        ledger.judge("GET", template, api.streams(&format!("{path}?timeoutSeconds=10"), &uid).await);
    }
    ledger.judge("PUT", &item, replaced(api, &path).await);
    ledger.judge("PATCH", &item, patched(api, &path).await);
    if ledger.has("GET", &format!("{item}/status")) {
        statuses(api, ledger, &item, &path, &kind.status).await;
    }
    if ledger.has("GET", &format!("{item}/scale")) {
        scales(api, ledger, &item, &path).await;
    }
    if kind.approval {
        approvals(api, ledger, &item, &path).await;
    }
    ledger.judge("DELETE", &item, deleted(api, &path, &uid).await);
    if ledger.has("DELETE", &place.collection) {
        ledger.judge("DELETE", &place.collection, collection(api, kind, &place, number).await);
    }
}

/// Makes an object; its name and uid.
async fn create(api: &Api, kind: &Kind, place: &Place, name: &str, number: usize) -> Result<(String, String)> {
    let mut object = kind.object(name, number)?;
    object["metadata"]["labels"] = json!({"compat": name});
    let made = api.write("POST", &format!("{}?fieldValidation=Strict", place.path), &object).await?;
    let text = |key: &str| made["metadata"][key].as_str().unwrap_or_default().to_owned();
    let read = api.get(&format!("{}/{}", place.path, text("name"))).await?;
    has(&read, &json!({"metadata": {"uid": text("uid"), "labels": {"compat": name}}}))?;
    Ok((text("name"), text("uid")))
}

async fn listed(api: &Api, path: &str, uid: &str) -> Result<()> {
    let list = api.get(path).await?;
    ensure!(list["kind"].as_str().is_some_and(|kind| kind.ends_with("List")), "no list: {}", list["kind"]);
    has(&list, &json!({"items": [{"metadata": {"uid": uid}}]}))
}

async fn replaced(api: &Api, path: &str) -> Result<()> {
    api.replace(path, |object| object["metadata"]["labels"]["replaced"] = json!("yes")).await?;
    has(&api.get(path).await?, &json!({"metadata": {"labels": {"replaced": "yes"}}}))
}

async fn patched(api: &Api, path: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {"compat.example.com/patched": "yes"}}});
    api.write("PATCH", path, &patch).await?;
    has(&api.get(path).await?, &patch)
}

/// What is below `status` is written there, and nothing else is.
async fn statuses(api: &Api, ledger: &mut Ledger, item: &str, path: &str, states: &[Value]) {
    let (template, path) = (format!("{item}/status"), format!("{path}/status"));
    let [first, second] = states else {
        ledger.judge("PUT", &template, Err(anyhow::anyhow!("data/compat.json has no states for it")));
        return;
    };
    let putting = async {
        api.replace(&path, |object| merge(&mut object["status"], first)).await?;
        has(&api.get(&path).await?["status"], first)
    };
    ledger.judge_put(&template, &putting.await);
    let patching = async {
        api.write("PATCH", &path, &json!({"status": second})).await?;
        has(&api.get(&path).await?["status"], second)
    };
    ledger.judge("PATCH", &template, patching.await);
}

fn merge(into: &mut Value, from: &Value) {
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key.as_str()] = value.clone();
    }
}

async fn scales(api: &Api, ledger: &mut Ledger, item: &str, path: &str) {
    let (template, scale) = (format!("{item}/scale"), format!("{path}/scale"));
    let reading = async {
        let (scale, object) = (api.get(&scale).await?, api.get(path).await?);
        ensure!(scale["kind"] == "Scale", "no Scale: {scale}");
        has(&scale["metadata"], &json!({"uid": object["metadata"]["uid"]}))
    };
    ledger.judge("GET", &template, reading.await);
    let putting = async {
        api.replace(&scale, |scale| scale["spec"]["replicas"] = json!(2)).await?;
        has(&api.get(path).await?["spec"], &json!({"replicas": 2}))
    };
    ledger.judge("PUT", &template, putting.await);
    let patching = async {
        api.write("PATCH", &scale, &json!({"spec": {"replicas": 1}})).await?;
        has(&api.get(path).await?["spec"], &json!({"replicas": 1}))
    };
    ledger.judge("PATCH", &template, patching.await);
}

async fn approvals(api: &Api, ledger: &mut Ledger, item: &str, path: &str) {
    let (template, path) = (format!("{item}/approval"), format!("{path}/approval"));
    let approved = json!({"type": "Approved", "status": "True", "reason": "Tried", "message": "m"});
    let other = json!({"type": "Other", "status": "True", "reason": "Tried", "message": "n"});
    let putting = async {
        api.replace(&path, |object| object["status"]["conditions"] = json!([approved])).await?;
        has(&api.get(&path).await?["status"], &json!({"conditions": [approved]}))
    };
    ledger.judge_put(&template, &putting.await);
    let patching = async {
        api.write("PATCH", &path, &json!({"status": {"conditions": [approved, other]}})).await?;
        has(&api.get(&path).await?["status"], &json!({"conditions": [approved, other]}))
    };
    ledger.judge("PATCH", &template, patching.await);
}

async fn deleted(api: &Api, path: &str, uid: &str) -> Result<()> {
    api.send("DELETE", &format!("{path}?gracePeriodSeconds=0"), "", None).await?.ok()?;
    api.until(path, "deleted", |answer| is_gone(answer, uid)).await
}

/// Nothing is there, or something else under the same name; an error says neither.
fn is_gone(answer: &Answer, uid: &str) -> bool {
    answer.code == 404 || (answer.code == 200 && answer.body["metadata"]["uid"] != uid)
}

async fn collection(api: &Api, kind: &Kind, place: &Place, number: usize) -> Result<()> {
    let (kept, _) = create(api, kind, place, "compatk", number + 70).await?;
    for (name, number) in [("compatb", number + 80), ("compatc", number + 160)] {
        create(api, kind, place, name, number).await?;
    }
    let chosen = format!("{}?labelSelector=compat%20in%20(compatb,compatc)", place.path);
    api.send("DELETE", &format!("{chosen}&gracePeriodSeconds=0"), "", None).await?.ok()?;
    let none = |answer: &Answer| answer.code == 200 && answer.body["items"].as_array().is_some_and(Vec::is_empty);
    api.until(&chosen, "deleted", none).await?;
    let path = format!("{}/{kept}", place.path);
    api.get(&path).await.context("more was deleted than was chosen")?;
    api.send("DELETE", &format!("{path}?gracePeriodSeconds=0"), "", None).await?.ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Answer, is_gone};
    use serde_json::json;

    #[test]
    fn an_error_is_no_deletion() {
        let answer = |code, body| Answer { code, body };
        let object = |uid: &str| json!({"metadata": {"name": "a", "uid": uid}});
        let status = |code: u16| json!({"kind": "Status", "metadata": {}, "code": code});
        assert!(is_gone(&answer(404, status(404)), "u"));
        assert!(is_gone(&answer(200, object("v")), "u"));
        assert!(!is_gone(&answer(200, object("u")), "u"));
        for code in [401, 403, 429, 500, 503, 504] {
            assert!(!is_gone(&answer(code, status(code)), "u"), "{code}");
        }
        assert!(!is_gone(&answer(502, json!("bad gateway")), "u"));
    }
}
