//! The only caller of `libcontainer`.
//!
//! All of it runs in a one-shot child of the shim: `libcontainer` clones without exec, changes its caller's
//! directory and leaves zombies when it fails. With `as_sibling` the container's processes become children of the
//! shim, not of the short-lived caller.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::Value;

use crate::runtime::rootfs;
use crate::runtime::terminal::{Size, Sized};

/// Where a process's input and output go.
pub(crate) enum Stdio {
    /// Three descriptors.
    Files { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// A terminal, whose master is sent to this Unix socket.
    Terminal { console_socket: PathBuf },
}

/// A container to be made. `directory` holds `config.json` and gets `rootfs`, `upper` and `work`.
pub(crate) struct Create<'a> {
    pub(crate) id: &'a str,
    pub(crate) directory: &'a Path,
    pub(crate) state_root: &'a Path,
    pub(crate) layers: &'a [PathBuf],
    pub(crate) user: &'a str,
    pub(crate) extra_groups: &'a [u32],
    pub(crate) run_as_non_root: bool,
    /// The PID namespace to join, if it does not get one of its own.
    pub(crate) pid_namespace: Option<PathBuf>,
    pub(crate) stdio: Stdio,
}

/// Makes a container and starts it. Returns the process id of its init.
pub(crate) fn create(request: Create<'_>) -> Result<i32, String> {
    let root = request.directory.join("rootfs");
    rootfs::mount_overlay(request.layers, &request.directory.join("upper"), &request.directory.join("work"), &root)
        .map_err(|error| error.to_string())?;
    let uid = finish_config(&request, &root)?;
    if let Stdio::Files { stdout, stderr, .. } = &request.stdio
        && uid != 0
    {
        // So that the container can open /dev/stdout although it is not root.
        for fd in [stdout, stderr] {
            nix::unistd::fchown(fd, Some(uid.into()), None).map_err(|errno| errno.to_string())?;
        }
    }
    let builder = with_stdio(
        ContainerBuilder::new(request.id.to_owned(), SyscallType::default())
            .with_root_path(request.state_root)
            .map_err(|error| chain(&error))?,
        request.stdio,
    );
    let mut container = builder
        .as_init(request.directory)
        .with_systemd(false)
        .as_sibling(true)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    container.start().map_err(|error| chain(&error))?;
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| "the container has no process".to_owned())
}

/// Fills in what only the mounted root file system can tell: user and groups as numbers, the working directory.
fn finish_config(request: &Create<'_>, root: &Path) -> Result<u32, String> {
    let file = request.directory.join("config.json");
    let mut config = read_json(&file)?;
    let identity = rootfs::identity(root, request.user, request.extra_groups)?;
    if request.run_as_non_root && identity.uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    if let Some(path) = &request.pid_namespace {
        let namespaces = config["linux"]["namespaces"].as_array_mut().ok_or("config.json has no namespaces")?;
        namespaces.iter_mut().filter(|ns| ns["type"] == "pid").for_each(|ns| ns["path"] = serde_json::json!(path));
    }
    let process = config.get_mut("process").ok_or("config.json has no process")?;
    process["user"] = serde_json::json!({
        "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups,
    });
    if let Some(directory) = process.get("cwd").and_then(Value::as_str) {
        rootfs::make_directory(root, Path::new(directory))
            .map_err(|error| format!("working directory {directory}: {error}"))?;
    }
    fs::write(&file, config.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(identity.uid)
}

/// A further process in a running container.
pub(crate) struct Exec<'a> {
    pub(crate) id: &'a str,
    pub(crate) directory: &'a Path,
    pub(crate) state_root: &'a Path,
    pub(crate) args: &'a [String],
    /// A name for this process's files, unique within the container.
    pub(crate) tag: &'a str,
    pub(crate) stdio: Stdio,
    /// Of its terminal, if it gets one.
    pub(crate) size: Size,
}

/// Runs a further process in a container, as the container's own user and with its environment.
pub(crate) fn exec(request: Exec<'_>) -> Result<i32, String> {
    let config = read_json(&request.directory.join("config.json"))?;
    let mut process = config.get("process").cloned().ok_or("config.json has no process")?;
    process["args"] = serde_json::json!(request.args);
    process["terminal"] = Value::Bool(matches!(request.stdio, Stdio::Terminal { .. }));
    if let (Stdio::Terminal { .. }, Some(env)) = (&request.stdio, process["env"].as_array_mut())
        && !env.iter().any(|line| line.as_str().is_some_and(|line| line.starts_with("TERM=")))
    {
        env.push(Value::from("TERM=xterm"));
    }
    // Lowering the score again needs a capability that the shim may not have.
    if let Some(fields) = process.as_object_mut() {
        fields.remove("oomScoreAdj");
    }
    let file = request.directory.join(format!("exec-{}.json", request.tag));
    fs::write(&file, process.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut builder = ContainerBuilder::new(request.id.to_owned(), SyscallType::default())
        .with_root_path(request.state_root)
        .map_err(|error| chain(&error))?;
    if matches!(request.stdio, Stdio::Terminal { .. }) {
        builder = builder.with_executor(Sized(request.size));
    }
    let result = with_stdio(builder, request.stdio)
        .as_tenant()
        .with_detach(true)
        .as_sibling(true)
        .with_process(Some(&file))
        .build()
        .map(|pid| pid.as_raw())
        .map_err(|error| chain(&error));
    let _ = fs::remove_file(&file);
    result
}

/// Removes what is left of a container that has exited: its cgroup and `libcontainer`'s state.
pub(crate) fn delete(id: &str, state_root: &Path, directory: &Path) -> Result<(), String> {
    let state = state_root.join(id);
    let result = match state.exists() {
        true => Container::load(state.clone()).and_then(|mut c| c.delete(true)).map_err(|error| chain(&error)),
        false => Ok(()),
    };
    rootfs::unmount(&directory.join("rootfs"));
    let _ = fs::remove_dir_all(&state);
    // What the container wrote is of no use to anyone any more; its records stay.
    for name in ["rootfs", "upper", "work"] {
        let _ = fs::remove_dir_all(directory.join(name));
    }
    result
}

fn with_stdio(builder: ContainerBuilder, stdio: Stdio) -> ContainerBuilder {
    match stdio {
        Stdio::Files { stdin, stdout, stderr } => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
        Stdio::Terminal { console_socket } => builder.with_console_socket(Some(console_socket)),
    }
}

fn read_json(file: &Path) -> Result<Value, String> {
    let text = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// An error with all its causes, without repeating what an outer one already says.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
