//! `trictl debug`: a container for looking around, in a pod, in a copy of a pod, or on a node.

mod make;
mod profile;

use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

pub use self::make::suffix;
use self::make::{Made, Maker};
use self::profile::{Keep, Profile};
use super::api::Call;
use super::attach::{self, AttachArgs};
use super::change::difference;
use super::errors::{CtlError, Result};
use super::flags::boolean;
use super::image;
use super::manifest::Files;
use super::print::emit;
use super::run::attached;
use super::session::Session;
use super::targets::{self, Selection, Target};

const PAUSE: Duration = Duration::from_millis(200);
/// When it is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Create debugging sessions for troubleshooting workloads and nodes.
#[derive(Debug, Clone, Default, Args)]
pub struct DebugArgs {
    /// POD or TYPE/NAME
    pub names: Vec<String>,
    /// What stands behind -- are arguments of the image's command
    #[arg(long)]
    pub arguments_only: bool,
    /// Wait for the container and attach to it; the default is whether -i is given
    #[arg(long, value_parser = boolean, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub attach: Option<bool>,
    /// Name of the container
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub container: String,
    /// Name for a copy of the pod
    #[arg(long, default_value = "", hide_default_value = true)]
    pub copy_to: String,
    /// A file with a part of a container's spec, put over what the profile says
    #[arg(long, default_value = "", hide_default_value = true)]
    pub custom: String,
    /// NAME=VALUE, separated by commas or any number of times
    #[arg(long, value_delimiter = ',')]
    pub env: Vec<String>,
    /// A file with the pod or node
    #[arg(short = 'f', long, value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Image of the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub image: String,
    /// Always, IfNotPresent or Never
    #[arg(long, default_value = "", hide_default_value = true)]
    pub image_pull_policy: String,
    /// A copy keeps the pod's annotations
    #[arg(long)]
    pub keep_annotations: bool,
    /// A copy keeps the pod's init containers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub keep_init_containers: bool,
    /// A copy keeps the pod's labels
    #[arg(long)]
    pub keep_labels: bool,
    /// A copy keeps liveness probes
    #[arg(long)]
    pub keep_liveness: bool,
    /// A copy keeps readiness probes
    #[arg(long)]
    pub keep_readiness: bool,
    /// A copy keeps startup probes
    #[arg(long)]
    pub keep_startup: bool,
    /// legacy, general, baseline, netadmin, restricted or sysadmin
    #[arg(long, default_value = "legacy")]
    pub profile: String,
    /// Only what the container says
    #[arg(short, long)]
    pub quiet: bool,
    /// With --copy-to, delete the pod that was copied
    #[arg(long)]
    pub replace: bool,
    /// With --copy-to, run the copy on the same node
    #[arg(long)]
    pub same_node: bool,
    /// With --copy-to, container=image pairs; * is every container
    #[arg(long, value_delimiter = ',')]
    pub set_image: Vec<String>,
    /// With --copy-to, whether the copy's containers see each other's processes
    #[arg(long, value_parser = boolean, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub share_processes: Option<bool>,
    /// Keep the container's standard input open, and attach to it
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// The container whose processes the new one is to see
    #[arg(long, default_value = "", hide_default_value = true)]
    pub target: String,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Command of the container
    #[arg(last = true)]
    pub words: Vec<String>,
}

fn plain<T>(text: impl Into<String>) -> Result<T> {
    Err(CtlError::plain(text))
}

/// Runs the verb.
pub async fn run(session: &Session, args: &DebugArgs) -> Result<()> {
    let Some(profile) = Profile::parse(&args.profile) else {
        return plain(format!("unknown profile: {}", args.profile));
    };
    let custom = custom(&args.custom)?;
    check(args)?;
    check_custom(custom.as_ref())?;
    if profile == Profile::Legacy {
        eprintln!(
            "--profile=legacy is deprecated and will be removed in the future. It is recommended to explicitly specify a \
             profile, for example \"--profile=general\"."
        );
    }
    let maker = maker(args, profile, custom)?;
    let files = Files { filename: args.filename.clone(), ..Files::default() };
    let (mut found, failures) = targets::from_files(session, &files).await?;
    CtlError::gather(failures)?;
    let named = |word: &String| if word.contains('/') { word.clone() } else { format!("pods/{word}") };
    let words: Vec<String> = args.names.iter().map(named).collect();
    if !words.is_empty() {
        found.extend(targets::resolve(session, &words, &Files::default(), &Selection::default()).await?.0);
    }
    for target in found {
        one(session, args, &maker, &target).await?;
    }
    Ok(())
}

