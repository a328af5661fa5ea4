//! Making a pod's sandbox and running its containers: everything between the machine's wish and the shim's answer.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use nix::sys::signal::Signal;
use rand::Rng;

use crate::images::{Credentials, Image, ImageError, Pin, PullPolicy};
use crate::network::{HostPort, Protocol};
use crate::pods::env::{self, Facts};
use crate::pods::machine::Event;
use crate::pods::oci::{self, Bind, Inputs};
use crate::pods::slots::{Kind, time};
use crate::pods::{Context, files, log_file, resources, volumes};
use crate::runtime::cgroups::Limits;
use crate::shim::client::{Shim, ShimError, Watch};
use crate::shim::protocol::{CONTAINERS, ContainerSpec, Exit, PodShim, VERSION, now_ns};

/// Host path of `/etc/hosts` and the like, given to pods on the node's network.
fn host_file(name: &str) -> String {
    fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default()
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// True if the pod lives in the node's network namespace.
pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// What the downward API may tell.
pub(crate) fn facts(context: &Context, ips: &[String]) -> Facts {
    Facts {
        pod_ips: ips.to_vec(),
        host_ip: context.config.node_ip.to_string(),
        node_cpu_milli: context.machine.cpus * 1000,
        node_memory: context.machine.memory_bytes,
    }
}

/// Cgroup of a pod's shim.
pub(crate) fn shim_cgroup(context: &Context, uid: &str) -> String {
    format!("{}/shims/{uid}", context.config.cgroup_root)
}

/// What went wrong with a sandbox: an event's reason and message.
pub(crate) struct SandboxError(pub(crate) &'static str, pub(crate) String);

fn sandbox_error(error: impl std::fmt::Display) -> SandboxError {
    SandboxError("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"))
}

/// Starts a pod's shim, gives it a network and makes the volumes. Returns the pod's addresses.
pub(crate) async fn create_sandbox(context: &Context, pod: &Pod) -> Result<(Vec<String>, Watch), SandboxError> {
    if !host_network(pod) && !*context.network_ready.borrow() {
        let message = "network is not ready: the node has no podCIDR yet".to_owned();
        return Err(SandboxError("NetworkNotReady", message));
    }
    let directory = context.pod_directory(uid(pod));
    fs::create_dir_all(&directory).map_err(sandbox_error)?;
    let config = &context.config;
    let cgroup = resources::pod_cgroup(&config.cgroup_root, pod);
    context.cgroups.create(&cgroup).map_err(sandbox_error)?;
    context.cgroups.limit(&cgroup, &resources::pod_limits(pod)).map_err(sandbox_error)?;
    let spec = pod.spec.as_ref();
    let shim = PodShim {
        version: VERSION,
        uid: uid(pod).to_owned(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        hostname: files::hostname(pod, &config.node_name),
        shim_cgroup: shim_cgroup(context, uid(pod)),
        pod_cgroup: cgroup,
        host_network: host_network(pod),
        host_ipc: spec.and_then(|s| s.host_ipc).unwrap_or(false),
        share_pid: spec.and_then(|s| s.share_process_namespace).unwrap_or(false),
        tmpfs: volumes::tmpfs(pod, &directory),
    };
    let started = async {
        let shim = Shim::start(&config.shim_program, &directory, &shim).await.map_err(sandbox_error)?;
        let (_, watch) = shim.watch().await.map_err(sandbox_error)?;
        let ips = attach(context, pod, watch.shim_pid).await?;
        Ok((ips, watch))
    };
    let facts = facts(context, &[]);
    let volumes = async {
        let made = volumes::set_up(&context.client, pod, &directory, &facts).await;
        made.map_err(|error| SandboxError("FailedMount", error.to_string()))
    };
    let result = tokio::try_join!(started, volumes);
    let written = result.and_then(|((ips, watch), ())| {
        write_files(context, pod, &directory, &ips).map_err(sandbox_error)?;
        Ok((ips, watch))
    });
    if written.is_err() {
        let _ = Shim::at(&directory).shut_down().await;
        let _ = context.network.detach(uid(pod)).await;
    }
    written
}

async fn attach(context: &Context, pod: &Pod, shim_pid: i32) -> Result<Vec<String>, SandboxError> {
    if host_network(pod) {
        return Ok(vec![context.config.node_ip.to_string()]);
    }
    let netns = fs::File::open(format!("/proc/{shim_pid}/ns/net")).map_err(sandbox_error)?;
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let ports: Vec<HostPort> = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                host_ip: port
                    .host_ip
                    .as_ref()
                    .and_then(|ip| ip.parse::<Ipv4Addr>().ok())
                    .filter(|ip| !ip.is_unspecified()),
                host_port: port.host_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: Protocol::from_api(port.protocol.as_deref()),
            })
        })
        .collect();
    let network = context.network.attach(uid(pod), netns.as_fd(), &ports).await.map_err(sandbox_error)?;
    Ok(vec![network.ip.to_string()])
}

