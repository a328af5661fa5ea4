//! Whatever streams between a client and a container: exec, cp, port-forward, attach, run, logs; with every kubectl and
//! with trictl, through every master.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::{Winsize, openpty};

use trireme_chaos_tests::{Cluster, Kubectl, eventually, run, run_for};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: streams\n  labels: {app: streams}\nspec:\n  \
                   terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: busybox:1.35\n    \
                   stdin: true\n    command: [sh, -c, \"echo page > /tmp/index.html; dd if=/dev/urandom of=/tmp/big \
                   bs=1M count=3; httpd -h /tmp -p 8080; exec cat\"]\n    ports: [{name: http, containerPort: 8080}]\n\
                   ---\napiVersion: v1\nkind: Pod\nmetadata: {name: absent}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
                   containers: [{name: c, image: \"nowhere.invalid/nothing:1\"}]\n---\napiVersion: v1\nkind: Service\n\
                   metadata: {name: streams}\nspec: {selector: {app: streams}, ports: [{name: web, port: 80, targetPort: \
                   http}]}\n";
const LIMIT: Duration = Duration::from_secs(30);

/// Every kubectl, each through another master; then trictl.
pub fn clients(cluster: &Cluster) -> Result<()> {
    cluster.apply(POD)?.ok()?;
    cluster.pods("app=streams", 1)?;
    let listed = cluster.json(&["get", "pod", "absent"])?;
    ensure!(listed["spec"]["nodeName"].is_string() || eventually(LIMIT, || bound(cluster)).is_ok(), "not bound");
    let clients: Vec<Client> = cluster
        .kubectls
        .iter()
        .enumerate()
        .map(|(index, kubectl)| Client::Kubectl(cluster, kubectl, index % 3 + 1))
        .chain(std::iter::once(Client::Trictl(cluster)))
        .collect();
    // Two at a time: most of it is waiting.
    for pair in clients.chunks(2) {
        std::thread::scope(|scope| {
            let running: Vec<_> =
                pair.iter().map(|client| (client, scope.spawn(move || everything(cluster, client)))).collect();
            for (client, thread) in running {
                let outcome = thread.join().unwrap_or_else(|_| bail!("panicked"));
                outcome.with_context(|| client.name())?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
    }
    cluster.kubectl(&["delete", "pod/streams", "pod/absent", "service/streams", "--now"])?.ok()?;
    Ok(())
}

fn bound(cluster: &Cluster) -> Result<()> {
    let pod = cluster.json(&["get", "pod", "absent"])?;
    ensure!(pod["spec"]["nodeName"].is_string());
    Ok(())
}

/// A program with kubectl's verbs.
enum Client<'a> {
    Kubectl(&'a Cluster, &'a Kubectl, usize),
    Trictl(&'a Cluster),
}

impl Client<'_> {
    fn name(&self) -> String {
        match self {
            Client::Kubectl(_, kubectl, master) => format!("kubectl {} through master-{master}", kubectl.version),
            Client::Trictl(_) => "trictl".to_owned(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self {
            Client::Kubectl(cluster, kubectl, master) => cluster.kubectl_at(kubectl, *master),
            Client::Trictl(cluster) => cluster.command(&cluster.root().join("bin/trictl"), None),
        };
        command.args(arguments);
        command
    }

    /// A name that no other client uses.
    fn tag(&self) -> String {
        self.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }
}

fn everything(cluster: &Cluster, client: &Client<'_>) -> Result<()> {
    exit_codes_and_outputs(client).context("exec")?;
    terminal(client).context("exec -it")?;
    input(client).context("exec -i")?;
    refusals(client).context("exec into nothing")?;
    copies(cluster, client).context("cp")?;
    forwards(client).context("port-forward")?;
    attaches(client).context("attach")?;
    runs(client).context("run")
}

fn exit_codes_and_outputs(client: &Client<'_>) -> Result<()> {
    let said = run(&mut client.command(&["exec", "streams", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]))?;
    ensure!(said.code == Some(7) && said.out == "out\n" && said.err.contains("err\n"), "{said:?}");
    let said = run(&mut client.command(&["exec", "streams", "--", "sha256sum", "/tmp/big"]))?.ok()?;
    let bytes = run_raw(client.command(&["exec", "streams", "--", "cat", "/tmp/big"]), b"")?;
    ensure!(bytes.len() == 3 << 20 && said.starts_with(&sum(&bytes)?), "{} bytes came", bytes.len());
    Ok(())
}

/// The size has to be right when the program looks at it first.
fn terminal(client: &Client<'_>) -> Result<()> {
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None)?;
    let (master, slave) = (File::from(pty.master), pty.slave);
    let mut child = client
        .command(&["exec", "-it", "streams", "--", "sh", "-c", "stty size; read line; echo got $line; exit 3"])
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave))
        .spawn()?;
    let (sender, lines) = std::sync::mpsc::channel();
    let mut reader = BufReader::new(master.try_clone()?);
    std::thread::spawn(move || {
        let mut line = String::new();
        // A terminal whose other end is closed fails to be read.
        while matches!(reader.read_line(&mut line), Ok(1..)) && sender.send(std::mem::take(&mut line)).is_ok() {}
    });
    let expect = |wanted: &str| -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let mut all = String::new();
        while !all.contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            all += &lines.recv_timeout(left).with_context(|| format!("no {wanted:?} in {all:?}"))?;
        }
        Ok(())
    };
    let outcome = expect("40 100").and_then(|()| {
        (&master).write_all(b"typed\r")?;
        expect("got typed")
    });
    let code = ended(&mut child)?;
    outcome?;
    ensure!(code == Some(3), "exit code {code:?}");
    Ok(())
}

/// Megabytes in, megabytes out, and the end of the input.
fn input(client: &Client<'_>) -> Result<()> {
    let bytes: Vec<u8> = (0_u32..1 << 20).flat_map(u32::to_le_bytes).collect();
    let back = run_raw(client.command(&["exec", "-i", "streams", "--", "cat"]), &bytes)?;
    ensure!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
    Ok(())
}

fn refusals(client: &Client<'_>) -> Result<()> {
    let said = run(&mut client.command(&["exec", "absent", "--", "true"]))?.refused()?;
    ensure!(said.contains("unable to upgrade connection: container not found (\"c\")"), "{said}");
    let said = run(&mut client.command(&["exec", "streams", "-c", "x", "--", "true"]))?.refused()?;
    ensure!(said.contains("container x is not valid for pod streams"), "{said}");
    let said = run(&mut client.command(&["exec", "nothing", "--", "true"]))?.refused()?;
    ensure!(said.contains("pods \"nothing\" not found"), "{said}");
    Ok(())
}

fn copies(cluster: &Cluster, client: &Client<'_>) -> Result<()> {
    let (tag, dir) = (client.tag(), cluster.dir.join(client.tag()));
    std::fs::create_dir_all(dir.join("tree/sub"))?;
    let bytes: Vec<u8> = (0_u32..1 << 19).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(dir.join("tree/sub/file"), &bytes)?;
    std::fs::write(dir.join("tree/small"), "small")?;
    let path = |name: &str| dir.join(name).display().to_string();
    let remote = format!("streams:/tmp/{tag}");
    run(&mut client.command(&["cp", &path("tree"), &remote]))?.ok()?;
    let inside = format!("/tmp/{tag}/sub/file");
    let said = run(&mut client.command(&["exec", "streams", "--", "sha256sum", &inside]))?.ok()?;
    ensure!(said.starts_with(&sum(&bytes)?), "{said}");
    run(&mut client.command(&["cp", &remote, &path("back")]))?.ok()?;
    ensure!(std::fs::read(dir.join("back/sub/file"))? == bytes, "another file came back");
    ensure!(std::fs::read(dir.join("back/small"))? == b"small");
    // kubectl may leave before it hears of the failure, with exit code 0 and without a word.
    if matches!(client, Client::Trictl(_)) {
        let said = run(&mut client.command(&["cp", "streams:/tmp/none", &path("none")]))?.refused()?;
        ensure!(said.contains("No such file"), "{said}");
    }
    let _ = std::fs::remove_dir_all(dir);
    Ok(())
}

/// A process that is killed when it is not wanted any more.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forwards(client: &Client<'_>) -> Result<()> {
    for (target, port, shown) in [("pod/streams", ":8080", 8080), ("svc/streams", ":web", 8080)] {
        let mut command = client.command(&["port-forward", "--address=127.0.0.1", target, port]);
        let mut child = Background(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let mut lines = BufReader::new(child.0.stdout.take().context("no output")?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let local = line
            .trim()
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.strip_suffix(&format!(" -> {shown}")));
        let Some(local) = local else {
            let mut why = String::new();
            let _ = child.0.kill();
            child.0.stderr.take().context("no errors")?.read_to_string(&mut why)?;
            bail!("{target}: {line:?} {why}");
        };
        let local: u16 = local.parse()?;
        fetch(local, "/", b"page\n")?;
        line.clear();
        lines.read_line(&mut line)?;
        ensure!(line == format!("Handling connection for {local}\n"), "{line:?}");
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..4).map(|_| scope.spawn(move || fetch_big(local))).collect();
            running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("panicked")))
        })?;
    }
    Ok(())
}