/// What is in the file of `--custom`.
fn custom(path: &str) -> Result<Option<Value>> {
    if path.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(|error| {
        let why = super::print::os_reason(&error);
        CtlError::plain(format!("must pass a container spec json file for custom profile: open {path}: {why}"))
    })?;
    let value: Value = serde_norway::from_str(&text)
        .map_err(|error| CtlError::plain(format!("{path} does not contain a valid container spec: {error}")))?;
    if !value.is_object() {
        return plain(format!("{path} does not contain a valid container spec: it is no object"));
    }
    Ok(Some(value))
}

fn check_custom(custom: Option<&Value>) -> Result<()> {
    let fixed = ["name", "command", "image", "lifecycle", "volumeDevices"];
    if custom.is_some_and(|custom| fixed.iter().any(|field| !custom[*field].is_null())) {
        return plain("name, command, image, lifecycle and volume devices are not modifiable via custom profile");
    }
    Ok(())
}

/// Flags that do not go together, and bad values.
fn check(args: &DebugArgs) -> Result<()> {
    if args.attach == Some(true) && args.image.is_empty() && args.container.is_empty() {
        return plain("you must specify --container or create a new container using --image in order to attach.");
    }
    if !args.copy_to.is_empty() {
        if args.image.is_empty() && args.set_image.is_empty() && args.words.is_empty() {
            return plain("you must specify --image, --set-image or command arguments.");
        }
        if !args.words.is_empty() && args.container.is_empty() && args.image.is_empty() {
            return plain("you must specify an existing container or a new image when specifying args.");
        }
    } else {
        let of_copies =
            [(args.replace, "--replace"), (args.same_node, "--same-node"), (!args.set_image.is_empty(), "--set-image")];
        if let Some((_, flag)) = of_copies.iter().find(|(given, _)| *given) {
            return plain(format!("{flag} may only be used with --copy-to."));
        }
        if args.image.is_empty() {
            return plain("you must specify --image when not using --copy-to.");
        }
    }
    if !args.image.is_empty() && !image::is_valid(&args.image) {
        return plain(format!("invalid image name {:?}: invalid reference format", args.image));
    }
    if args.names.is_empty() && args.filename.is_empty() {
        return plain("NAME or filename is required for debug");
    }
    if !["", "Always", "IfNotPresent", "Never"].contains(&args.image_pull_policy.as_str()) {
        return plain(format!("invalid image pull policy: {}", args.image_pull_policy));
    }
    for (name, image) in pairs(&args.set_image)? {
        if !image::is_valid(&image) {
            return plain(format!("invalid image name {image:?} for container {name:?}: invalid reference format"));
        }
    }
    if !args.target.is_empty() {
        if !args.copy_to.is_empty() {
            return plain("--target is incompatible with --copy-to. Use --share-processes instead.");
        }
        if !args.quiet {
            emit(&format!(
                "Targeting container {:?}. If you don't see processes from this container it may be because the \
                 container runtime doesn't support this feature.\n",
                args.target
            ))?;
        }
    }
    if args.tty && !args.stdin {
        return plain("-i/--stdin is required for containers with -t/--tty=true");
    }
    Ok(())
}

fn pairs(words: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => plain(format!("{word} must be formatted as key=value")),
    };
    words.iter().map(pair).collect()
}