/// Writes the files that are mounted into every container.
fn write_files(context: &Context, pod: &Pod, directory: &Path, ips: &[String]) -> std::io::Result<()> {
    let config = &context.config;
    let etc = directory.join("etc");
    fs::create_dir_all(&etc)?;
    let hosts = files::hosts(pod, ips, &config.node_name, &config.cluster_domain, &host_file("hosts"));
    fs::write(etc.join("hosts"), hosts)?;
    fs::write(etc.join("hostname"), format!("{}\n", files::hostname(pod, &config.node_name)))?;
    let resolv = files::resolv_conf(pod, &config.cluster_dns, &config.cluster_domain, &host_file("resolv.conf"));
    fs::write(etc.join("resolv.conf"), resolv)
}

/// Why a container was not run: the waiting state's reason, and a message.
struct Failure {
    reason: String,
    message: String,
}

fn config_error(message: impl Into<String>) -> Failure {
    Failure { reason: "CreateContainerConfigError".to_owned(), message: message.into() }
}

/// Makes the image present and runs one container; says what came of it.
pub(crate) async fn run(
    context: &Context,
    pod: &Pod,
    container: &Container,
    (index, kind, attempt): (usize, Kind, u32),
    ips: &[String],
    image_tried: bool,
) -> Event {
    let about = Some((container.name.as_str(), kind != Kind::App));
    // The pin has to last until the shim has the container's record.
    let (image, _pin) = match ensure_image(context, pod, container, about, image_tried).await {
        Ok(found) => found,
        Err(Failure { reason, message }) => return Event::LaunchFailed { index, reason, message, exit: None },
    };
    let id = new_id();
    let directory = context.pod_directory(uid(pod)).join(CONTAINERS).join(&id);
    let spec = match prepare(context, pod, container, &image, (&id, attempt), ips, &directory).await {
        Ok(spec) => spec,
        Err(Failure { reason, message }) => {
            let _ = fs::remove_dir_all(&directory);
            return Event::LaunchFailed { index, reason, message, exit: None };
        }
    };
    let image_name = spec.image.clone();
    match Shim::at(&context.pod_directory(uid(pod))).start_container(spec).await {
        Ok((_, started_ns)) => {
            context.emit(pod, about, false, "Created", "Container created");
            context.emit(pod, about, false, "Started", "Container started");
            Event::Started { index, id, at: time(started_ns), image_id: image.image_id(), image: image_name }
        }
        Err(ShimError::Refused(message)) => {
            let now = now_ns();
            let message = format!("failed to start container: {message}");
            let exit = Exit {
                code: 128,
                signal: 0,
                oom_killed: false,
                started_ns: 0,
                finished_ns: now,
                message: Some(message.clone()),
                start_failed: true,
            };
            Event::LaunchFailed { index, reason: "RunContainerError".to_owned(), message, exit: Some((id, exit)) }
        }
        Err(error) => {
            let message = error.to_string();
            Event::LaunchFailed { index, reason: "CreateContainerError".to_owned(), message, exit: None }
        }
    }
}

