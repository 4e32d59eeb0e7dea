//! A file system in memory that knows what of it is durable.
//!
//! A file has the bytes that reads see, the bytes that are durable, and the writes between them.
//! A directory has the names that look-ups see and the names that are durable; the changes of
//! names between them are kept for the whole disk, in order, because a rename may span two
//! directories and must not be split.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::content::Content;
use crate::env::Metadata;
use crate::sync::Arc;

/// Names a file or directory for its whole life, whatever its path.
pub(super) type NodeId = u64;

pub(super) const ROOT: NodeId = 0;

/// No file grows longer, so that a wild length fails as it would on a real disk.
const FILE_LEN_MAX: u64 = 1 << 40;

/// A change of a file's bytes that no sync has covered.
#[derive(Clone)]
pub(super) enum FileOp {
    Write { pos: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

/// A file: what is seen, what is durable, and the changes from the latter that a sync would save.
///
/// Applying `pending` to `durable` gives `visible`, unless a sync has failed: what that sync
/// should have saved stays visible but is in neither of the others.
#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub(super) visible: Content,
    pub(super) durable: Content,
    pub(super) pending: Arc<Vec<FileOp>>,
}

impl FileNode {
    /// A file that is durable as it is.
    pub(super) fn durable(content: Content) -> Self {
        Self {
            visible: content.clone(),
            durable: content,
            pending: Arc::default(),
        }
    }

    pub(super) fn change(&mut self, op: FileOp) {
        op.apply(&mut self.visible);
        Arc::make_mut(&mut self.pending).push(op);
    }

    /// Makes the first `count` pending changes durable. The rest stays visible and is lost to any
    /// later sync: the system has dropped it from what it means to write.
    pub(super) fn sync(&mut self, count: usize) {
        for op in &self.pending[..count] {
            op.apply(&mut self.durable);
        }
        self.pending = Arc::default();
    }

    /// What is durable with all that the system still means to write.
    pub(super) fn with_pending(&self) -> Content {
        let mut content = self.durable.clone();
        for op in self.pending.iter() {
            op.apply(&mut content);
        }
        content
    }
}

impl FileOp {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { pos, bytes } => content.write(*pos, bytes),
            Self::SetLen(len) => content.set_len(*len),
        }
    }
}

/// A name in a directory.
pub(super) type Key = (NodeId, String);

/// A change of names that no directory sync has covered: `node` leaves `from` and is found at
/// `to`. A creation has no `from`, a removal no `to`, a rename has both and happens whole.
#[derive(Clone)]
pub(super) struct NameOp {
    pub(super) from: Option<Key>,
    pub(super) to: Option<Key>,
    pub(super) node: NodeId,
}

impl NameOp {
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.from.iter().chain(&self.to)
    }
}

#[derive(Clone, Default)]
pub(super) struct DirNode {
    pub(super) visible: BTreeMap<String, NodeId>,
    pub(super) durable: BTreeMap<String, NodeId>,
}

#[derive(Clone)]
pub(super) enum Node {
    File(Arc<FileNode>),
    Dir(Arc<DirNode>),
}

/// Which names of a directory are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Visible,
    Durable,
}

/// A file system. A clone is cheap and shares what neither side changes.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) pending_names: Arc<Vec<NameOp>>,
    id_next: NodeId,
}

