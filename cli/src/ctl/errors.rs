//! What verbs fail with, and how that reads: the texts and exit codes that kubectl's users know.

use serde_json::Value;
use trireme_client::masters::{DialFailure, DialFailureKind, MastersError};

/// Result of everything in this module.
pub type Result<T> = std::result::Result<T, CtlError>;

/// Why a verb failed.
#[derive(Debug)]
pub enum CtlError {
    /// The API server answered with a `Status`.
    Status(Box<Value>),
    /// The request did not get through.
    Transport(Box<kube::Error>),
    /// Anything found out here; printed after `error: `.
    Plain(String),
    /// Wrong arguments; printed with a hint at the verb's help.
    Usage(String),
    /// Printed as it is, without `error: `.
    Bare(String),
    /// Standard output is gone or a file failed.
    Io(std::io::Error),
    /// Several targets failed, each for itself.
    Many(Vec<CtlError>),
    /// Nothing more to print; only the exit code counts.
    Exit(u8),
}

impl CtlError {
    /// Shorthand for [`CtlError::Plain`].
    pub fn plain(text: impl Into<String>) -> CtlError {
        CtlError::Plain(text.into())
    }

    /// Shorthand for [`CtlError::Bare`].
    pub fn bare(text: impl Into<String>) -> CtlError {
        CtlError::Bare(text.into())
    }

    /// Shorthand for [`CtlError::Usage`].
    pub fn usage(text: impl Into<String>) -> CtlError {
        CtlError::Usage(text.into())
    }

    /// As [`CtlError::gather`], but several failures that are not the server's go without `error: `.
    pub fn gather_bare(failures: Vec<CtlError>) -> Result<()> {
        if failures.len() < 2 {
            return CtlError::gather(failures);
        }
        let bare = |error: CtlError| match error {
            CtlError::Plain(text) => CtlError::Bare(text),
            other => other,
        };
        Err(CtlError::Many(failures.into_iter().map(bare).collect()))
    }

    /// What happened, without what kubectl puts before it.
    pub fn reason_text(&self) -> String {
        match self {
            CtlError::Status(status) => status["message"].as_str().unwrap_or_default().to_owned(),
            CtlError::Plain(text) | CtlError::Usage(text) | CtlError::Bare(text) => text.clone(),
            other => other.text().trim_end().to_owned(),
        }
    }