async fn ensure_image(
    context: &Context,
    pod: &Pod,
    container: &Container,
    about: Option<(&str, bool)>,
    tried: bool,
) -> Result<(std::sync::Arc<Image>, Pin), Failure> {
    let name = container.image.as_deref().unwrap_or_default();
    let policy = PullPolicy::from_api(container.image_pull_policy.as_deref());
    let present = matches!(context.images.resolve(name), Ok(Some(_)));
    if !present && policy != PullPolicy::Never && !tried {
        context.emit(pod, about, false, "Pulling", &format!("Pulling image \"{name}\""));
    }
    let credentials = credentials(context, pod, present).await;
    match context.images.ensure(name, policy, &credentials).await {
        Ok(ensured) if ensured.pulled => {
            let took = ensured.took.as_millis();
            let took = if took >= 1000 { format!("{:.3}s", ensured.took.as_secs_f64()) } else { format!("{took}ms") };
            let message = format!(
                "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {} bytes.",
                ensured.image.size
            );
            context.emit(pod, about, false, "Pulled", &message);
            Ok((ensured.image, ensured.pin))
        }
        Ok(ensured) => {
            let message =
                format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
            context.emit(pod, about, false, "Pulled", &message);
            Ok((ensured.image, ensured.pin))
        }
        Err(error) => Err(image_failure(context, pod, about, name, &error, tried)),
    }
}

fn image_failure(
    context: &Context,
    pod: &Pod,
    about: Option<(&str, bool)>,
    name: &str,
    error: &ImageError,
    tried: bool,
) -> Failure {
    let text = error.to_string();
    match error.reason() {
        "ErrImagePull" if tried => {
            let message = format!("Back-off pulling image \"{name}\": ErrImagePull: {text}");
            context.emit(pod, about, false, "BackOff", &format!("Back-off pulling image \"{name}\""));
            Failure { reason: "ImagePullBackOff".to_owned(), message }
        }
        "ErrImagePull" => {
            context.emit(pod, about, true, "Failed", &format!("Failed to pull image \"{name}\": {text}"));
            Failure { reason: "ErrImagePull".to_owned(), message: text }
        }
        "ErrImageNeverPull" => {
            context.emit(pod, about, true, "ErrImageNeverPull", &text);
            Failure { reason: "ErrImageNeverPull".to_owned(), message: text }
        }
        "InvalidImageName" => {
            let message = format!("Failed to apply default image tag \"{name}\": {text}");
            context.emit(pod, about, true, "InspectFailed", &message);
            Failure { reason: "InvalidImageName".to_owned(), message }
        }
        reason => Failure { reason: reason.to_owned(), message: text },
    }
}

async fn credentials(context: &Context, pod: &Pod, present: bool) -> Credentials {
    let mut credentials = Credentials::default();
    if present {
        return credentials;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    for reference in pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        let Ok(Some(data)) = volumes::secret_data(&context.client, namespace, &reference.name).await else { continue };
        // One that cannot be read is as good as none: the pull then says what is missing.
        if let Some(json) = data.get(".dockerconfigjson") {
            let _ = credentials.add_docker_config_json(json);
        }
        if let Some(json) = data.get(".dockercfg") {
            let _ = credentials.add_dockercfg(json);
        }
    }
    credentials
}

fn new_id() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the container's directory and says how the shim is to run it.
async fn prepare(
    context: &Context,
    pod: &Pod,
    container: &Container,
    image: &Image,
    (id, attempt): (&str, u32),
    ips: &[String],
    directory: &Path,
) -> Result<ContainerSpec, Failure> {
    let facts = facts(context, ips);
    let env = environment(context, pod, container, image, &facts).await.map_err(config_error)?;
    let lookup: BTreeMap<String, String> = env.iter().cloned().collect();
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| env::expand(text, &lookup)).collect()
    };
    let args = oci::command(&expand(&container.command), &expand(&container.args), &image.config);
    if args.is_empty() {
        return Err(config_error("no command specified"));
    }
    fs::create_dir_all(directory).map_err(|error| config_error(error.to_string()))?;
    let pod_directory = context.pod_directory(uid(pod));
    let binds = binds(pod, container, &pod_directory, directory, &lookup).map_err(config_error)?;
    let cgroup = format!("{}/{id}", resources::pod_cgroup(&context.config.cgroup_root, pod));
    let score = resources::oom_score(pod, container, context.machine.memory_bytes);
    let limits = Limits { pids: None, ..resources::container_limits(container) };
    let can_lower = context.grantable.contains(&"SYS_RESOURCE");
    let config = oci::config(&Inputs {
        pod,
        container,
        image: &image.config,
        env: &env,
        args,
        binds: &binds,
        cgroup: &cgroup,
        limits,
        // Without the capability the kernel refuses a lower score, and the container would not start at all.
        oom_score: (score >= 0 || can_lower).then_some(score),
        v2: context.cgroups.is_v2(),
        grantable: &context.grantable,
    });
    let written = fs::write(directory.join("config.json"), config.to_string());
    written.map_err(|error| config_error(error.to_string()))?;
    let (user, extra_groups, run_as_non_root) = user(pod, container, image);
    Ok(ContainerSpec {
        id: id.to_owned(),
        name: container.name.clone(),
        attempt,
        image: image_name(container, image),
        image_id: image.image_id(),
        layers: image.layers.clone(),
        user,
        extra_groups,
        run_as_non_root,
        terminal: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        stop_signal: stop_signal(container, image),
        cgroup,
        log: log_file(&context.log_directory(pod), &container.name, attempt),
        log_max_bytes: context.config.log_max_bytes,
        log_max_files: context.config.log_max_files,
    })
}