impl Disk {
    /// An empty root directory.
    pub(super) fn new() -> Self {
        let root = Node::Dir(Arc::default());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            pending_names: Arc::default(),
            id_next: ROOT + 1,
        }
    }

    pub(super) fn file(&self, id: NodeId) -> &FileNode {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => file,
            _ => unreachable!("an open file has a node"),
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> &mut FileNode {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Arc::make_mut(file),
            _ => unreachable!("an open file has a node"),
        }
    }

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn names_mut(&mut self, id: NodeId, view: View) -> Option<&mut BTreeMap<String, NodeId>> {
        match (self.nodes.get_mut(&id), view) {
            (Some(Node::Dir(dir)), View::Visible) => Some(&mut Arc::make_mut(dir).visible),
            (Some(Node::Dir(dir)), View::Durable) => Some(&mut Arc::make_mut(dir).durable),
            (Some(Node::File(_)) | None, _) => None,
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        self.walk(&components(path)?)
    }

    fn walk(&self, names: &[&str]) -> io::Result<NodeId> {
        let mut id = ROOT;
        for name in names {
            let found = self.dir(id)?.visible.get(*name);
            id = *found.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.find(path)?;
        match self.nodes[&id] {
            Node::File(_) => Ok(id),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The directory that `path` is a name in, and that name, which may be free.
    fn locate(&self, path: &Path) -> io::Result<Key> {
        let mut names = components(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.walk(&names)?;
        self.dir(dir)?;
        Ok((dir, name.to_owned()))
    }

    fn get(&self, key: &Key) -> Option<NodeId> {
        self.dir(key.0).ok()?.visible.get(&key.1).copied()
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let id = self.find(path)?;
        Ok(match &self.nodes[&id] {
            Node::File(file) => Metadata {
                len: file.visible.len(),
                is_dir: false,
            },
            Node::Dir(_) => Metadata {
                len: 0,
                is_dir: true,
            },
        })
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let id = self.find(path)?;
        Ok(self.dir(id)?.visible.keys().cloned().collect())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        self.create(path, Node::File(Arc::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.create(path, Node::Dir(Arc::default())).map(drop)
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        if components(path)?.is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let key = self.locate(path)?;
        if self.get(&key).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.id_next;
        self.id_next += 1;
        self.nodes.insert(id, node);
        self.change_names(None, Some(key), id);
        Ok(id)
    }

    pub(super) fn hard_link(&mut self, existing: &Path, new: &Path) -> io::Result<()> {
        let id = self.find(existing)?;
        if matches!(self.nodes[&id], Node::Dir(_)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let key = self.locate(new)?;
        if self.get(&key).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change_names(None, Some(key), id);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = self.find(from)?;
        let (from_key, to_key) = (self.locate(from)?, self.locate(to)?);
        let is_dir = matches!(self.nodes[&moved], Node::Dir(_));
        if is_dir && components(to)?.starts_with(&components(from)?) && from_key != to_key {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(replaced) = self.get(&to_key) {
            if replaced == moved {
                // As POSIX has it: both names stay.
                return Ok(());
            }
            match &self.nodes[&replaced] {
                Node::File(_) if is_dir => return Err(io::ErrorKind::NotADirectory.into()),
                Node::Dir(_) if !is_dir => return Err(io::ErrorKind::IsADirectory.into()),
                Node::Dir(dir) if !dir.visible.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                Node::File(_) | Node::Dir(_) => {}
            }
        }
        self.change_names(Some(from_key), Some(to_key), moved);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find_file(path)?;
        let key = self.locate(path)?;
        self.change_names(Some(key), None, id);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        if !self.dir(id)?.visible.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let key = self.locate(path)?;
        self.change_names(Some(key), None, id);
        Ok(())
    }

    fn change_names(&mut self, from: Option<Key>, to: Option<Key>, node: NodeId) {
        let op = NameOp { from, to, node };
        self.apply_names(&op, View::Visible);
        Arc::make_mut(&mut self.pending_names).push(op);
    }

    pub(super) fn apply_names(&mut self, op: &NameOp, view: View) {
        // A directory may be gone for good by the time a change of its names would be saved.
        if let Some((dir, name)) = &op.from
            && let Some(names) = self.names_mut(*dir, view)
        {
            names.remove(name);
        }
        if let Some((dir, name)) = &op.to
            && let Some(names) = self.names_mut(*dir, view)
        {
            names.insert(name.clone(), op.node);
        }
    }

    pub(super) fn write(&mut self, id: NodeId, pos: u64, bytes: &[u8]) -> io::Result<()> {
        match pos.checked_add(bytes.len() as u64) {
            Some(end) if end <= FILE_LEN_MAX => {}
            _ => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        if !bytes.is_empty() {
            let bytes = Arc::from(bytes);
            self.file_mut(id).change(FileOp::Write { pos, bytes });
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        if len > FILE_LEN_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file_mut(id).change(FileOp::SetLen(len));
        Ok(())
    }

    /// Makes the pending changes of a directory's names durable, and the earlier ones elsewhere
    /// that they build on, so that each name's changes are saved in their order.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        self.dir(id)?;
        let pending = std::mem::take(&mut self.pending_names);
        let mut needed: BTreeSet<&Key> = BTreeSet::new();
        let mut saved = vec![false; pending.len()];
        for (op, saved) in pending.iter().zip(&mut saved).rev() {
            if op.keys().any(|key| key.0 == id || needed.contains(key)) {
                needed.extend(op.keys());
                *saved = true;
            }
        }
        let mut rest = Vec::new();
        for (op, saved) in pending.iter().zip(saved) {
            if saved {
                self.apply_names(op, View::Durable);
            } else {
                rest.push(op.clone());
            }
        }
        self.pending_names = Arc::new(rest);
        Ok(())
    }

    /// Drops the files and directories that no name, saved or not, and no open file leads to.
    pub(super) fn sweep(&mut self, is_open: impl Fn(NodeId) -> bool) {
        let mut added: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for op in self.pending_names.iter() {
            if let Some((dir, _)) = &op.to {
                added.entry(*dir).or_default().push(op.node);
            }
        }
        let mut live = BTreeSet::new();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if !live.insert(id) {
                continue;
            }
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                todo.extend(dir.visible.values().chain(dir.durable.values()));
                todo.extend(added.get(&id).into_iter().flatten());
            }
        }
        self.nodes.retain(|id, _| live.contains(id) || is_open(*id));
        if self.pending_names.iter().any(|op| !leads_to(op, &live)) {
            Arc::make_mut(&mut self.pending_names).retain(|op| leads_to(op, &live));
        }
    }

    /// All paths that lead somewhere, each directory before what is in it, with their nodes.
    pub(super) fn tree(&self, view: View) -> Vec<(PathBuf, NodeId)> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = todo.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                let names = match view {
                    View::Visible => &dir.visible,
                    View::Durable => &dir.durable,
                };
                todo.extend(names.iter().rev().map(|(name, id)| (path.join(name), *id)));
            }
            found.push((path, id));
        }
        found
    }

    /// Bytes that files take up: all that have a name or are open, each once.
    pub(super) fn used_bytes(&self, is_open: impl Fn(NodeId) -> bool) -> u64 {
        let named: BTreeSet<NodeId> = self
            .tree(View::Visible)
            .into_iter()
            .map(|(_, id)| id)
            .collect();
        let lens = self.nodes.iter().filter_map(|(id, node)| match node {
            Node::File(file) if named.contains(id) || is_open(*id) => Some(file.visible.len()),
            Node::File(_) | Node::Dir(_) => None,
        });
        lens.sum()
    }

    /// Puts a durable file at `path`, and durable directories above it.
    pub(super) fn put_durable(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let names = components(path)?;
        let mut at = PathBuf::from("/");
        for name in &names[..names.len().saturating_sub(1)] {
            at.push(name);
            match self.create_dir(&at) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.sync_dir(at.parent().unwrap_or(&at))?,
            }
        }
        let id = match self.find_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_file(path)?,
            other => other?,
        };
        *self.file_mut(id) = FileNode::durable(Content::from_bytes(bytes));
        self.sync_dir(&at)
    }
}

fn leads_to(op: &NameOp, live: &BTreeSet<NodeId>) -> bool {
    op.keys().any(|(dir, _)| live.contains(dir))
}

/// The names on the way from the root to `path`, which may be relative to it.
pub(super) fn components(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            Component::ParentDir => drop(names.pop()),
            Component::Normal(name) => match name.to_str() {
                Some(name) => names.push(name),
                None => return Err(io::ErrorKind::InvalidInput.into()),
            },
        }
    }
    Ok(names)
}