fn maker(args: &DebugArgs, profile: Profile, custom: Option<Value>) -> Result<Maker> {
    Ok(Maker {
        image: args.image.clone(),
        pull_policy: args.image_pull_policy.clone(),
        words: args.words.clone(),
        arguments_only: args.arguments_only,
        env: pairs(&args.env)?.iter().map(|(name, value)| json!({"name": name, "value": value})).collect(),
        stdin: args.stdin,
        tty: args.tty,
        container: args.container.clone(),
        target: args.target.clone(),
        images: pairs(&args.set_image)?,
        same_node: args.same_node,
        share_processes: args.share_processes,
        profile,
        keep: Keep {
            labels: args.keep_labels,
            annotations: args.keep_annotations,
            liveness: args.keep_liveness,
            readiness: args.keep_readiness,
            startup: args.keep_startup,
            init_containers: args.keep_init_containers,
        },
        custom,
    })
}

async fn one(session: &Session, args: &DebugArgs, maker: &Maker, target: &Target) -> Result<()> {
    let object = target.fetch(session).await?;
    let resource = &target.resource;
    let (pod, container) = match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Node") => on_node(session, args, maker, &target.name).await?,
        ("", "Pod") => OnePod { session, args, maker, target, pod: &object }.debugged().await?,
        _ => return plain(format!("\"{}, Kind={}\" not supported by debug", resource.api_version(), resource.kind)),
    };
    if args.attach.unwrap_or(args.stdin) && !container.is_empty() {
        return attach_to(session, args, &pod, &container).await;
    }
    Ok(())
}

fn say(args: &DebugArgs, text: &str) -> Result<()> {
    if args.quiet { Ok(()) } else { emit(text) }
}

async fn on_node(session: &Session, args: &DebugArgs, maker: &Maker, node: &str) -> Result<(Target, String)> {
    let container = if args.container.is_empty() { "debugger" } else { &args.container };
    let name = format!("node-debugger-{node}-{}", suffix());
    say(args, &format!("Creating debugging pod {name} with container {container} on node {node}.\n"))?;
    let pod = maker.for_node(node, &name, container)?;
    let target = create(session, pod, &session.namespace).await?;
    Ok((target, container.to_owned()))
}

/// A pod that is debugged.
struct OnePod<'a> {
    session: &'a Session,
    args: &'a DebugArgs,
    maker: &'a Maker,
    target: &'a Target,
    pod: &'a Value,
}

impl OnePod<'_> {
    /// The pod to attach to, which may be a copy, and the container in it.
    async fn debugged(&self) -> Result<(Target, String)> {
        if self.args.copy_to.is_empty() { self.in_itself().await } else { self.in_copy().await }
    }

    async fn in_itself(&self) -> Result<(Target, String)> {
        let name = new_name(self.args, self.pod)?;
        let Made { pod: after, container } = self.maker.for_pod(self.pod, &name)?;
        warn_of_user(&after, &container);
        let (patch, kind) = difference(self.target, self.pod, &after)?;
        let path = format!("{}/ephemeralcontainers", self.target.path());
        let call = Call::new(Method::PATCH, path).body_as(kind, &patch);
        self.session.api.json(&call).await.map_err(|error| match &error {
            CtlError::Status(status) if error.is_not_found() && status["details"]["name"].as_str().is_none() => {
                let why = error.reason_text();
                CtlError::plain(format!(
                    "ephemeral containers are disabled for this cluster (error from server: {why:?})"
                ))
            }
            _ => error,
        })?;
        Ok((self.target.clone(), container))
    }

    async fn in_copy(&self) -> Result<(Target, String)> {
        let new = if self.maker.adds_container(self.pod) { new_name(self.args, self.pod)? } else { String::new() };
        let Made { pod: copy, container } = self.maker.copy(self.pod, &self.args.copy_to, &new)?;
        warn_of_user(&copy, &container);
        let made = create(self.session, copy, self.target.namespace.as_deref().unwrap_or_default()).await?;
        if self.args.replace {
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
            self.session.api.json(&Call::new(Method::DELETE, self.target.path()).body(&body)).await?;
        }
        Ok((made, container))
    }
}

/// The name asked for, or one that the pod does not have yet.
fn new_name(args: &DebugArgs, pod: &Value) -> Result<String> {
    if !args.container.is_empty() {
        return Ok(args.container.clone());
    }
    let taken = super::pods::containers(pod);
    let name = loop {
        let name = format!("debugger-{}", suffix());
        if !taken.contains(&name) {
            break name;
        }
    };
    say(args, &format!("Defaulting debug container name to {name}.\n"))?;
    Ok(name)
}