/// The image's full name: of the names it has, the one that the pod means.
fn image_name(container: &Container, image: &Image) -> String {
    let written = container.image.clone().unwrap_or_default();
    let last = written.rsplit('/').next().unwrap_or_default();
    let tagged = if last.contains([':', '@']) { written.clone() } else { format!("{written}:latest") };
    let names = || image.repo_tags.iter().chain(&image.repo_digests);
    let found = names().find(|name| **name == tagged || name.ends_with(&format!("/{tagged}")));
    found.or_else(|| image.repo_tags.first()).cloned().unwrap_or(written)
}

fn stop_signal(container: &Container, image: &Image) -> i32 {
    let own = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone());
    let text = own.or_else(|| image.config.stop_signal.clone()).unwrap_or_default();
    let name = if text.starts_with("SIG") { text.clone() } else { format!("SIG{text}") };
    let named = name.parse::<Signal>().ok().map(|signal| signal as i32);
    named.or_else(|| text.parse().ok()).unwrap_or(Signal::SIGTERM as i32)
}

fn user(pod: &Pod, container: &Container, image: &Image) -> (String, Vec<u32>, bool) {
    let pod_context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let context = container.security_context.as_ref();
    let uid = context.and_then(|c| c.run_as_user).or_else(|| pod_context.and_then(|c| c.run_as_user));
    let gid = context.and_then(|c| c.run_as_group).or_else(|| pod_context.and_then(|c| c.run_as_group));
    let non_root = context.and_then(|c| c.run_as_non_root).or_else(|| pod_context.and_then(|c| c.run_as_non_root));
    let base = uid.map_or_else(|| image.config.user.clone(), |uid| uid.to_string());
    let user = match gid {
        Some(gid) => format!("{}:{gid}", base.split(':').next().unwrap_or_default()),
        None => base,
    };
    let groups = pod_context.into_iter().flat_map(|c| c.supplemental_groups.iter().flatten().chain(&c.fs_group));
    (user, groups.filter_map(|group| u32::try_from(*group).ok()).collect(), non_root.unwrap_or(false))
}

/// All variables of a container, in order, later ones over earlier ones.
async fn environment(
    context: &Context,
    pod: &Pod,
    container: &Container,
    image: &Image,
    facts: &Facts,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    env.insert("HOSTNAME".to_owned(), files::hostname(pod, &context.config.node_name));
    if container.tty.unwrap_or(false) {
        env.insert("TERM".to_owned(), "xterm".to_owned());
    }
    env.extend(
        image.config.env.iter().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = context.services.state();
    let visible = services.iter().map(AsRef::as_ref).filter(|service| {
        let at = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        at == (Some("default"), Some("kubernetes")) || (links && at.0 == Some(namespace))
    });
    let mut own: BTreeMap<String, String> = env::service_variables(visible);
    let client = &context.client;
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (data, what, optional) = if let Some(reference) = &source.config_map_ref {
            let data = volumes::config_map_data(client, namespace, &reference.name).await?;
            (data, format!("configmap \"{}\" not found", reference.name), reference.optional)
        } else if let Some(reference) = &source.secret_ref {
            let data = volumes::secret_data(client, namespace, &reference.name).await?;
            (data, format!("secret \"{}\" not found", reference.name), reference.optional)
        } else {
            continue;
        };
        match data {
            Some(data) => own.extend(
                data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), String::from_utf8_lossy(&v).into_owned())),
            ),
            None if optional.unwrap_or(false) => {}
            None => return Err(what),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(env::expand(variable.value.as_deref().unwrap_or_default(), &own)),
            Some(source) => value_from(context, pod, container, source, facts).await?,
        };
        if let Some(value) = value {
            own.insert(variable.name.clone(), value);
        }
    }
    env.extend(own);
    Ok(env.into_iter().collect())
}

