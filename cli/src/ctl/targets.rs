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

/// Understands `TYPE[,TYPE…] [NAME…]` and `TYPE/NAME…`. The flag tells whether several types were asked for.
pub fn parse(discovery: &Discovery, words: &[String]) -> Result<(Vec<Query>, bool)> {
    if words.iter().any(|word| word.contains('/')) {
        return parse_slashed(discovery, words);
    }
    let Some((types, names)) = words.split_first() else {
        return Err(CtlError::plain("you must specify one or more resources by argument or filename"));
    };
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
            Some(_) => {
                return Err(CtlError::plain(format!(
                    "arguments in resource/name form must have a single resource and name: {word:?}"
                )));
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
                "when paths, URLs, or stdin is provided as input, you may not specify a resource by arguments as well",
            ));
        }
        return from_files(session, files).await;
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

/// All objects of a type that the selection matches, page by page.
pub async fn list(session: &Session, resource: &Resource, selection: &Selection) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let call = Call::get(scope(session, resource, selection))
            .query_some("labelSelector", selection.labels.as_deref())
            .query_some("fieldSelector", selection.fields.as_deref())
            .query("limit", 500)
            .query_some("continue", Some(&next));
        let mut page = session.api.json(&call).await?;
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
        assert!(read("").is_err());
        assert!(read("foo").unwrap_err().text().contains("doesn't have a resource type \"foo\""));
        assert!(read("pod pod/a").is_err());
        assert!(read("pod/").is_err());
        assert!(read("pod/a/b").is_err());
    }
}