fn request(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no answer")?;
    ensure!(answer.starts_with(b"HTTP/1.") && answer[9..].starts_with(b"200"), "not found");
    Ok(answer.split_off(head + 4))
}

fn fetch(port: u16, path: &str, wanted: &[u8]) -> Result<()> {
    let body = request(port, path)?;
    ensure!(body == wanted, "{body:?}");
    Ok(())
}

fn fetch_big(port: u16) -> Result<()> {
    let body = request(port, "/big")?;
    ensure!(body.len() == 3 << 20, "{} bytes", body.len());
    Ok(())
}

/// The container's own process echoes what it reads.
fn attaches(client: &Client<'_>) -> Result<()> {
    let tag = client.tag();
    let back = run_raw(client.command(&["attach", "-i", "streams"]), format!("{tag}\n").as_bytes())?;
    let back = String::from_utf8_lossy(&back).into_owned();
    // The session ends with its input, which may be before the echo; the log has it in any case.
    let echoed = || {
        let log = run(&mut client.command(&["logs", "streams"]))?.ok()?;
        ensure!(log.contains(&tag), "{back:?}, {log}");
        Ok(())
    };
    eventually(LIMIT, echoed)
}

fn runs(client: &Client<'_>) -> Result<()> {
    let name = format!("r-{}", client.tag().to_lowercase().trim_matches('-'));
    let name = &name[..name.len().min(40)];
    let image = "--image=busybox:1.35";
    let flags = ["run", name, "-i", "--rm", image, "--restart=Never", "--quiet", "--"];
    let mut words = flags.to_vec();
    words.extend(["sh", "-c", "cat; sleep 1; exit 5"]);
    let (code, out) = run_code(client.command(&words), b"from afar\n")?;
    let out = String::from_utf8_lossy(&out).into_owned();
    ensure!(out.contains("from afar"), "{out:?}");
    ensure!(code == Some(5), "exit code {code:?}: {out}");
    let said = run(&mut client.command(&["get", "pod", name]))?;
    ensure!(said.code != Some(0) || said.out.contains("Terminating"), "it is still there: {said:?}");
    // One that has said everything before anybody attaches, or has even ended.
    let name = format!("{}-s", name.trim_end_matches('-'));
    let words = ["run", &name, "-i", "--rm", image, "--restart=Never", "--quiet", "--", "echo", "short"];
    let (code, out) = run_code(client.command(&words), b"")?;
    let out = String::from_utf8_lossy(&out).into_owned();
    ensure!(code == Some(0) && out.contains("short"), "exit code {code:?}: {out:?}");
    Ok(())
}