async fn create(session: &Session, pod: Value, namespace: &str) -> Result<Target> {
    let resource = session.discovery().await?.need("pods")?;
    let call = Call::new(Method::POST, resource.path(Some(namespace))).body(&pod);
    let made = session.api.json(&call).await?;
    Ok(Target { object: None, ..targets::of_object(&resource, made) })
}

fn warn_of_user(pod: &Value, container: &str) {
    if profile::is_hindered(pod, container) {
        eprintln!(
            "Warning: Non-root user is configured for the entire target Pod, and some capabilities granted by debug \
             profile may not work. Please consider using \"--custom\" with a custom profile that specifies \
             \"securityContext.runAsUser: 0\"."
        );
    }
}

/// The state of a container, of whichever sort.
fn state<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"].into_iter();
    let mut all = lists.flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    all.find(|status| status["name"] == container).map(|status| &status["state"])
}

async fn attach_to(session: &Session, args: &DebugArgs, target: &Target, container: &str) -> Result<()> {
    let pod = wait(session, args, target, container).await?;
    if state(&pod, container).is_some_and(|state| state["terminated"].is_object()) {
        return attached::logs(session, target, container).await;
    }
    let flags = AttachArgs { stdin: args.stdin, tty: args.tty, quiet: args.quiet, ..AttachArgs::default() };
    if let Err(error) = attach::to(session, target, &pod, container, &flags).await {
        let text = error.reason_text();
        eprintln!("warning: couldn't attach to pod/{}, falling back to streaming logs: {text}", target.name);
        return attached::logs(session, target, container).await;
    }
    Ok(())
}

/// Waits until the container runs or has run; returns the pod.
async fn wait(session: &Session, args: &DebugArgs, target: &Target, container: &str) -> Result<Value> {
    let (begun, mut told, mut said) = (Instant::now(), args.quiet, String::new());
    loop {
        let pod = session.api.json(&Call::get(target.path())).await?;
        let state = state(&pod, container).cloned().unwrap_or_default();
        if state["running"].is_object() || state["terminated"].is_object() {
            return Ok(pod);
        }
        let why = state["waiting"]["message"].as_str().unwrap_or_default();
        if !args.quiet && !why.is_empty() && why != said {
            eprintln!("Warning: container {container}: {why}");
            said = why.to_owned();
        }
        if !told && begun.elapsed() >= PATIENCE {
            told = true;
            eprintln!("Waiting for container {container} of pod/{} to start.", target.name);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_to_fit() {
        let base = DebugArgs { names: vec!["p".into()], image: "busybox".into(), ..DebugArgs::default() };
        assert!(check(&base).is_ok());
        let said = |args: &DebugArgs| check(args).err().map(|error| error.reason_text()).unwrap_or_default();
        assert!(said(&DebugArgs { image: String::new(), ..base.clone() }).starts_with("you must specify --image when"));
        assert!(said(&DebugArgs { image: "B B".into(), ..base.clone() }).contains("invalid reference format"));
        assert!(said(&DebugArgs { names: Vec::new(), ..base.clone() }).starts_with("NAME or filename"));
        assert!(said(&DebugArgs { replace: true, ..base.clone() }).starts_with("--replace may only"));
        assert!(said(&DebugArgs { tty: true, ..base.clone() }).starts_with("-i/--stdin is required"));
        let copy = DebugArgs { copy_to: "c".into(), image: String::new(), ..base };
        assert!(said(&copy).starts_with("you must specify --image, --set-image"));
        assert!(
            said(&DebugArgs { words: vec!["sh".into()], ..copy.clone() }).starts_with("you must specify an existing")
        );
        assert!(said(&DebugArgs { set_image: vec!["a".into()], ..copy.clone() }).contains("must be formatted as"));
        assert!(check(&DebugArgs { set_image: vec!["*=b".into()], ..copy }).is_ok());
    }
}
