//! The image store with real file systems: needs root for ownership, devices and overlay mounts.
#![allow(clippy::unwrap_used)]

#[path = "support/archives.rs"]
mod archives;
#[path = "support/registry.rs"]
mod registry;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use archives::{Entry, Layer, docker_save, gzip, oci_layout};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use registry::{Access, Registry};
use tempfile::TempDir;
use trireme_nodeagent::images::{
    Ages, Credentials, Disk, GcPolicy, Image, ImageError, PullPolicy, RootfsDirs, Store, StoreConfig, build,
};

const BUSYBOX: &str = "/bin/busybox";

struct Lab {
    dir: TempDir,
    store: Store,
}

impl Lab {
    async fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path().join("store"))).await.unwrap();
        Lab { dir, store }
    }

    async fn reopen(self) -> Lab {
        let Lab { dir, store } = self;
        drop(store);
        let store = Store::open(StoreConfig::new(dir.path().join("store"))).await.unwrap();
        Lab { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn import(&self, name: &str, bytes: &[u8]) -> Result<Vec<String>, ImageError> {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        self.store.import_archive(&path).await
    }

    /// Imports one layer as an image of that name and gives the unpacked directory.
    async fn layer(&self, name: &str, layer: Layer) -> Result<PathBuf, ImageError> {
        self.import("layer.tar", &oci_layout(&[(name, &[layer])])).await?;
        Ok(self.store.resolve(name).unwrap().unwrap().layers[0].clone())
    }

    /// Everything in the store that a failed import could have left.
    fn leftovers(&self) -> Vec<PathBuf> {
        ["store/tmp", "store/layers"]
            .iter()
            .flat_map(|dir| fs::read_dir(self.path(dir)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect()
    }
}

/// Runs a command in the image's root file system, in a mount namespace of its own; gives what it prints.
fn run(image: &Image, container: &Path, script: &str) -> String {
    let dirs = RootfsDirs::create(image, container).unwrap();
    let script = script.to_owned();
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        dirs.mount().unwrap();
        Command::new("chroot").arg(&dirs.merged).args(["/bin/sh", "-c", &script]).output().unwrap()
    };
    let output = std::thread::spawn(inside).join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn busybox_runs_under_the_names_that_manifests_use() {
    let lab = Lab::new().await;
    let (one, two) = (lab.path("images/busybox.tar"), lab.path("again.tar"));
    build::busybox_archive(Path::new(BUSYBOX), &one).unwrap();
    build::busybox_archive(Path::new(BUSYBOX), &two).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let not_static = build::busybox_archive(Path::new("/bin/bash"), &two).unwrap_err();
    assert!(not_static.to_string().contains("busybox-static"), "{not_static}");

    let report = lab.store.import_folder(&lab.path("images")).await.unwrap();
    assert_eq!(report.imported.len(), 1, "{report:?}");
    assert!(lab.store.import_folder(&lab.path("images")).await.unwrap().imported.is_empty());
    for name in ["busybox", "busybox:1.35", "docker.io/busybox", "docker.io/library/busybox:latest"] {
        let ensured = lab.store.ensure(name, PullPolicy::Always, &Credentials::default()).await.unwrap();
        assert!(!ensured.pulled, "{name}");
    }
    assert!(lab.store.resolve("busybox:1.36").unwrap().is_none());
    let image = lab.store.resolve("busybox").unwrap().unwrap();
    assert_eq!(image.repo_tags, ["docker.io/library/busybox:1.35", "docker.io/library/busybox:latest"]);
    assert_eq!(image.repo_digests, [format!("docker.io/library/busybox@{}", image.digest)]);
    assert_eq!(image.config.cmd, ["sh"]);
    let by_digest = lab.store.resolve(&image.image_id()).unwrap().unwrap();
    assert_eq!(by_digest, image);

    let script =
        "id -un; stat -c %a /tmp; ls -d /var/www /root; readlink -f /bin/ls; which httpd wget; echo hi > /tmp/x";
    let output = run(&image, &lab.path("c1"), script);
    assert!(output.starts_with("root\n1777\n/var/www\n/root\n") || output.contains("/var/www"), "{output}");
    assert!(output.contains("httpd") && output.contains("wget"), "{output}");
    assert_eq!(run(&image, &lab.path("c1"), "cat /tmp/x"), "hi\n");
    assert_eq!(run(&image, &lab.path("c2"), "ls /tmp"), "");
    assert_eq!(fs::metadata(lab.path("c2/upper")).unwrap().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn a_restart_keeps_images_and_forgets_half_done_work() {
    let lab = Lab::new().await;
    let names = lab.import("app.tar", &oci_layout(&[("example.com/app:v1", &[Layer::file("f", "1")])])).await.unwrap();
    assert_eq!(names, ["example.com/app:v1"]);
    let image = lab.store.resolve("example.com/app:v1").unwrap().unwrap();
    let locked = Store::open(StoreConfig::new(lab.path("store"))).await;
    assert!(matches!(locked, Err(ImageError::Locked(_))));
    fs::create_dir(lab.path("store/tmp/half")).unwrap();
    fs::write(lab.path("store/tmp/half/x"), "x").unwrap();
    let lab = lab.reopen().await;
    assert_eq!(lab.store.resolve("example.com/app:v1").unwrap().unwrap(), image);
    assert!(!lab.path("store/tmp/half").exists());
    // An image whose layer is gone is not offered, and comes back with its archive.
    fs::create_dir(lab.path("folder")).unwrap();
    fs::rename(lab.path("app.tar"), lab.path("folder/app.tar")).unwrap();
    assert_eq!(lab.store.import_folder(&lab.path("folder")).await.unwrap().imported.len(), 1);
    let lab = lab.reopen().await;
    assert!(lab.store.import_folder(&lab.path("folder")).await.unwrap().imported.is_empty());
    fs::remove_dir_all(&image.layers[0]).unwrap();
    let lab = lab.reopen().await;
    assert!(lab.store.resolve("example.com/app:v1").unwrap().is_none() && lab.store.list().is_empty());
    assert_eq!(lab.store.import_folder(&lab.path("folder")).await.unwrap().imported.len(), 1);
    assert_eq!(fs::read_to_string(image.layers[0].join("f")).unwrap(), "1");
}

#[tokio::test]
async fn layers_stack_and_hide_what_they_remove() {
    let lab = Lab::new().await;
    let busybox = fs::read(BUSYBOX).unwrap();
    let base = Layer::new(vec![
        Entry::file("bin/busybox", &busybox).mode(0o755),
        Entry::symlink("bin/sh", "busybox"),
        Entry::symlink("bin/find", "busybox"),
        Entry::file("gone", b"x"),
        Entry::file("opaque/old", b"x"),
        Entry::file("again/old", b"x"),
        Entry::file("kept/old", b"x"),
    ]);
    let top = Layer::new(vec![
        Entry::file(".wh.gone", b""),
        Entry::file("opaque/.wh..wh..opq", b""),
        Entry::file("opaque/new", b"y"),
        Entry::file(".wh.again", b""),
        Entry::file("again/new", b"y"),
        Entry::file("kept/new", b"y"),
        Entry::file(".wh..wh.plnk", b""),
    ]);
    lab.import("app.tar", &oci_layout(&[("app:v1", &[base, top])])).await.unwrap();
    let image = lab.store.resolve("app:v1").unwrap().unwrap();
    assert!(fs::symlink_metadata(image.layers[0].join("gone")).unwrap().file_type().is_char_device());
    let output = run(&image, &lab.path("c"), "cd /; test ! -e gone && find opaque again kept -type f");
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["again/new", "kept/new", "kept/old", "opaque/new"]);
}

#[tokio::test]
async fn a_hundred_layers_can_be_mounted() {
    let lab = Lab::new().await;
    let busybox = fs::read(BUSYBOX).unwrap();
    let base = Layer::new(vec![Entry::file("bin/sh", &busybox).mode(0o755)]);
    let layers: Vec<Layer> =
        std::iter::once(base).chain((1..120).map(|n| Layer::file(&format!("f{n}"), &n.to_string()))).collect();
    lab.import("many.tar.gz", &gzip(&oci_layout(&[("many", &layers)]))).await.unwrap();
    let image = lab.store.resolve("many").unwrap().unwrap();
    assert_eq!(image.layers.len(), 120);
    assert_eq!(run(&image, &lab.path("c"), "read a < /f1; read b < /f119; echo $a $b"), "1 119\n");
}

#[tokio::test]
async fn metadata_survives_unpacking() {
    let lab = Lab::new().await;
    let dir = lab
        .layer(
            "meta",
            Layer::new(vec![
                Entry::dir("d").mode(0o1777).owner(5, 6).time(1_000_000),
                Entry::file("d/suid", b"x").mode(0o4755).owner(7, 8).time(2_000_000),
                Entry::hard_link("d/hard", "d/suid"),
                Entry::symlink("d/soft", "/etc/passwd"),
                Entry::device("d/null", 1, 3),
                Entry::file("d/attr", b"x").xattr("user.colour", b"blue").xattr("trusted.overlay.opaque", b"y"),
            ]),
        )
        .await
        .unwrap();
    let d = fs::metadata(dir.join("d")).unwrap();
    assert_eq!((d.mode() & 0o7777, d.uid(), d.gid(), d.mtime()), (0o1777, 5, 6, 1_000_000));
    let suid = fs::metadata(dir.join("d/suid")).unwrap();
    assert_eq!((suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.mtime()), (0o4755, 7, 8, 2_000_000));
    assert_eq!(suid.ino(), fs::metadata(dir.join("d/hard")).unwrap().ino());
    assert_eq!(fs::read_link(dir.join("d/soft")).unwrap(), Path::new("/etc/passwd"));
    let null = fs::metadata(dir.join("d/null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == nix::sys::stat::makedev(1, 3));
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(dir.join("d/attr"), "user.colour", &mut value[..]);
    if let Ok(length) = length {
        assert_eq!(&value[..length], b"blue");
    }
    assert!(rustix::fs::getxattr(dir.join("d/attr"), "trusted.overlay.opaque", &mut value[..]).is_err());
}

#[tokio::test]
async fn layers_cannot_reach_outside() {
    let lab = Lab::new().await;
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap().to_owned();
    for (what, entries) in [
        ("..", vec![Entry::file("../escaped", b"x")]),
        ("deep ..", vec![Entry::file("a/../../escaped", b"x")]),
        ("hard link", vec![Entry::hard_link("h", "../../../../../../etc/passwd")]),
        ("hard link by link", vec![Entry::symlink("l", "/etc"), Entry::hard_link("h", "l/passwd")]),
        ("whiteout", vec![Entry::file(".wh...", b"")]),
        ("missing target", vec![Entry::hard_link("h", "nothing")]),
    ] {
        let error = lab.layer("bad", Layer::new(entries)).await.unwrap_err();
        assert!(matches!(error, ImageError::Layer { .. }), "{what}: {error}");
        assert!(lab.leftovers().is_empty(), "{what}: {:?}", lab.leftovers());
        assert!(lab.store.resolve("bad").unwrap().is_none(), "{what}");
    }
    // Links are followed, but inside the layer.
    let link = Entry::symlink("l", &target);
    let inner = Entry::dir(target.trim_start_matches('/'));
    let dir = lab.layer("link", Layer::new(vec![inner, link, Entry::file("l/f", b"x")])).await.unwrap();
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    assert!(dir.join(target.trim_start_matches('/')).join("f").is_file());
    let dir = lab.layer("abs", Layer::new(vec![Entry::file("/abs", b"x")])).await.unwrap();
    assert!(dir.join("abs").is_file());
    // A file where a link was must not be written through the link.
    let victim = outside.join("victim");
    fs::write(&victim, "safe").unwrap();
    let through = vec![Entry::symlink("v", victim.to_str().unwrap()), Entry::file("v", b"overwritten")];
    lab.layer("through", Layer::new(through)).await.unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
}

#[tokio::test]
async fn docker_archives_are_understood() {
    let lab = Lab::new().await;
    let shared = Layer::file("shared", "s");
    let one = [shared.clone(), Layer::file("one", "1")];
    let two = [shared, Layer::file("two", "2")];
    let archive = docker_save(&[(&["app:v1", "other.io/app:v1"], &one), (&["app:v2"], &two)]);
    let mut names = lab.import("save.tar.gz", &gzip(&archive)).await.unwrap();
    names.sort();
    assert_eq!(names, ["docker.io/library/app:v1", "docker.io/library/app:v2", "other.io/app:v1"]);
    let (v1, v2) = (lab.store.resolve("app:v1").unwrap().unwrap(), lab.store.resolve("app:v2").unwrap().unwrap());
    assert_eq!(v1.layers[1], v2.layers[1]);
    assert_eq!(fs::read_to_string(v2.layers[0].join("two")).unwrap(), "2");
    assert_eq!(v1.repo_tags, ["docker.io/library/app:v1", "other.io/app:v1"]);
}

#[tokio::test]
async fn bad_archives_change_nothing() {
    let lab = Lab::new().await;
    let good = oci_layout(&[("ok", &[Layer::file("f", "1")])]);
    let broken = archives::corrupt(&good);
    let foreign = archives::foreign_platform("foreign");
    for (what, bytes, words) in [
        ("garbage", b"hello".to_vec(), "tar"),
        ("empty tar", vec![0; 1024], "index.json"),
        ("truncated", good[..good.len() / 2].to_vec(), ""),
        ("wrong digest", broken, "digest mismatch"),
        ("wrong diff id", archives::wrong_diff_id("lie"), "digest mismatch"),
        ("foreign", foreign, "no image for linux/"),
        ("truncated gzip", gzip(&good)[..200].to_vec(), ""),
    ] {
        let error = lab.import("bad.tar", &bytes).await.unwrap_err();
        assert!(error.to_string().contains(words), "{what}: {error}");
        assert!(lab.store.list().is_empty() && lab.leftovers().is_empty(), "{what}");
    }
    let missing = lab.store.import_archive(&lab.path("nowhere.tar")).await.unwrap_err();
    assert!(missing.to_string().contains("nowhere.tar"), "{missing}");
    // One bad archive in a folder does not keep the others out.
    let folder = lab.path("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.tar"), b"hello").unwrap();
    fs::write(folder.join("b.tar"), &good).unwrap();
    fs::write(folder.join("notes.txt"), b"hello").unwrap();
    let report = lab.store.import_folder(&folder).await.unwrap();
    assert_eq!((report.imported.len(), report.failed.len()), (1, 1));
}

#[tokio::test]
async fn the_folder_is_watched() {
    let lab = Lab::new().await;
    let folder = lab.path("folder");
    fs::create_dir(&folder).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let watching = tokio::spawn({
        let (store, folder, stop) = (lab.store.clone(), folder.clone(), stop.clone());
        async move { store.watch_folder(folder, stop).await }
    });
    let path = folder.join("app.tar");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut version = 0;
    while lab.store.resolve("app").unwrap().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "not imported");
        // Written again until the watch, which starts in its own time, has seen it.
        version += 1;
        fs::write(&path, oci_layout(&[("app", &[Layer::file("f", &version.to_string())])])).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn garbage_is_what_no_name_and_no_container_needs() {
    let lab = Lab::new().await;
    let version = |content: &str| oci_layout(&[("app", &[Layer::file("base", "b"), Layer::file("f", content)])]);
    lab.import("app.tar", &version("1")).await.unwrap();
    let old = lab.store.resolve("app").unwrap().unwrap();
    lab.import("app.tar", &version("2")).await.unwrap();
    let new = lab.store.resolve("app").unwrap().unwrap();
    assert_ne!(old.digest, new.digest);
    // A container still runs the old one.
    let digest = old.digest.clone();
    let collected = lab.store.collect_garbage(move |image| image.digest == digest).await.unwrap();
    assert_eq!(collected.images, 0);
    assert!(old.layers.iter().chain(&new.layers).all(|layer| layer.is_dir()));
    let collected = lab.store.collect_garbage(|_| false).await.unwrap();
    // Manifest, configuration, one compressed and one unpacked layer; the base is shared.
    assert_eq!((collected.images, collected.objects), (1, 4));
    assert!(!old.layers[0].exists() && old.layers[1].is_dir() && new.layers[0].is_dir());
    assert!(lab.store.by_digest(&old.digest).is_none());
    assert!(lab.store.remove("app").await.unwrap());
    assert!(!lab.store.remove("app").await.unwrap());
    lab.store.collect_garbage(|_| false).await.unwrap();
    let lab = lab.reopen().await;
    assert!(lab.store.list().is_empty() && lab.leftovers().is_empty());
}

#[tokio::test]
async fn a_full_disk_costs_unused_images_only() {
    let lab = Lab::new().await;
    let folder = lab.path("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("kept.tar"), oci_layout(&[("kept", &[Layer::file("k", "k")])])).unwrap();
    lab.store.import_folder(&folder).await.unwrap();
    for name in ["old", "used"] {
        lab.layer(name, Layer::file("f", name)).await.unwrap();
    }
    let image = |name: &str| lab.store.resolve(name).unwrap();
    let begun = Instant::now();
    let later = begun + Duration::from_secs(600);
    let (policy, mut ages) = (GcPolicy::default(), Ages::default());
    let in_use = BTreeSet::from([image("used").unwrap().digest.clone()]);
    ages.observe(&lab.store.list(), &in_use, begun);
    ages.observe(&lab.store.list(), &in_use, later);
    let kept: BTreeSet<String> = in_use.union(&lab.store.pinned()).cloned().collect();
    assert_eq!(kept.len(), 2);
    let full = Disk { capacity: 1 << 30, available: 0 };
    let plan = ages.plan(&policy, full, &lab.store.list(), &kept, later);
    assert_eq!(plan.remove, [image("old").unwrap().digest.clone()]);
    let layer = image("old").unwrap().layers[0].clone();
    let collected = lab.store.remove_images(&plan.remove, move |_| in_use).await.unwrap();
    assert_eq!(collected.images, 1);
    assert!(image("old").is_none() && !layer.exists());
    assert!(image("used").is_some() && image("kept").is_some());
    // Without its archive an image is like any other.
    fs::remove_file(folder.join("kept.tar")).unwrap();
    assert!(lab.store.pinned().is_empty());
}

#[tokio::test]
async fn what_was_planned_is_looked_at_again_before_it_goes() {
    let lab = Lab::new().await;
    let version = |content: &str| oci_layout(&[("app", &[Layer::file("f", content)])]);
    lab.import("app.tar", &version("1")).await.unwrap();
    let old = lab.store.ensure("app", PullPolicy::IfNotPresent, &Credentials::default()).await.unwrap();
    let planned = [old.image.digest.clone()];
    // A pod has begun to use it: it keeps its name, too.
    let collected = lab.store.remove_images(&planned, |_| BTreeSet::new()).await.unwrap();
    assert_eq!((collected.images, collected.objects), (0, 0));
    assert!(old.image.layers[0].is_dir() && lab.store.resolve("app").unwrap().is_some());
    assert_eq!(lab.store.collect_garbage(|_| false).await.unwrap().images, 0);
    // As does one that a container's record claims by now.
    drop(old.pin);
    let claimed = BTreeSet::from(planned.clone());
    assert_eq!(lab.store.remove_images(&planned, move |_| claimed).await.unwrap().images, 0);
    assert!(lab.store.resolve("app").unwrap().is_some());
    // The name stands for another image by now, which was not planned.
    lab.import("app.tar", &version("2")).await.unwrap();
    let new = lab.store.resolve("app").unwrap().unwrap();
    assert_eq!(lab.store.remove_images(&planned, |_| BTreeSet::new()).await.unwrap().images, 1);
    assert_eq!(lab.store.resolve("app").unwrap().unwrap().digest, new.digest);
    assert!(!old.image.layers[0].exists() && new.layers[0].is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_with_the_right_credentials() {
    let lab = Lab::new().await;
    let mut right = Credentials::default();
    let mut wrong = Credentials::default();
    for access in [Access::Open, Access::Basic, Access::Bearer] {
        let registry = Registry::start(access, &[Layer::file("f", "pulled")]).await;
        let reference = format!("{}/team/app:v1", registry.address);
        let secret = |password: &str| serde_json::json!({"auths": {registry.address.to_string(): {"username": "me", "password": password}}});
        right.add_docker_config_json(secret("secret").to_string().as_bytes()).unwrap();
        wrong.add_docker_config_json(secret("guess").to_string().as_bytes()).unwrap();
        if access != Access::Open {
            for credentials in [&wrong, &Credentials::default()] {
                let error = lab.store.pull(&reference, credentials).await.unwrap_err();
                assert_eq!(error.reason(), "ErrImagePull");
                assert!(error.to_string().contains("pull access denied"), "{access:?}: {error}");
            }
        }
        let ensured = lab.store.ensure(&reference, PullPolicy::IfNotPresent, &right).await.unwrap();
        assert!(ensured.pulled);
        assert_eq!(fs::read_to_string(ensured.image.layers[0].join("f")).unwrap(), "pulled");
        assert!(!lab.store.ensure(&reference, PullPolicy::IfNotPresent, &right).await.unwrap().pulled);
        let index = ensured.image.repo_digests.iter().find(|name| name.starts_with(&registry.address.to_string()));
        assert!(index.unwrap().ends_with(&registry.index), "{:?}", ensured.image.repo_digests);
        let pinned = format!("{}/team/app@{}", registry.address, registry.index);
        assert!(lab.store.resolve(&pinned).unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pulls_share_their_work_and_failures_are_plain() {
    let lab = Lab::new().await;
    let registry = Registry::start(Access::Open, &[Layer::file("f", "x")]).await;
    let reference = format!("{}/team/app:v1", registry.address);
    let none = Credentials::default();
    let pulls = (0..10).map(|_| lab.store.pull(&reference, &none));
    for image in futures::future::join_all(pulls).await {
        image.unwrap();
    }
    assert_eq!(registry.blob_requests.load(Ordering::SeqCst), 2);
    let never = lab.store.ensure("absent", PullPolicy::Never, &none).await.unwrap_err();
    assert_eq!(never.reason(), "ErrImageNeverPull");
    let absent = lab.store.pull(&format!("{}/team/absent:v1", registry.address), &none).await.unwrap_err();
    assert!(absent.to_string().contains("not found"), "{absent}");
    let lying = lab.store.pull(&format!("{}/team/lying:v1", registry.address), &none).await.unwrap_err();
    assert!(lying.to_string().to_lowercase().contains("digest"), "{lying}");
    let down = lab.store.pull("127.0.0.1:1/app", &none).await.unwrap_err();
    assert!(down.to_string().contains("refused"), "{down}");
    assert!(lab.store.resolve(&format!("{}/team/lying:v1", registry.address)).unwrap().is_none());
}
