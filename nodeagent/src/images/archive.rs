//! Reads image archives: OCI layouts and what `docker save` writes, plain or gzip-compressed.
//!
//! A tar may come through a pipe of gzip and cannot be searched, so that its files are spooled into the store's scratch
//! directory first; the blobs that turn out to belong to an image are then renamed into place, never copied.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::ImageError;
use super::blobs::{Blobs, HashingReader, digest_of, read_limited, verify};
use super::error::IoContext;
use super::layer::decompress;
use super::manifest::{
    Descriptor, DockerEntry, Document, Index, MAX_DOCUMENT, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_MANIFEST, Platform, choose, parse, parse_document,
};
use super::reference::{Reference, is_tag};

/// More files than any archive of images has.
const MAX_FILES: usize = 100_000;

/// An image whose blobs are in the store, with the names that the archive gives it.
#[derive(Debug)]
pub(crate) struct Found {
    /// Digest that the names stand for (an index' where the archive has one).
    pub target: String,
    /// Digest of the manifest for this machine.
    pub manifest: String,
    pub names: BTreeSet<Reference>,
}

struct Spooled {
    file: PathBuf,
    digest: String,
    size: u64,
}

/// The files of an archive, spooled.
struct Spool<'a> {
    blobs: &'a Blobs,
    dir: PathBuf,
    files: HashMap<PathBuf, Spooled>,
    links: HashMap<PathBuf, PathBuf>,
    /// For names that the archive leaves out.
    stem: String,
    host: Platform,
}

/// Brings the blobs of all images of the archive into the store.
pub(crate) fn read(blobs: &Blobs, path: &Path, max_bytes: u64) -> Result<Vec<Found>, ImageError> {
    let file = File::open(path).context(|| format!("cannot open {path:?}"))?;
    let mut spool = Spool::new(blobs, path)?;
    // A reader that ends too soon, since what is compressed tells nothing of its length.
    spool.fill(Box::new(decompress(file)?.take(max_bytes))).map_err(|error| name_archive(error, path))?;
    let found = if spool.files.contains_key(Path::new("index.json")) {
        spool.oci_layout()
    } else if spool.files.contains_key(Path::new("manifest.json")) {
        spool.docker_save()
    } else {
        Err(ImageError::malformed("it has neither index.json (OCI layout) nor manifest.json (docker save)"))
    };
    found.map_err(|error| name_archive(error, path))
}

fn name_archive(error: ImageError, path: &Path) -> ImageError {
    match error {
        ImageError::Malformed(message) => ImageError::Malformed(format!("archive {}: {message}", path.display())),
        other => other,
    }
}

impl<'a> Spool<'a> {
    fn new(blobs: &'a Blobs, path: &Path) -> Result<Self, ImageError> {
        let dir = blobs.scratch();
        fs::create_dir(&dir).context(|| format!("cannot make {dir:?}"))?;
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = [".tar.gz", ".tgz", ".tar"].iter().find_map(|end| file_name.strip_suffix(end)).unwrap_or(&file_name);
        let stem = stem.to_lowercase();
        Ok(Self { blobs, dir, files: HashMap::new(), links: HashMap::new(), stem, host: Platform::host() })
    }

