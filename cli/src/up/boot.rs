//! `trireme up`: from whatever is there to a cluster in which everything is ready.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use trireme_client::kubeconfig::Kubeconfig;

use super::layout::{Cluster, Host, Kind, Layout, MAX_MASTERS, MAX_NODES};
use super::process::{self, Entry};
use super::progress::{Progress, line};
use super::ready::{self, Access, Started};
use super::{UpArgs, bins, extra, network, registry};
use crate::admin::token::{self, Role};

/// Tokens that `up` makes for itself live this long.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// Boots or mends the cluster.
pub async fn run(layout: &Layout, args: &UpArgs) -> anyhow::Result<()> {
    let progress = Progress::new();
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    registry::check_owner(layout)?;
    let _lock = registry::lock(layout)?;
    let old = layout.load()?;
    let mut cluster = plan(layout, old.as_ref(), args)?;
    cluster.subnet = registry::claim(layout, old.as_ref().map(|old| old.subnet))?;
    layout.save(&cluster)?;
    let hosts = layout.hosts(&cluster);
    progress.say(format_args!(
        "cluster {:?}: {} masters and {} nodes on 10.90.{}.0/24, in {}",
        layout.name,
        cluster.masters,
        cluster.nodes,
        cluster.subnet,
        layout.root.display()
    ));
    bins::install(layout)?;
    bins::busybox_archive(layout)?;
    let fresh = network::ensure(layout, cluster.subnet, &hosts)?;
    if !fresh.is_empty() {
        progress.say(format_args!("made the bridge {} and the hosts {}", layout.bridge(), fresh.join(", ")));
    }
    let mut boot =
        Boot { layout, cluster: &cluster, hosts: &hosts, progress, deadline, started: <_>::default(), tokens: vec![] };
    let access = boot.start_all().await?;
    write_kubeconfigs(layout, &hosts, &access)?;
    ready::all(&access, &hosts, &mut boot.started, deadline, progress).await?;
    boot.forget_tokens(&access).await;
    let nothing_to_do = hosts.iter().all(|host| !boot.started.contains(host));
    progress.say(if nothing_to_do { "everything was running and is ready" } else { "all ready" });
    for kind in [Kind::Master, Kind::Node] {
        let changed = old.as_ref().is_some_and(|old| old.extra(kind) != cluster.extra(kind));
        if changed && hosts.iter().any(|host| host.kind == kind && !boot.started.contains(host)) {
            progress.say(format_args!(
                "{} that were running get their new arguments when they are started anew",
                kind.plural()
            ));
        }
    }
    print_next(layout, &hosts);
    Ok(())
}

/// What the cluster shall consist of.
fn plan(layout: &Layout, old: Option<&Cluster>, args: &UpArgs) -> anyhow::Result<Cluster> {
    let masters = args.masters.or(old.map(|old| old.masters)).unwrap_or(3);
    let nodes = args.nodes.or(old.map(|old| old.nodes)).unwrap_or(2);
    if !(1..=MAX_MASTERS).contains(&masters) {
        bail!("--masters {masters}: a cluster has 1 to {MAX_MASTERS} masters; 3 tolerate the loss of one");
    }
    if nodes > MAX_NODES {
        bail!("--nodes {nodes}: at most {MAX_NODES} nodes fit on one machine's bridge");
    }
    if let Some(old) = old
        && (masters < old.masters || nodes < old.nodes)
    {
        bail!(
            "the cluster {:?} has {} masters and {} nodes; \"up\" adds hosts but takes none away. Make it anew \
             ({}), or remove hosts by hand (trireme member remove, kubectl delete node)",
            layout.name,
            old.masters,
            old.nodes,
            layout.typed("down")
        );
    }
    let mut cluster = Cluster::new(&layout.name, masters, nodes);
    let remembered = |kind| old.map(|old| old.extra(kind)).unwrap_or_default();
    cluster.master_args = extra::chosen(Kind::Master, &args.master_args, remembered(Kind::Master))?;
    cluster.node_args = extra::chosen(Kind::Node, &args.node_args, remembered(Kind::Node))?;
    Ok(cluster)
}

struct Boot<'a> {
    layout: &'a Layout,
    cluster: &'a Cluster,
    hosts: &'a [Host],
    progress: Progress,
    deadline: Instant,
    started: Started,
    /// Ids of the tokens that this run made.
    tokens: Vec<String>,
}

