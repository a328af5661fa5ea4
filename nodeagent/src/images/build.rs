//! Makes image archives, the same bytes each time.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::ImageError;
use super::blobs::{digest_of, read_limited, replace_file};
use super::error::IoContext;
use super::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform};

/// The names that the archive of [`busybox_archive`] brings.
pub const BUSYBOX_NAMES: [&str; 2] = ["docker.io/library/busybox:latest", "docker.io/library/busybox:1.35"];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
    bin:x:2:2:bin:/bin:/bin/false\n\
    sys:x:3:3:sys:/dev:/bin/false\n\
    sync:x:4:100:sync:/bin:/bin/sync\n\
    mail:x:8:8:mail:/var/spool/mail:/bin/false\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    operator:x:37:37:Operator:/var:/bin/false\n\
    nobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nmail:x:8:\n\
    kmem:x:9:\nwheel:x:10:root\ncdrom:x:11:\ndialout:x:18:\nfloppy:x:19:\nvideo:x:28:\naudio:x:29:\ntape:x:32:\n\
    www-data:x:33:\noperator:x:37:\nutmp:x:43:\nplugdev:x:46:\nstaff:x:50:\nlock:x:54:\nnetdev:x:82:\nusers:x:100:\n\
    nobody:x:65534:\n";
const FILES: [(&str, &str, u32); 6] = [
    ("etc/group", GROUP, 0o644),
    ("etc/localtime", "", 0o644),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
    ("etc/passwd", PASSWD, 0o644),
    ("etc/shadow", "root:*:::::::\nnobody:*:::::::\n", 0o640),
    ("etc/network/interfaces", "", 0o644),
];
const DIRS: [(&str, u32); 19] = [
    ("./", 0o755),
    ("bin/", 0o755),
    ("dev/", 0o755),
    ("etc/", 0o755),
    ("etc/network/", 0o755),
    ("home/", 0o755),
    ("lib/", 0o755),
    ("proc/", 0o755),
    ("root/", 0o700),
    ("run/", 0o755),
    ("sys/", 0o755),
    ("tmp/", 0o1777),
    ("usr/", 0o755),
    ("usr/bin/", 0o755),
    ("usr/sbin/", 0o755),
    ("var/", 0o755),
    ("var/spool/", 0o755),
    ("var/spool/mail/", 0o755),
    ("var/www/", 0o755),
];
const MAX_BUSYBOX: u64 = 64 << 20;

/// Writes an OCI archive of a static busybox, named `busybox:latest` and `busybox:1.35`. The same busybox gives the same
/// bytes. Blocking.
pub fn busybox_archive(busybox: &Path, out: &Path) -> Result<(), ImageError> {
    let file = File::open(busybox).context(|| format!("cannot open {busybox:?}"))?;
    let program = read_limited(file, MAX_BUSYBOX, &busybox.display().to_string())?;
    if needs_interpreter(&program) {
        return Err(ImageError::malformed(format!(
            "{} is not a statically linked program; Debian's package busybox-static has one",
            busybox.display()
        )));
    }
    let applets = applets(busybox)?;
    let layer = layer(&program, &applets).context(|| "cannot make the layer".to_owned())?;
    let archive = archive(&layer).context(|| "cannot make the archive".to_owned())?;
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir).context(|| format!("cannot make {dir:?}"))?;
    }
    // Beside the target with a leading dot, which the import of a folder passes over.
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    replace_file(&out.with_file_name(format!(".{name}.{}", std::process::id())), out, &archive)
}

/// Whether an ELF file has an interpreter segment (PT_INTERP): then it is linked dynamically.
fn needs_interpreter(program: &[u8]) -> bool {
    let word = |at: usize, size: usize| -> Option<u64> {
        let bytes = program.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let scan = || -> Option<bool> {
        let wide = *program.get(4)? == 2;
        let (offset, size, count) =
            if wide { (word(32, 8)?, word(54, 2)?, word(56, 2)?) } else { (word(28, 4)?, word(42, 2)?, word(44, 2)?) };
        Some((0..count).any(|index| word((offset + index * size) as usize, 4) == Some(3)))
    };
    !program.starts_with(b"\x7fELF") || scan().unwrap_or(true)
}

fn applets(busybox: &Path) -> Result<Vec<String>, ImageError> {
    let output =
        Command::new(busybox).arg0_busybox().arg("--list").output().context(|| format!("cannot run {busybox:?}"))?;
    let mut applets: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "busybox" && !name.contains('/'))
        .map(str::to_owned)
        .collect();
    applets.sort();
    applets.dedup();
    if !applets.iter().any(|name| name == "sh") {
        return Err(ImageError::malformed(format!("{} does not list a shell", busybox.display())));
    }
    Ok(applets)
}

trait Arg0 {
    fn arg0_busybox(&mut self) -> &mut Self;
}

impl Arg0 for Command {
    /// Under any other name busybox would look for an applet called so.
    fn arg0_busybox(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::arg0(self, "busybox")
    }
}

fn layer(program: &[u8], applets: &[String]) -> std::io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, mode) in DIRS {
        append(&mut tar, EntryType::Directory, path, mode, &[])?;
    }
    append(&mut tar, EntryType::Regular, "bin/busybox", 0o755, program)?;
    for name in applets {
        let mut header = header(EntryType::Link, 0o755, 0);
        tar.append_link(&mut header, format!("bin/{name}"), "bin/busybox")?;
    }
    for (path, content, mode) in FILES {
        append(&mut tar, EntryType::Regular, path, mode, content.as_bytes())?;
    }
    // Scripts begin with it as often as with /bin/sh.
    let mut link = header(EntryType::Symlink, 0o777, 0);
    tar.append_link(&mut link, "usr/bin/env", "../../bin/env")?;
    tar.into_inner()
}

fn archive(layer: &[u8]) -> std::io::Result<Vec<u8>> {
    let platform = Platform::host();
    let digest = digest_of(layer);
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": { "type": "layers", "diff_ids": [digest] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "trireme: busybox-static" }],
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": digest_of(&config), "size": config.len() },
        "layers": [{ "mediaType": OCI_LAYER, "digest": digest, "size": layer.len() }],
    }))?;
    let entries: Vec<serde_json::Value> = BUSYBOX_NAMES
        .iter()
        .map(|name| {
            json!({
                "mediaType": OCI_MANIFEST,
                "digest": digest_of(&manifest),
                "size": manifest.len(),
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.rsplit(':').next(),
                },
            })
        })
        .collect();
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }))?;
    let mut tar = Builder::new(BufWriter::new(Vec::new()));
    append(&mut tar, EntryType::Regular, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, EntryType::Regular, "index.json", 0o644, &index)?;
    append(&mut tar, EntryType::Directory, "blobs/", 0o755, &[])?;
    append(&mut tar, EntryType::Directory, "blobs/sha256/", 0o755, &[])?;
    for blob in [&config[..], &manifest[..], layer] {
        let path = format!("blobs/{}", digest_of(blob).replacen(':', "/", 1));
        append(&mut tar, EntryType::Regular, &path, 0o644, blob)?;
    }
    tar.into_inner()?.into_inner().map_err(|error| error.into_error())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    kind: EntryType,
    path: &str,
    mode: u32,
    content: &[u8],
) -> std::io::Result<()> {
    let mut header = header(kind, mode, content.len() as u64);
    tar.append_data(&mut header, path, content)
}