    fn fill(&mut self, reader: Box<dyn Read>) -> Result<(), ImageError> {
        let not_a_tar = |error: io::Error| ImageError::malformed(format!("cannot be read as a tar archive: {error}"));
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries().map_err(not_a_tar)? {
            let entry = entry.map_err(not_a_tar)?;
            let path = clean(Path::new(OsStr::from_bytes(&entry.path_bytes())), Path::new(""));
            let kind = entry.header().entry_type();
            if self.files.len() + self.links.len() >= MAX_FILES {
                return Err(ImageError::malformed("it has too many files"));
            }
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().map(|name| PathBuf::from(OsStr::from_bytes(&name)));
                // Symbolic links count from their own directory, hard links from the root.
                let base = if kind.is_symlink() { path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
                self.links.insert(path.clone(), clean(&target.unwrap_or_default(), base));
            } else if kind.is_file() || kind.is_contiguous() {
                let file = self.dir.join(self.files.len().to_string());
                let mut reader = HashingReader::new(entry);
                let mut out = File::create_new(&file).context(|| format!("cannot make {file:?}"))?;
                io::copy(&mut reader, &mut out).map_err(not_a_tar)?;
                let (digest, size) = reader.finish().map_err(not_a_tar)?;
                self.files.insert(path, Spooled { file, digest, size });
            }
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> Result<&Spooled, ImageError> {
        let mut path = path;
        for _ in 0..10 {
            if let Some(file) = self.files.get(path) {
                return Ok(file);
            }
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        Err(ImageError::malformed(format!("{} is missing", path.display())))
    }

    fn small(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let spooled = self.find(path)?;
        let file = File::open(&spooled.file).context(|| format!("cannot open {:?}", spooled.file))?;
        read_limited(file, MAX_DOCUMENT, &path.display().to_string())
    }

    /// The blob of that digest, which must be what it says.
    fn blob(&self, digest: &str) -> Result<&Spooled, ImageError> {
        let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
        let file = self.find(&Path::new("blobs").join(algorithm).join(hex))?;
        verify(&format!("blob of {}", self.stem), digest, &file.digest)?;
        Ok(file)
    }

    fn document(&self, digest: &str) -> Result<(Vec<u8>, Document), ImageError> {
        let file = self.blob(digest)?;
        let bytes = File::open(&file.file).context(|| format!("cannot open {:?}", file.file))?;
        let bytes = read_limited(bytes, MAX_DOCUMENT, digest)?;
        let document = parse_document(&bytes, digest)?;
        Ok((bytes, document))
    }

    /// Unused files of the spool go away with it; adopted ones have been renamed.
    fn adopt(&self, spooled: &Spooled) -> Result<(), ImageError> {
        if spooled.file.exists() { self.blobs.adopt(&spooled.file, &spooled.digest) } else { Ok(()) }
    }

    fn oci_layout(&self) -> Result<Vec<Found>, ImageError> {
        let index: Index = parse(&self.small(Path::new("index.json"))?, "index.json")?;
        let tags = self.docker_tags();
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let mut unfit = None;
        for entry in &index.manifests {
            match self.oci_image(entry, &tags) {
                Ok(image) => match found.get_mut(&image.target) {
                    Some(known) => known.names.extend(image.names),
                    None => drop(found.insert(image.target.clone(), image)),
                },
                // Images for other machines may stand beside ours.
                Err(error @ ImageError::Platform { .. }) => unfit = Some(error),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() {
            return Err(unfit.unwrap_or_else(|| ImageError::malformed("it holds no image")));
        }
        self.name_the_nameless(&mut found)?;
        Ok(found.into_values().collect())
    }

    /// An image alone in its archive without a name is called after the file.
    fn name_the_nameless(&self, found: &mut BTreeMap<String, Found>) -> Result<(), ImageError> {
        let only = found.len() == 1;
        for image in found.values_mut().filter(|image| image.names.is_empty()) {
            if !only {
                return Err(ImageError::malformed(format!("image {} has no name", image.target)));
            }
            image.names.insert(Reference::parse(&self.stem)?);
        }
        Ok(())
    }

    fn oci_image(&self, entry: &Descriptor, tags: &HashMap<String, Vec<String>>) -> Result<Found, ImageError> {
        let (bytes, document) = self.document(&entry.digest)?;
        let (manifest_digest, bytes, manifest) = match document {
            Document::Manifest(manifest) => (entry.digest.clone(), bytes, manifest),
            Document::Index(index) => {
                let chosen = choose(&index, &self.host, &format!("archive {}", self.stem))?;
                match self.document(&chosen.digest)? {
                    (bytes, Document::Manifest(manifest)) => (chosen.digest.clone(), bytes, manifest),
                    (_, Document::Index(_)) => return Err(ImageError::malformed("an index within an index of images")),
                }
            }
        };
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.adopt(self.blob(&blob.digest)?)?;
        }
        self.blobs.put(&bytes)?;
        let mut names = self.oci_names(entry)?;
        for tag in tags.get(&manifest.config.digest).into_iter().flatten() {
            names.insert(Reference::parse(tag)?);
        }
        Ok(Found { target: entry.digest.clone(), manifest: manifest_digest, names })
    }

    fn oci_names(&self, entry: &Descriptor) -> Result<BTreeSet<Reference>, ImageError> {
        let annotation = |key: &str| entry.annotations.as_ref().and_then(|all| all.get(key));
        let mut names = BTreeSet::new();
        if let Some(name) = annotation("io.containerd.image.name") {
            names.insert(Reference::parse(name)?);
        }
        match annotation("org.opencontainers.image.ref.name") {
            // Some tools write the whole name here, others only the tag, as the specification says.
            Some(name) if name.contains(['/', ':']) => drop(names.insert(Reference::parse(name)?)),
            Some(tag) if names.is_empty() && is_tag(tag) => {
                names.insert(Reference::parse(&format!("{}:{tag}", self.stem))?);
            }
            _ => {}
        }
        Ok(names)
    }

    /// Newer dockers put both forms into one archive: tags by configuration digest.
    fn docker_tags(&self) -> HashMap<String, Vec<String>> {
        let Ok(bytes) = self.small(Path::new("manifest.json")) else { return HashMap::new() };
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes).unwrap_or_default();
        let digest = |entry: &DockerEntry| self.find(Path::new(&entry.config)).map(|file| file.digest.clone()).ok();
        entries.into_iter().filter_map(|entry| Some((digest(&entry)?, entry.repo_tags.unwrap_or_default()))).collect()
    }

    fn docker_save(&self) -> Result<Vec<Found>, ImageError> {
        let entries: Vec<DockerEntry> = parse(&self.small(Path::new("manifest.json"))?, "manifest.json")?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for entry in &entries {
            let image = self.docker_image(entry)?;
            match found.get_mut(&image.target) {
                Some(known) => known.names.extend(image.names),
                None => drop(found.insert(image.target.clone(), image)),
            }
        }
        if found.is_empty() {
            return Err(ImageError::malformed("it holds no image"));
        }
        self.name_the_nameless(&mut found)?;
        Ok(found.into_values().collect())
    }

    /// docker's own form has no manifest: one is made, the same each time.
    fn docker_image(&self, entry: &DockerEntry) -> Result<Found, ImageError> {
        let config = self.find(&clean(Path::new(&entry.config), Path::new("")))?;
        let descriptor = |media_type: &str, spooled: &Spooled| Descriptor {
            media_type: media_type.to_owned(),
            digest: spooled.digest.clone(),
            size: spooled.size,
            annotations: None,
            platform: None,
        };
        let mut layers = Vec::new();
        for layer in &entry.layers {
            let spooled = self.find(&clean(Path::new(layer), Path::new("")))?;
            let media_type = if self.is_gzip(spooled)? { OCI_LAYER_GZIP } else { OCI_LAYER };
            layers.push(descriptor(media_type, spooled));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: descriptor(OCI_CONFIG, config),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|error| ImageError::malformed(error.to_string()))?;
        // Ask before anything moves: the first image adopts what a second may share.
        let names: Result<BTreeSet<Reference>, _> =
            entry.repo_tags.iter().flatten().map(|tag| Reference::parse(tag)).collect();
        let names = names?;
        self.adopt(config)?;
        for layer in &entry.layers {
            self.adopt(self.find(&clean(Path::new(layer), Path::new("")))?)?;
        }
        self.blobs.put(&bytes)?;
        let digest = digest_of(&bytes);
        Ok(Found { target: digest.clone(), manifest: digest, names })
    }

    fn is_gzip(&self, spooled: &Spooled) -> Result<bool, ImageError> {
        // Shared by an earlier image of the archive, the file has moved into the store.
        let path = if spooled.file.exists() { spooled.file.clone() } else { self.blobs.path(&spooled.digest)? };
        let mut start = [0; 2];
        let mut file = File::open(&path).context(|| format!("cannot open {path:?}"))?;
        Ok(file.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b])
    }
}

impl Drop for Spool<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A path inside the archive, seen from `base`; used as a key only, never on a file system.
fn clean(path: &Path, base: &Path) -> PathBuf {
    let mut clean = base.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir => clean = PathBuf::new(),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