    /// The reason of a `Status`, or nothing.
    pub fn reason(&self) -> &str {
        match self {
            CtlError::Status(status) => status["reason"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    /// Whether the server says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Whether the server says that the object changed in between.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// Whether another master, or the same one a little later, may do better.
    pub fn is_passing(&self) -> bool {
        match self {
            CtlError::Io(error) => error.kind() != std::io::ErrorKind::BrokenPipe,
            CtlError::Transport(_) => true,
            other => other.reason() == "ServiceUnavailable",
        }
    }

    /// Says during what a `Status` came, the way kubectl does for files.
    pub fn during(mut self, verb: &str, source: Option<&str>) -> CtlError {
        if let (CtlError::Status(status), Some(source)) = (&mut self, source) {
            let message = format!("error when {verb} {source:?}: {}", status["message"].as_str().unwrap_or_default());
            status["message"] = Value::String(message);
        }
        self
    }

    /// Collects the failures of several targets into one; none is success.
    pub fn gather(mut failures: Vec<CtlError>) -> Result<()> {
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(CtlError::Many(failures)),
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            CtlError::Exit(code) => *code,
            _ => 1,
        }
    }

    /// What is printed on standard error, with a line end; empty if there is nothing to say.
    pub fn text(&self) -> String {
        match self {
            CtlError::Status(status) => status_text(status),
            CtlError::Transport(error) => transport_text(error),
            CtlError::Plain(text) => format!("error: {text}\n"),
            CtlError::Usage(text) => {
                format!("error: {text}\nSee '{} -h' for help and examples\n", super::flags::path())
            }
            CtlError::Bare(text) => format!("{text}\n"),
            CtlError::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe => String::new(),
            CtlError::Io(error) => format!("error: {error}\n"),
            // Several stand below each other, and only what the server says has a word before it.
            CtlError::Many(errors) if errors.len() > 1 => errors
                .iter()
                .map(|error| match error {
                    CtlError::Plain(text) => format!("{text}\n"),
                    other => other.text(),
                })
                .collect(),
            CtlError::Many(errors) => errors.iter().map(CtlError::text).collect(),
            CtlError::Exit(_) => String::new(),
        }
    }
}

impl From<std::io::Error> for CtlError {
    fn from(error: std::io::Error) -> CtlError {
        CtlError::Io(error)
    }
}

impl From<kube::Error> for CtlError {
    fn from(error: kube::Error) -> CtlError {
        match error {
            kube::Error::Api(status) => CtlError::Status(Box::new(serde_json::to_value(*status).unwrap_or_default())),
            other => CtlError::Transport(Box::new(other)),
        }
    }
}

fn status_text(status: &Value) -> String {
    let message = status["message"].as_str().unwrap_or_default();
    match status["reason"].as_str().unwrap_or_default() {
        "Invalid" => invalid_text(status),
        "Unauthorized" => format!("error: You must be logged in to the server ({message})\n"),
        "" => format!("Error from server: {message}\n"),
        reason => format!("Error from server ({reason}): {message}\n"),
    }
}

fn invalid_text(status: &Value) -> String {
    let details = &status["details"];
    let (kind, name) = (details["kind"].as_str().unwrap_or_default(), details["name"].as_str().unwrap_or_default());
    let message = status["message"].as_str().unwrap_or_default();
    let nobody = kind.is_empty() && name.is_empty();
    let head = if nobody { "The request is invalid".to_owned() } else { format!("The {kind} {name:?} is invalid") };
    let causes: Vec<String> = details["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| {
            let message = cause["message"].as_str().unwrap_or_default();
            match cause["field"].as_str().filter(|field| !field.is_empty()) {
                Some(field) => format!("{field}: {message}"),
                None => message.to_owned(),
            }
        })
        .collect();
    match causes.len() {
        // Causes say what the message of somebody says.
        0 if nobody && !message.is_empty() => format!("{head}: {message}\n"),
        0 => format!("{head}\n"),
        1 => format!("{head}: {}\n", causes[0]),
        _ => format!("{head}: \n{}\n", causes.iter().map(|cause| format!("* {cause}")).collect::<Vec<_>>().join("\n")),
    }
}

fn transport_text(error: &kube::Error) -> String {
    match MastersError::of(error) {
        Some(MastersError::Unreachable(failures)) => unreachable_text(failures),
        Some(other) => format!("Unable to connect to the server: {other}\n"),
        None => format!("Unable to connect to the server: {error}\n"),
    }
}

fn unreachable_text(failures: &[DialFailure]) -> String {
    let [only] = failures else {
        let mut text = "Unable to connect to the server: none of its masters can be reached\n".to_owned();
        for failure in failures {
            text.push_str(&format!("  {}: {}\n", failure.url, failure.reason));
        }
        return text;
    };
    match only.kind {
        DialFailureKind::Refused => {
            let host = only.url.trim_start_matches("https://").trim_start_matches("http://");
            format!("The connection to the server {host} was refused - did you specify the right host or port?\n")
        }
        _ => format!("Unable to connect to the server: {}\n", only.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(value: Value) -> String {
        CtlError::Status(Box::new(value)).text()
    }

    #[test]
    fn statuses_read_like_kubectls() {
        assert_eq!(
            status(json!({"reason": "NotFound", "message": "pods \"x\" not found"})),
            "Error from server (NotFound): pods \"x\" not found\n"
        );
        assert_eq!(
            status(json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": [
                {"field": "spec.containers", "message": "Required value"}]}})),
            "The Pod \"x\" is invalid: spec.containers: Required value\n"
        );
        assert_eq!(
            status(json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": [
                {"field": "a", "message": "b"}, {"message": "c"}]}})),
            "The Pod \"x\" is invalid: \n* a: b\n* c\n"
        );
        assert_eq!(
            status(json!({"reason": "Invalid", "message": " \"\" is invalid: patch: no", "details": {"causes": [
                {"field": "patch", "message": "no"}]}})),
            "The request is invalid: patch: no\n"
        );
        assert_eq!(status(json!({"reason": "Invalid", "message": "no"})), "The request is invalid: no\n");
        assert_eq!(
            status(json!({"reason": "Unauthorized", "message": "Unauthorized"})),
            "error: You must be logged in to the server (Unauthorized)\n"
        );
    }

    #[test]
    fn the_source_is_named() {
        let error = CtlError::Status(Box::new(json!({"reason": "AlreadyExists", "message": "m"})));
        assert_eq!(
            error.during("creating", Some("web.yaml")).text(),
            "Error from server (AlreadyExists): error when creating \"web.yaml\": m\n"
        );
    }

    #[test]
    fn a_refused_connection_reads_like_kubectls() {
        let failure = |url: &str| DialFailure { url: url.into(), kind: DialFailureKind::Refused, reason: "r".into() };
        assert_eq!(
            unreachable_text(&[failure("https://10.0.0.1:6443")]),
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?\n"
        );
        assert!(unreachable_text(&[failure("https://a"), failure("https://b")]).contains("  https://b: r\n"));
    }
}
