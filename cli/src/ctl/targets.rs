//! What a verb works on: `TYPE`, `TYPE NAME…`, `TYPE/NAME…`, files, selectors.

use std::sync::Arc;

use serde_json::Value;

use super::api::Call;
use super::discovery::{Discovery, Resource};
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::session::Session;

/// One object, named or given.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its resource.
    pub resource: Arc<Resource>,
    /// Its namespace, if the resource has them.
    pub namespace: Option<String>,
    /// Its name; empty with `generateName`.
    pub name: String,
    /// The object as it stands in a file.
    pub object: Option<Value>,
    /// The file.
    pub source: Option<String>,
}

impl Target {
    /// Path of the object.
    pub fn path(&self) -> String {
        self.resource.object_path(self.namespace.as_deref(), &self.name)
    }

    /// Path of the collection it is in.
    pub fn collection(&self) -> String {
        self.resource.path(self.namespace.as_deref())
    }

    /// `deployment.apps/web`
    pub fn label(&self) -> String {
        format!("{}/{}", self.resource.label(), self.name)
    }

    /// The object as the server has it.
    pub async fn fetch(&self, session: &Session) -> Result<Value> {
        let mut object = session.api.json(&Call::get(self.path())).await?;
        stamp(&mut object, &self.resource);
        Ok(object)
    }
}

/// Flags that choose among a type's objects.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// `-l`
    pub labels: Option<String>,
    /// `--field-selector`
    pub fields: Option<String>,
    /// `-A`
    pub all_namespaces: bool,
    /// `--all`, for verbs that do not take a bare type.
    pub all: bool,
    /// Objects per page; none is 500.
    pub chunk: Option<i64>,
}

impl Selection {
    /// Whether objects are chosen at all.
    pub fn is_given(&self) -> bool {
        self.labels.is_some() || self.fields.is_some() || self.all
    }
}

/// What the words on the command line ask for.
#[derive(Debug, Clone)]
pub enum Query {
    /// Objects by name.
    Named(Arc<Resource>, Vec<String>),
    /// All objects of a type (that the selection matches).
    Every(Arc<Resource>),
}

/// What verbs say that were given neither words nor files.
pub const NOTHING: &str = "You must provide one or more resources by argument or filename.\nExample resource \
                           specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> \
                           <name>'\n   '<resource>'";

/// Understands `TYPE[,TYPE…] [NAME…]` and `TYPE/NAME…`. The flag tells whether several types were asked for.
pub fn parse(discovery: &Discovery, words: &[String]) -> Result<(Vec<Query>, bool)> {
    if words.iter().any(|word| word.contains('/')) {
        return parse_slashed(discovery, words);
    }
    let Some((types, names)) = words.split_first() else {
        return Err(CtlError::plain(NOTHING));
    };
    // The path of an object without a name is that of all objects.
    if names.iter().any(String::is_empty) {
        return Err(CtlError::plain("resource name may not be empty"));
    }
    let mut resources = Vec::new();
    for name in types.split(',').filter(|name| !name.is_empty()) {
        resources.extend(discovery.expand(name)?);
    }
    resources.dedup_by(|a, b| a == b);
    let several = resources.len() > 1 || types.contains(',');
    let query = |resource: Arc<Resource>| match names {
        [] => Query::Every(resource),
        names => Query::Named(resource, names.to_vec()),
    };
    Ok((resources.into_iter().map(query).collect(), several))
}

fn parse_slashed(discovery: &Discovery, words: &[String]) -> Result<(Vec<Query>, bool)> {
    let mut queries: Vec<Query> = Vec::new();
    for word in words {
        let (kind, name) = match word.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => (kind, name),
            Some((_, name)) if name.contains('/') => {
                return Err(CtlError::plain("arguments in resource/name form may not have more than one slash"));
            }
            Some(_) => {
                return Err(CtlError::plain("arguments in resource/name form must have a single resource and name"));
            }
            None => {
                return Err(CtlError::plain(
                    "there is no need to specify a resource type as a separate argument when passing arguments in \
                     resource/name form (e.g. 'trictl get resource/<resource_name>' instead of 'trictl get resource \
                     resource/<resource_name>'",
                ));
            }
        };
        let resource = discovery.need(kind)?;
        match queries.last_mut() {
            Some(Query::Named(last, names)) if *last == resource => names.push(name.to_owned()),
            _ => queries.push(Query::Named(resource, vec![name.to_owned()])),
        }
    }
    let several = queries.len() > 1;
    Ok((queries, several))
}

