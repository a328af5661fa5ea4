//! The operations of a catalogue, as both dialects render them.

use crate::catalogue::{Catalogue, Resource, Subresource};
use crate::names;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// A query parameter: name, type, description.
pub(super) type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = (
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
);
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes. The value must be less than or 128 characters long, and only contain printable characters, as defined by https://golang.org/pkg/unicode/#IsPrint.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: - Ignore: This will ignore any unknown fields that are silently dropped from the object, and will ignore all but the last duplicate field that the decoder encounters. - Warn: This will send a warning via the standard warning response header for each unknown field that is dropped from the object, and for each duplicate field that is encountered. This is the default. - Strict: This will fail the request with a BadRequest error if any unknown fields would be dropped from the object, or if any duplicate fields are present.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests.",
);
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
    (
        "sendInitialEvents",
        "boolean",
        "`sendInitialEvents=true` may be set together with `watch=true`: the watch begins with events that make up the current state, and a bookmark that says where they end. `resourceVersionMatch` has to be NotOlderThan then.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity.",
    ),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];
const DELETE: [Parameter; 4] = [
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted. Value must be non-negative integer. The value zero indicates delete immediately.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Deprecated: please use the PropagationPolicy, this field will be deprecated in 1.7.",
    ),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed. Acceptable values are: 'Orphan', 'Background' and 'Foreground'.",
    ),
];
/// What patches may be.
pub(super) const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];

/// What an operation sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// An object of a definition, required or not.
    Object(String, bool),
    Patch,
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub method: &'static str,
    pub id: String,
    pub description: String,
    pub action: &'static str,
    /// Group, version and kind that the operation is about.
    pub gvk: (String, String, String),
    pub query: Vec<Parameter>,
    pub body: Body,
    /// Definition of the answer; empty for one that is no object.
    pub answer: String,
    pub codes: &'static [u16],
    pub tag: String,
}

/// A path with its operations.
#[derive(Debug, Clone)]
pub(super) struct PathItem {
    pub path: String,
    /// Path parameters: name and description.
    pub parameters: Vec<(&'static str, String)>,
    pub operations: Vec<Operation>,
}

struct Maker<'a> {
    resource: &'a Resource,
    group: String,
    tag: String,
}