impl Boot<'_> {
    /// Starts what does not run; an administrator's access to what results.
    async fn start_all(&mut self) -> anyhow::Result<Access> {
        let hosts = self.hosts;
        let masters: Vec<Host> = hosts.iter().filter(|host| host.kind == Kind::Master).cloned().collect();
        let mut idle = Vec::new();
        for host in hosts {
            if !self.runs(host).await {
                idle.push(host);
            }
        }
        let (members, strangers): (Vec<&Host>, Vec<&Host>) = idle.into_iter().partition(|host| host.initialised());
        let mut joining: Vec<&Host> = strangers;
        for host in members.iter().filter(|host| host.kind == Kind::Master) {
            self.start(host, &Entry::Again, "starting again")?;
        }
        if masters.iter().all(|host| !host.initialised()) {
            if let Some(orphan) = hosts.iter().find(|host| host.kind == Kind::Node && host.initialised()) {
                bail!(
                    "the data of all masters is gone, but {} still has some of the old cluster; remove what is left \
                     ({}) and boot anew",
                    orphan.name,
                    self.layout.typed("down")
                );
            }
            joining.retain(|host| host.name != masters[0].name);
            self.start(&masters[0], &Entry::Found, "founding the cluster")?;
        }
        let serving: Vec<Host> =
            masters.iter().filter(|host| !joining.iter().any(|j| j.name == host.name)).cloned().collect();
        let access = || serving.iter().find_map(|host| Access::of_master(host).ok());
        let (access, url) = ready::any_master(access, &serving, &mut self.started, self.deadline).await?;
        self.progress.say(format_args!("the API answers at {url}"));
        for host in members.iter().filter(|host| host.kind == Kind::Node) {
            self.start(host, &Entry::Again, "starting again")?;
        }
        self.join(&joining, &access, &url).await?;
        Ok(access)
    }

    /// Whether the host's process runs where it should. One left in a namespace that no longer exists is stopped.
    async fn runs(&self, host: &Host) -> bool {
        let Some(found) = process::find(self.layout, host) else { return false };
        if process::in_namespace(found, host) {
            return true;
        }
        self.progress.say(format_args!("{} (pid {}) has lost its network; stopping it", host.name, found.pid));
        process::stop(&[found], Duration::from_secs(5)).await;
        false
    }

    fn start(&mut self, host: &Host, entry: &Entry, what: &str) -> anyhow::Result<()> {
        let (process, child) = process::start(self.layout, host, entry, self.cluster.extra(host.kind))?;
        self.started.push(host, child);
        self.progress.say(format_args!("{} ({}): {what}, pid {}", host.name, host.ip, process.pid));
        Ok(())
    }

    /// Takes back the tokens of this run; whatever goes wrong with that, they expire soon.
    async fn forget_tokens(&self, access: &Access) {
        let masters = self.hosts.iter().filter(|host| host.kind == Kind::Master);
        let Ok(client) = access.client(masters.map(Host::url).collect()) else { return };
        for id in &self.tokens {
            let _ = token::delete_one(&client, id).await;
        }
    }

    /// Joins hosts, all at once, with tokens of this run.
    async fn join(&mut self, joining: &[&Host], access: &Access, url: &str) -> anyhow::Result<()> {
        if joining.is_empty() {
            return Ok(());
        }
        let client = access.client(vec![url.to_owned()])?;
        let pin = access.pin()?;
        for kind in [Kind::Master, Kind::Node] {
            let hosts: Vec<&&Host> = joining.iter().filter(|host| host.kind == kind).collect();
            if hosts.is_empty() {
                continue;
            }
            let role = if kind == Kind::Master { Role::Master } else { Role::Node };
            let token = token::create(&client, pin, role, TOKEN_LIFE, "made by trireme up")
                .await
                .context("cannot make a join token")?;
            self.tokens.push(token.id.clone());
            for host in hosts {
                let entry = Entry::Join { url: url.to_owned(), token: token.to_string() };
                self.start(host, &entry, "joining")?;
            }
        }
        Ok(())
    }
}

fn write_kubeconfigs(layout: &Layout, hosts: &[Host], access: &Access) -> anyhow::Result<()> {
    let masters: Vec<&Host> = hosts.iter().filter(|host| host.kind == Kind::Master).collect();
    let urls: Vec<String> = masters.iter().map(|host| host.url()).collect();
    let config = |urls: &[String]| {
        Kubeconfig::for_cluster(
            &layout.name,
            &format!("{}-admin", layout.name),
            urls,
            access.ca_pem.as_bytes(),
            access.cert_pem.as_bytes(),
            access.key_pem.as_bytes(),
        )
    };
    config(&urls).write(&layout.kubeconfig())?;
    for host in masters {
        config(&[host.url()]).write(&layout.root.join(format!("kubeconfig-{}", host.name)))?;
    }
    Ok(())
}

/// The exact lines to type next.
fn print_next(layout: &Layout, hosts: &[Host]) {
    let shorter = |path: &std::path::Path| match std::env::current_dir() {
        Ok(here) => path.strip_prefix(here).unwrap_or(path).display().to_string(),
        Err(_) => path.display().to_string(),
    };
    let root = shorter(&layout.root);
    // The Makefile knows only its own folder's clusters.
    let make = layout.is_here() && std::path::Path::new("Makefile").exists();
    let again = |verb: &str| match (make, layout.name.as_str()) {
        (true, "default") => format!("make {verb}"),
        (true, name) => format!("make {verb} NAME={name}"),
        (false, _) => format!("{root}/bin/{}", layout.typed(verb)),
    };
    line(format_args!("\nNext:\n"));
    line(format_args!("    export KUBECONFIG={}", layout.kubeconfig().display()));
    line(format_args!("    kubectl get nodes -o wide"));
    line(format_args!("    kubectl apply -f examples/web.yaml && kubectl get pods -o wide -w"));
    line(format_args!("    {root}/bin/trictl get pods -A          # needs no kubectl, and any master may be down"));
    line(format_args!("    {root}/bin/trireme member list"));
    line(format_args!("    {root}/bin/trireme status --watch          # is all well? Ctrl-C ends it"));
    if let Some(master) = hosts.iter().find(|host| host.kind == Kind::Master) {
        line(format_args!("    kill -9 $(cat {})      # lose a master …", shorter(&process::pid_file(master))));
    }
    line(format_args!("    {:<38} # … and bring it back", again("up")));
    line(format_args!("    {:<38} # remove everything\n", again("down")));
}