/// The targets of files; the second part holds what could not be read or mapped.
pub async fn from_files(session: &Session, files: &Files) -> Result<(Vec<Target>, Vec<CtlError>)> {
    let (documents, mut failures) = files.read()?;
    let mut targets = Vec::new();
    if documents.is_empty() {
        return Ok((targets, failures));
    }
    let discovery = session.discovery().await?;
    for document in documents {
        match locate(session, &discovery, document.object, &document.source) {
            Ok(target) => targets.push(target),
            Err(error) => failures.push(error),
        }
    }
    Ok((targets, failures))
}

/// The targets of files without asking the server what it serves.
pub fn offline(session: &Session, files: &Files) -> Result<(Vec<Target>, Vec<CtlError>)> {
    let (documents, failures) = files.read()?;
    let targets = documents.into_iter().map(|document| {
        let resource = Arc::new(guess(&document.object));
        let mut target = of_object(&resource, document.object);
        target.namespace = Some(session.namespace.clone());
        target
    });
    Ok((targets.collect(), failures))
}

/// A resource as its object's kind suggests it.
pub fn guess(object: &Value) -> Resource {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let built_in = trireme_api::Catalogue::builtin().by_kind(group, version, text("kind"));
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: text("kind").to_owned(),
        singular: text("kind").to_lowercase(),
        plural: format!("{}s", text("kind").to_lowercase()),
        namespaced: built_in.is_none_or(|resource| resource.scope == trireme_api::catalogue::Scope::Namespaced),
        ..Resource::default()
    }
}

/// Finds resource and namespace of an object.
pub fn locate(session: &Session, discovery: &Discovery, mut object: Value, source: &str) -> Result<Target> {
    let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (field("apiVersion"), field("kind"));
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let own = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let Some(resource) = discovery.by_kind(&version, &kind) else {
        return Err(CtlError::plain(format!(
            "resource mapping not found for name: {name:?} namespace: {own:?} from {source:?}: no matches for kind \
             {kind:?} in version {version:?}\nensure CRDs are installed first"
        )));
    };
    let mut namespace = None;
    if resource.namespaced {
        if session.namespace_given && !own.is_empty() && own != session.namespace {
            return Err(CtlError::plain(format!(
                "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass \
                 '--namespace={own}' to perform this operation.",
                session.namespace
            )));
        }
        let chosen = if own.is_empty() { session.namespace.clone() } else { own };
        if let Some(map) = object.as_object_mut()
            && let Some(metadata) =
                map.entry("metadata").or_insert_with(|| Value::Object(Default::default())).as_object_mut()
        {
            metadata.insert("namespace".to_owned(), Value::from(chosen.clone()));
        }
        namespace = Some(chosen);
    }
    Ok(Target { resource, namespace, name, object: Some(object), source: Some(source.to_owned()) })
}

/// The targets that words, files and selection mean together; names are not checked yet.
pub async fn resolve(
    session: &Session,
    words: &[String],
    files: &Files,
    selection: &Selection,
) -> Result<(Vec<Target>, Vec<CtlError>)> {
    if !files.is_empty() {
        if !words.is_empty() {
            return Err(CtlError::plain(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            ));
        }
        return from_files(session, files).await;
    }
    if words.is_empty() {
        return Err(CtlError::plain(NOTHING));
    }
    if selection.all && selection.labels.as_ref().is_some_and(|labels| !labels.is_empty()) {
        return Err(CtlError::plain("setting 'all' parameter but found a non empty selector. "));
    }
    let discovery = session.discovery().await?;
    let (queries, _) = parse(&discovery, words)?;
    let mut targets = Vec::new();
    for query in queries {
        match query {
            Query::Named(_, _) if selection.is_given() => {
                return Err(CtlError::plain("name cannot be provided when a selector is specified"));
            }
            Query::Named(resource, names) => {
                let namespace = resource.namespaced.then(|| session.namespace.clone());
                targets.extend(names.into_iter().map(|name| Target {
                    resource: resource.clone(),
                    namespace: namespace.clone(),
                    name,
                    object: None,
                    source: None,
                }));
            }
            Query::Every(_) if !selection.is_given() => {
                return Err(CtlError::plain("resource(s) were provided, but no name was specified"));
            }
            Query::Every(resource) => {
                let objects = list(session, &resource, selection).await?;
                targets.extend(objects.into_iter().map(|object| of_object(&resource, object)));
            }
        }
    }
    Ok((targets, Vec::new()))
}