fn camel(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// The paths of a group and version.
pub(super) fn paths(catalogue: &Catalogue, group: &str, version: &str) -> Vec<PathItem> {
    let own = catalogue.resources().iter().filter(|r| r.group == group && r.version == version);
    let mut paths: Vec<PathItem> = own.flat_map(|resource| Maker::new(resource).paths()).collect();
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    paths
}

impl<'a> Maker<'a> {
    fn new(resource: &'a Resource) -> Self {
        let group: String = match resource.group.strip_suffix(".k8s.io").unwrap_or(&resource.group) {
            "" => "Core".to_owned(),
            group => group.split('.').map(camel).collect(),
        };
        Self {
            resource,
            tag: format!("{}_{}", lower_first(&group), resource.version),
            group: format!("{group}{}", camel(&resource.version)),
        }
    }

    fn paths(&self) -> Vec<PathItem> {
        let r = self.resource;
        let prefix = if r.group.is_empty() { "/api" } else { "/apis" };
        let base = format!("{prefix}/{}", names::api_version(&r.group, &r.version));
        let namespace = ("namespace", "object name and auth scope, such as for teams and projects".to_owned());
        let name = ("name", format!("name of the {}", r.kind));
        let (collection, scope) = if r.namespaced() {
            (format!("{base}/namespaces/{{namespace}}/{}", r.plural), vec![namespace])
        } else {
            (format!("{base}/{}", r.plural), Vec::new())
        };
        let mut out = Vec::new();
        if r.namespaced() && r.has_verb("list") {
            let mut all = self.list();
            all.id = format!("list{}{}ForAllNamespaces", self.group, r.kind);
            out.push(PathItem { path: format!("{base}/{}", r.plural), parameters: Vec::new(), operations: vec![all] });
        }
        out.push(PathItem { path: collection.clone(), parameters: scope.clone(), operations: self.collection() });
        let item = format!("{collection}/{{name}}");
        let mut parameters = vec![name];
        parameters.extend(scope);
        for sub in &r.subresources {
            out.push(PathItem {
                path: format!("{item}/{}", sub.name),
                parameters: parameters.clone(),
                operations: self.subresource(sub),
            });
        }
        out.push(PathItem { path: item, parameters, operations: self.item() });
        out.retain(|path| !path.operations.is_empty());
        out
    }

    fn kind(&self) -> String {
        format!("{}{}", if self.resource.namespaced() { "Namespaced" } else { "" }, self.resource.kind)
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, description: String) -> Operation {
        let r = self.resource;
        Operation {
            method,
            id,
            description,
            action,
            gvk: (r.group.to_string(), r.version.to_string(), r.kind.to_string()),
            query: vec![PRETTY],
            body: Body::None,
            answer: r.definition.to_string(),
            codes: &[200],
            tag: self.tag.clone(),
        }
    }

    fn list(&self) -> Operation {
        let kind = &self.resource.kind;
        let id = format!("list{}{}", self.group, self.kind());
        let mut list = self.operation("get", "list", id, format!("list or watch objects of kind {kind}"));
        list.query.extend(LIST);
        list.answer = format!("{}List", self.resource.definition);
        list
    }

    fn collection(&self) -> Vec<Operation> {
        let kind = &self.resource.kind;
        let mut out: Vec<Operation> = self.resource.has_verb("list").then(|| self.list()).into_iter().collect();
        if self.resource.has_verb("create") {
            let id = format!("create{}{}", self.group, self.kind());
            let mut create = self.operation("post", "post", id, format!("create a {kind}"));
            create.query.extend(WRITE);
            create.body = Body::Object(self.resource.definition.to_string(), true);
            create.codes = &[200, 201, 202];
            out.push(create);
        }
        if self.resource.has_verb("deletecollection") {
            let id = format!("delete{}Collection{}", self.group, self.kind());
            let mut delete = self.operation("delete", "deletecollection", id, format!("delete collection of {kind}"));
            delete.query.extend(DELETE);
            delete.query.extend(LIST.iter().filter(|(name, ..)| !matches!(*name, "watch" | "allowWatchBookmarks")));
            delete.body = Body::Object(format!("{META}.DeleteOptions"), false);
            delete.answer = format!("{META}.Status");
            out.push(delete);
        }
        out
    }

    /// get, put and patch of the object or of a sub-resource.
    fn read_and_write(&self, verbs: &[&str], suffix: &str, definition: &str, what: &str) -> Vec<Operation> {
        let name = format!("{}{}{suffix}", self.group, self.kind());
        let mut out = Vec::new();
        if verbs.contains(&"get") {
            out.push(self.operation("get", "get", format!("read{name}"), format!("read {what}")));
        }
        if verbs.contains(&"update") {
            let mut put = self.operation("put", "put", format!("replace{name}"), format!("replace {what}"));
            put.query.extend(WRITE);
            put.body = Body::Object(definition.to_owned(), true);
            put.codes = &[200, 201];
            out.push(put);
        }
        if verbs.contains(&"patch") {
            let mut patch =
                self.operation("patch", "patch", format!("patch{name}"), format!("partially update {what}"));
            patch.query.extend(WRITE);
            patch.query.push(FORCE);
            patch.body = Body::Patch;
            patch.codes = &[200, 201];
            out.push(patch);
        }
        for operation in &mut out {
            operation.answer = definition.to_owned();
        }
        out
    }

    fn item(&self) -> Vec<Operation> {
        let kind = &self.resource.kind;
        let verbs: Vec<&str> = self.resource.verbs.iter().map(AsRef::as_ref).collect();
        let mut out = self.read_and_write(&verbs, "", &self.resource.definition, &format!("the specified {kind}"));
        if !self.resource.has_verb("delete") {
            return out;
        }
        let id = format!("delete{}{}", self.group, self.kind());
        let mut delete = self.operation("delete", "delete", id, format!("delete a {kind}"));
        delete.query.extend(DELETE);
        delete.body = Body::Object(format!("{META}.DeleteOptions"), false);
        delete.answer = if kind == "Pod" { self.resource.definition.to_string() } else { format!("{META}.Status") };
        delete.codes = &[200, 202];
        out.push(delete);
        out
    }

    fn subresource(&self, sub: &Subresource) -> Vec<Operation> {
        let r = self.resource;
        let suffix = camel(&sub.name);
        let what = format!("{} of the specified {}", sub.name, r.kind);
        let definition = match sub.kind.as_ref() {
            "Scale" => "io.k8s.api.autoscaling.v1.Scale".to_owned(),
            "Eviction" => "io.k8s.api.policy.v1.Eviction".to_owned(),
            "Binding" => "io.k8s.api.core.v1.Binding".to_owned(),
            "TokenRequest" => "io.k8s.api.authentication.v1.TokenRequest".to_owned(),
            _ => r.definition.to_string(),
        };
        let mut out = match sub.name.as_ref() {
            "exec" | "attach" | "portforward" | "log" => self.connect(sub, &suffix),
            "proxy" => self.proxy(&suffix),
            "binding" | "eviction" | "token" => {
                let id = format!("create{}{}{suffix}", self.group, self.kind());
                let mut create = self.operation("post", "post", id, format!("create {what}"));
                create.query.extend(WRITE);
                create.body = Body::Object(definition.clone(), true);
                create.answer = definition;
                create.codes = &[200, 201, 202];
                vec![create]
            }
            _ => {
                let verbs: Vec<&str> = sub.verbs.iter().map(AsRef::as_ref).collect();
                self.read_and_write(&verbs, &suffix, &definition, &what)
            }
        };
        for operation in &mut out {
            operation.gvk = (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string());
        }
        out
    }

    fn proxy(&self, suffix: &str) -> Vec<Operation> {
        let methods = [("get", "Get"), ("post", "Post"), ("put", "Put"), ("patch", "Patch"), ("delete", "Delete")];
        let operations = methods.into_iter().map(|(method, word)| {
            let id = format!("connect{}{word}{}{suffix}", self.group, self.kind());
            let what = format!("connect {} requests to proxy of {}", method.to_uppercase(), self.resource.kind);
            let mut operation = self.operation(method, "connect", id, what);
            operation.query.clear();
            operation.query.extend([("path", "string", "Path is the URL path to use for the current proxy request.")]);
            operation.answer.clear();
            operation
        });
        operations.collect()
    }

    fn connect(&self, sub: &Subresource, suffix: &str) -> Vec<Operation> {
        let kind = self.kind();
        let text = |operation: &mut Operation| operation.answer.clear();
        if sub.name == "log" {
            let id = format!("read{}{kind}Log", self.group);
            let mut log = self.operation("get", "get", id, format!("read log of the specified {}", self.resource.kind));
            log.query.extend([
                ("container", "string", "The container for which to stream logs. Defaults to only container if there is one container in the pod."),
                ("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
                ("limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."),
                ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
                ("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
                ("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
                ("timestamps", "boolean", "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output."),
            ] as [Parameter; 7]);
            text(&mut log);
            return vec![log];
        }
        let command: Parameter =
            ("command", "string", "Command is the remote command to execute. argv array. Not executed within a shell.");
        let ports: Parameter = ("ports", "integer", "List of ports to forward. Required when using WebSockets");
        let streams: [Parameter; 5] = [
            (
                "container",
                "string",
                "Container in which to execute the command. Defaults to only container if there is only one container in the pod.",
            ),
            ("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
            ("stdin", "boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
            ("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
            (
                "tty",
                "boolean",
                "TTY if true indicates that a tty will be allocated for the exec call. Defaults to false.",
            ),
        ];
        let methods: [(&'static str, &'static str); 2] = [("get", "Get"), ("post", "Post")];
        let operations = methods.into_iter().map(|(method, word)| {
            let id = format!("connect{}{word}{kind}{suffix}", self.group);
            let what = format!("connect {} requests to {} of {}", method.to_uppercase(), sub.name, self.resource.kind);
            let mut operation = self.operation(method, "connect", id, what);
            operation.query.clear();
            match sub.name.as_ref() {
                "portforward" => operation.query.push(ports),
                "attach" => operation.query.extend(streams),
                _ => operation.query.extend(std::iter::once(command).chain(streams)),
            }
            text(&mut operation);
            operation
        });
        operations.collect()
    }
}