async fn value_from(
    context: &Context,
    pod: &Pod,
    container: &Container,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
    facts: &Facts,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(reference) = &source.field_ref {
        return env::field(pod, facts, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let divisor = reference.divisor.as_ref().map(|q| q.0.as_str());
        return env::resource(container, facts, &reference.resource, divisor).map(Some);
    }
    let (data, kind, name, key, optional) = if let Some(r) = &source.config_map_key_ref {
        (volumes::config_map_data(&context.client, namespace, &r.name).await?, "configmap", &r.name, &r.key, r.optional)
    } else if let Some(r) = &source.secret_key_ref {
        (volumes::secret_data(&context.client, namespace, &r.name).await?, "secret", &r.name, &r.key, r.optional)
    } else {
        return Err("unsupported valueFrom".to_owned());
    };
    let optional = optional.unwrap_or(false);
    match data {
        None if optional => Ok(None),
        None => Err(format!("{kind} \"{name}\" not found")),
        Some(data) => match data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
        },
    }
}

/// What is mounted into the container besides the system's own mounts.
fn binds(
    pod: &Pod,
    container: &Container,
    pod_directory: &Path,
    directory: &Path,
    lookup: &BTreeMap<String, String>,
) -> Result<Vec<Bind>, String> {
    let bind = |source: PathBuf, target: &str, read_only| Bind {
        source,
        target: target.to_owned(),
        read_only,
        propagation: "rprivate",
    };
    let termination = directory.join("termination-log");
    fs::write(&termination, b"").map_err(|error| error.to_string())?;
    let _ = fs::set_permissions(&termination, std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let log_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let mut all = vec![bind(pod_directory.join("shm"), "/dev/shm", false), bind(termination, log_path, false)];
    for mount in container.volume_mounts.iter().flatten() {
        all.push(volume_bind(pod, mount, pod_directory, lookup)?);
    }
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if !all.iter().any(|bind| bind.target == target) {
            all.push(bind(pod_directory.join("etc").join(name), &target, false));
        }
    }
    Ok(all)
}

fn volume_bind(
    pod: &Pod,
    mount: &VolumeMount,
    pod_directory: &Path,
    lookup: &BTreeMap<String, String>,
) -> Result<Bind, String> {
    let volume = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .find(|volume| volume.name == mount.name)
        .ok_or_else(|| format!("cannot find volume \"{}\" to mount", mount.name))?;
    let mut source = volumes::path(pod_directory, volume);
    let sub = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expression), _) if !expression.is_empty() => env::expand(expression, lookup),
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    if !sub.is_empty() {
        let base = source.canonicalize().map_err(|error| error.to_string())?;
        source.push(&sub);
        if !source.exists() {
            crate::runtime::rootfs::make_directory(&base, Path::new(&sub)).map_err(|error| error.to_string())?;
        }
        // A link inside the volume must not lead out of it.
        source = source.canonicalize().map_err(|error| error.to_string())?;
        if !source.starts_with(&base) {
            return Err(format!("subPath \"{sub}\" leads out of volume \"{}\"", mount.name));
        }
    }
    let content = volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some();
    Ok(Bind {
        source,
        target: mount.mount_path.clone(),
        read_only: mount.read_only.unwrap_or(false) || content || volume.projected.is_some(),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => "rslave",
            Some("Bidirectional") => "rshared",
            _ => "rprivate",
        },
    })
}