/// The target of an object that the server sent.
pub fn of_object(resource: &Arc<Resource>, object: Value) -> Target {
    let field = |name: &str| object["metadata"][name].as_str().map(str::to_owned);
    Target {
        resource: resource.clone(),
        namespace: field("namespace").filter(|_| resource.namespaced),
        name: field("name").unwrap_or_default(),
        object: Some(object),
        source: None,
    }
}

/// Path of the collection that a selection looks at.
pub fn scope(session: &Session, resource: &Resource, selection: &Selection) -> String {
    let namespace = if selection.all_namespaces { None } else { Some(session.namespace.as_str()) };
    resource.path(namespace)
}

/// Adds to the server's complaint about a list what was looked for.
pub fn while_listing(error: CtlError, resource: &Resource, selection: &Selection) -> CtlError {
    match error {
        CtlError::Status(mut status) if matches!(status["reason"].as_str(), Some("BadRequest" | "NotFound")) => {
            let gvr = format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural);
            let message = status["message"].as_str().unwrap_or_default();
            let (labels, fields) = (selection.labels.as_deref(), selection.fields.as_deref());
            let text = match (labels.unwrap_or_default(), fields.unwrap_or_default()) {
                ("", "") => format!("Unable to list {gvr:?}: {message}"),
                (labels, fields) => format!(
                    "Unable to find {gvr:?} that match label selector {labels:?}, field selector {fields:?}: {message}"
                ),
            };
            status["message"] = Value::from(text);
            CtlError::Status(status)
        }
        other => other,
    }
}

/// All objects of a type that the selection matches, page by page.
pub async fn list(session: &Session, resource: &Resource, selection: &Selection) -> Result<Vec<Value>> {
    list_at(session, resource, &scope(session, resource, selection), selection).await
}

/// As [`list`], of a path.
pub async fn list_at(session: &Session, resource: &Resource, path: &str, selection: &Selection) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let call = Call::get(path)
            .query_some("labelSelector", selection.labels.as_deref())
            .query_some("fieldSelector", selection.fields.as_deref())
            .query("limit", selection.chunk.unwrap_or(500))
            .query_some("continue", Some(&next));
        let mut page = session.api.json(&call).await.map_err(|error| while_listing(error, resource, selection))?;
        if let Some(items) = page["items"].as_array_mut() {
            for mut item in std::mem::take(items) {
                stamp(&mut item, resource);
                objects.push(item);
            }
        }
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            return Ok(objects);
        }
    }
}

/// Items of lists come without kind and version.
pub fn stamp(object: &mut Value, resource: &Resource) {
    if let Some(map) = object.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| Value::from(resource.api_version()));
        map.entry("kind").or_insert_with(|| Value::from(resource.kind.clone()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::discovery::tests::sample;
    use super::*;

    fn read(text: &str) -> Result<String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let (queries, several) = parse(&sample(), &words)?;
        let show = |query: &Query| match query {
            Query::Named(resource, names) => format!("{}={}", resource.plural, names.join("+")),
            Query::Every(resource) => resource.plural.clone(),
        };
        Ok(format!("{} {several}", queries.iter().map(show).collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn words_are_understood_as_with_kubectl() {
        assert_eq!(read("po").unwrap(), "pods false");
        assert_eq!(read("po,svc").unwrap(), "pods services true");
        assert_eq!(read("po a b").unwrap(), "pods=a+b false");
        assert_eq!(read("pod/a pod/b deploy/c").unwrap(), "pods=a+b deployments=c true");
        assert_eq!(read("all").unwrap(), "pods services deployments true");
    }

    #[test]
    fn mistakes() {
        let empty = parse(&sample(), &["po".to_owned(), String::new()]).unwrap_err();
        assert_eq!(empty.text(), "error: resource name may not be empty\n");
        assert!(read("").is_err());
        assert!(read("foo").unwrap_err().text().contains("doesn't have a resource type \"foo\""));
        assert!(read("pod pod/a").is_err());
        assert!(read("pod/").is_err());
        assert!(read("pod/a/b").is_err());
    }
}
