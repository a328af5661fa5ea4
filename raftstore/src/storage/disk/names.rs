//! Directories of a disk in memory: which names there are, and which of them outlive a crash. What changes names is kept in
//! order until one of its directories is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::{Content, Dice};

/// The directory that everything is in.
const ROOT: u64 = 0;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Dir(u64),
    File(Arc<Mutex<Content>>),
}

impl Node {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dir(a), Self::Dir(b)) => a == b,
            (Self::File(a), Self::File(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
struct Names {
    now: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

/// A name in a directory.
type Key = (u64, String);

/// Something that is not where it was.
#[derive(Clone, Debug)]
struct Change {
    node: Node,
    from: Option<Key>,
    to: Option<Key>,
}

impl Change {
    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.from.iter().chain(&self.to)
    }
}

/// All directories.
#[derive(Debug)]
pub(super) struct Tree {
    dirs: BTreeMap<u64, Names>,
    next: u64,
    /// Not durable yet.
    pending: Vec<Change>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { dirs: [(ROOT, Names::default())].into(), next: ROOT + 1, pending: Vec::new() }
    }
}

fn absent() -> io::Error {
    ErrorKind::NotFound.into()
}

fn parts(path: &Path) -> impl Iterator<Item = String> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    names.collect::<Vec<_>>().into_iter()
}

impl Tree {
    /// What a path leads to.
    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Dir(ROOT);
        for name in parts(path) {
            let Node::Dir(dir) = node else { return Err(ErrorKind::NotADirectory.into()) };
            node = self.names(dir)?.now.get(&name).cloned().ok_or_else(absent)?;
        }
        Ok(node)
    }

    fn names(&self, dir: u64) -> io::Result<&Names> {
        self.dirs.get(&dir).ok_or_else(absent)
    }

    fn find_dir(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory that a name is in, or would be.
    fn key(&self, path: &Path) -> io::Result<Key> {
        let (Some(parent), Some(name)) = (path.parent(), parts(path).last()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        Ok((self.find_dir(parent)?, name))
    }

    fn change(&mut self, node: Node, from: Option<Key>, to: Option<Key>) {
        let change = Change { node, from, to };
        apply(&mut self.dirs, &change, |names| &mut names.now);
        self.pending.push(change);
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.names(self.find_dir(path)?)?.now.keys().cloned().collect())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Arc<Mutex<Content>>> {
        match self.find(path) {
            Ok(Node::File(content)) => return Ok(content),
            Ok(Node::Dir(_)) => return Err(ErrorKind::IsADirectory.into()),
            Err(_) => {}
        }
        let (to, content) = (self.key(path)?, Arc::new(Mutex::new(Content::default())));
        self.change(Node::File(content.clone()), None, Some(to));
        Ok(content)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in parts(path) {
            dir = match self.names(dir)?.now.get(&name) {
                Some(Node::Dir(found)) => *found,
                Some(Node::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                None => {
                    let made = self.next;
                    self.next += 1;
                    self.dirs.insert(made, Names::default());
                    self.change(Node::Dir(made), None, Some((dir, name)));
                    made
                }
            };
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (node, from, to) = (self.find(from)?, self.key(from)?, self.key(to)?);
        if let Some(Node::Dir(there)) = self.names(to.0)?.now.get(&to.1)
            && !(matches!(node, Node::Dir(_)) && self.names(*there)?.now.is_empty())
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        if from != to {
            self.change(node, Some(from), Some(to));
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path)?;
        if matches!(node, Node::Dir(_)) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let key = self.key(path)?;
        self.change(node, Some(key), None);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let (dir, key) = (self.find_dir(path)?, self.key(path)?);
        for name in self.list(path)? {
            let inner = path.join(&name);
            match self.find(&inner)? {
                Node::Dir(_) => self.remove_dir_all(&inner)?,
                Node::File(_) => self.remove_file(&inner)?,
            }
        }
        self.change(Node::Dir(dir), Some(key), None);
        Ok(())
    }

    /// Makes durable what changed in a directory, and what came before it under the same names.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find_dir(path)?;
        self.settle(|change| change.keys().any(|key| key.0 == dir));
        Ok(())
    }

    /// Makes durable what is chosen, from the last change to the first, and what came before it under the same names.
    fn settle(&mut self, mut choose: impl FnMut(&Change) -> bool) {
        let (mut keys, mut chosen): (BTreeSet<Key>, Vec<bool>) = (BTreeSet::new(), Vec::new());
        for change in self.pending.iter().rev() {
            let wanted = choose(change) || change.keys().any(|key| keys.contains(key));
            if wanted {
                keys.extend(change.keys().cloned());
            }
            chosen.push(wanted);
        }
        for change in std::mem::take(&mut self.pending) {
            match chosen.pop() {
                Some(true) => apply(&mut self.dirs, &change, |names| &mut names.durable),
                _ => self.pending.push(change),
            }
        }
    }

    /// Loses, as the dice fall, none, some or all of the changes that are not durable, and of what was written and not synced.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        let (how, count) = (dice.below(4), self.pending.len());
        let upto = if count == 0 { 0 } else { dice.below(count + 1) };
        let mut at = count;
        self.settle(|_| {
            at -= 1;
            match how {
                0 => false,
                1 => true,
                2 => at < upto,
                _ => dice.below(2) == 0,
            }
        });
        self.pending.clear();
        let (mut reached, mut next) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(dir) = next.pop() {
            let Some(names) = self.dirs.get_mut(&dir) else { continue };
            names.now = names.durable.clone();
            for node in names.now.values() {
                match node {
                    Node::Dir(inner) if reached.insert(*inner) => next.push(*inner),
                    Node::Dir(_) => {}
                    Node::File(content) => content.lock().crash(dice),
                }
            }
        }
        self.dirs.retain(|dir, _| reached.contains(dir));
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        let files = self.dirs.values().flat_map(|names| names.now.values());
        files.map(|node| if let Node::File(content) = node { content.lock().len() as u64 } else { 0 }).sum()
    }
}

fn apply(dirs: &mut BTreeMap<u64, Names>, change: &Change, of: fn(&mut Names) -> &mut BTreeMap<String, Node>) {
    let Change { node, from, to } = change;
    if let Some((dir, name)) = from
        && let Some(names) = dirs.get_mut(dir).map(of)
        && names.get(name).is_some_and(|found| found.is(node))
    {
        names.remove(name);
    }
    if let Some((dir, name)) = to
        && let Some(names) = dirs.get_mut(dir).map(of)
    {
        names.insert(name.clone(), node.clone());
    }
}