fn sum(bytes: &[u8]) -> Result<String> {
    let out = run_raw(Command::new("sha256sum"), bytes)?;
    Ok(String::from_utf8_lossy(&out).split(' ').next().unwrap_or_default().to_owned())
}

/// Standard output of a command that reads `input` and succeeds.
fn run_raw(command: Command, input: &[u8]) -> Result<Vec<u8>> {
    let (code, out) = run_code(command, input)?;
    ensure!(code == Some(0), "exit code {code:?}: {}", String::from_utf8_lossy(&out[..out.len().min(1000)]));
    Ok(out)
}

fn run_code(mut command: Command, input: &[u8]) -> Result<(Option<i32>, Vec<u8>)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    let mut stdout = child.stdout.take().context("no output")?;
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        let code = ended(&mut child)?;
        Ok((code, reading.join().unwrap_or_default()))
    })
}

/// Waits for a program, and kills it if it takes too long.
fn ended(child: &mut Child) -> Result<Option<i32>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            child.wait()?;
            bail!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// When a node's agent dies, its sessions end with an error that says so; the next ones work again.
pub fn sessions_end_with_their_agent(cluster: &Cluster) -> Result<()> {
    cluster.apply(POD)?.ok()?;
    let pod = cluster.pods("app=streams", 1)?.remove(0);
    let oldest = cluster.kubectls.iter().min_by_key(|kubectl| kubectl.minor).context("no kubectl")?;
    let clients =
        [Client::Kubectl(cluster, oldest, 2), Client::Kubectl(cluster, cluster.newest(), 3), Client::Trictl(cluster)];
    let mut running = Vec::new();
    for client in &clients {
        let mut command = client.command(&["exec", "streams", "--", "sh", "-c", "echo begun; sleep 100"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut child = Background(child);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line == "begun\n", "{}: {line:?}", client.name());
        running.push((client, child));
    }
    cluster.kill(&pod.node)?;
    for (client, mut child) in running {
        let code = ended(&mut child.0).with_context(|| client.name())?;
        let mut said = String::new();
        child.0.stderr.take().context("no errors")?.read_to_string(&mut said)?;
        let told = said.contains("lost connection to the node's agent");
        ensure!(code == Some(1) && told, "{}: {code:?} {said}", client.name());
        let said = run(&mut client.command(&["exec", "streams", "--", "true"]))?.refused()?;
        ensure!(said.contains("error dialing backend") && said.contains("connection refused"), "{said}");
    }
    cluster.mend()?;
    for client in &clients {
        eventually(LIMIT, || run(&mut client.command(&["exec", "streams", "--", "true"]))?.ok())?;
    }
    cluster.kubectl(&["delete", "pod/streams", "pod/absent", "service/streams", "--now"])?.ok()?;
    Ok(())
}

/// `trictl logs -f` while its master dies: every line comes once.
pub fn logs_go_on(cluster: &Cluster) -> Result<()> {
    let lines = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); usleep 20000; done";
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: talker, labels: {{app: talker}}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: busybox:1.35\n    command: [sh, -c, \
         \"{lines}\"]\n"
    );
    cluster.apply(&manifest)?.ok()?;
    cluster.pods("app=talker", 1)?;
    let mut command = cluster.command(&cluster.root().join("bin/trictl"), None);
    let following =
        std::thread::spawn(move || run_for(command.args(["logs", "-f", "talker"]), Duration::from_secs(60)));
    std::thread::sleep(Duration::from_secs(1));
    // The kubeconfig's first master is the one that trictl turns to.
    cluster.kill("master-1")?;
    let said = following.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(said.code == Some(0), "{:?} {}", said.code, said.err);
    let wanted: String = (0..400).map(|n| format!("line {n}\n")).collect();
    ensure!(said.out == wanted, "{} lines, {}", said.out.lines().count(), said.err);
    cluster.mend()?;
    cluster.kubectl(&["delete", "pod", "talker", "--now"])?.ok()?;
    Ok(())
}
