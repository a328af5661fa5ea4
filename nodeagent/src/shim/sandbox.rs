//! What a shim sets up before it serves: its session, cgroup, mounts and the pod's namespaces.
//!
//! The shim itself lives in the pod's network, IPC and UTS namespaces and so keeps them as long as it lives. Its mount
//! namespace is private: overlay and memory file systems vanish with it and can never be left behind on the host.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{Pid, getpid, setsid};

use crate::runtime::cgroups::Cgroups;
use crate::shim::protocol::PodShim;

/// Detaches from the agent and creates the pod's namespaces.
pub(crate) fn enter(pod: &PodShim, cgroups: &Cgroups) -> io::Result<()> {
    // Fails only for a process group leader, and then there is nothing to detach from.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    let _ = prctl::set_name(c"trireme-shim");
    cgroups.create(&pod.shim_cgroup).map_err(|error| named(&pod.shim_cgroup, error))?;
    cgroups.join(&pod.shim_cgroup, getpid().as_raw()).map_err(|error| named(&pod.shim_cgroup, error))?;
    // The shim should be the last to go when memory is short; without the capability it stays as likely as others.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    let mut flags = CloneFlags::CLONE_NEWNS;
    if !pod.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !pod.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    if !pod.host_network {
        set_hostname(&pod.hostname)?;
        loopback_up()?;
    }
    for tmpfs in &pod.tmpfs {
        fs::create_dir_all(&tmpfs.target)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), &tmpfs.target, Some("tmpfs"), flags, Some(tmpfs.options.as_str()))
            .map_err(|errno| named(&tmpfs.target.display().to_string(), errno.into()))?;
    }
    Ok(())
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length belong to one live string.
    match unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A new network namespace has its loopback interface down.
fn loopback_up() -> io::Result<()> {
    // SAFETY: plain system calls on a socket and a zeroed request that live until the end of the block; `ifreq` has
    // no invalid bit patterns.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        if result < 0 { Err(error) } else { Ok(()) }
    }
}

/// Starts the pause process of a pod whose containers share one PID namespace: its init, which reaps and waits.
pub(crate) fn start_pause() -> io::Result<Pid> {
    // SAFETY: the process is single-threaded, so that the child may go on as after an ordinary fork.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, (libc::CLONE_NEWPID | libc::SIGCHLD) as libc::c_long, 0 as libc::c_long, 0, 0, 0)
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => pause(),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

fn pause() -> ! {
    let _ = prctl::set_name(&CString::from(c"pause"));
    let _ = prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    // SAFETY: ignoring SIGCHLD makes the kernel reap the children; the rest are plain system calls.
    unsafe {
        libc::close_range(0, libc::c_uint::MAX, 0);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        loop {
            libc::pause();
        }
    }
}

/// Makes an empty directory of one that may hold what an earlier boot left.
pub(crate) fn fresh_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(path)
}
