//! The state of a store in addition to the files: the revisions, the bodies in other formats than the files', and the
//! pending change.
//!
//! `index` is a snapshot of the store at its last revision. `intent` has, before the files are changed, their next
//! content: the opening after a crash takes back the changes that are not in the index. Both are replaced as a whole.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind as IoKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Digest, Document, Resource, Revision, StoreImage, StoreSnapshotReader, StoreSnapshotWriter},
    wal::fs,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::folder::Access;

const INDEX: &str = "index";
const INTENT: &str = "intent";
const LOCK: &str = "lock";
const OPEN: &str = "store.open";

/// The record, locked for this process.
#[derive(Debug)]
pub(super) struct Record {
    disk: Arc<dyn fs::Disk>,
    path: PathBuf,
    _lock: Box<dyn fs::File>,
    /// Dropped after the lock.
    released: DropGuard,
}

/// The pending change of the files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Revision of the index that it changes: it applies to no other.
    pub(super) base: Revision,
    /// Each file, the digest of its next text, and its previous text; `None` if there is none. Without any file: the
    /// files are unchanged, and the manager has yet to be notified.
    pub(super) files: Vec<(String, Option<Digest>, Option<Document>)>,
    /// Owner and mode of the previous files.
    #[serde(default)]
    pub(super) access: BTreeMap<String, Access>,
}

impl Record {
    /// Opens the record, and creates its folder if necessary.
    ///
    /// # Errors
    /// `Conflict` while another process has it open.
    pub(super) fn open(disk: Arc<dyn fs::Disk>, path: &Path) -> Result<Self> {
        let fail = |error| unreadable(path, error);
        disk.create_dir(path).map_err(fail)?;
        for above in path.ancestors().skip(1).take(2) {
            disk.sync_dir(above).map_err(fail)?;
        }
        let lock = match disk.lock(&path.join(LOCK)) {
            Err(error) if error.kind() == IoKind::WouldBlock => {
                let error = Error::new(ErrorKind::Conflict, OPEN, "another store has this folder of unit files open");
                return Err(error.with_context("path", path.display()));
            }
            lock => lock.map_err(fail)?,
        };
        Ok(Self { disk, path: path.to_owned(), _lock: lock, released: CancellationToken::new().drop_guard() })
    }

    /// A token that is cancelled once the lock is released.
    pub(super) fn released(&self) -> CancellationToken {
        self.released.token().clone()
    }

    /// Reads the snapshot of the last revision; `None` if there was none yet.
    pub(super) fn index(&self) -> Result<Option<Vec<u8>>> {
        self.read(INDEX).map_err(|error| unreadable(&self.path, error))
    }

    /// Reads the pending change, if it starts from this revision.
    pub(super) fn intent(&self, base: Revision) -> Result<Option<Intent>> {
        let read = self.read(INTENT).map_err(|error| unreadable(&self.path, error))?;
        let Some(bytes) = read else { return Ok(None) };
        match serde_json::from_slice::<Intent>(&bytes) {
            Ok(intent) => Ok(Some(intent).filter(|intent| intent.base == base)),
            Err(error) => {
                let corrupt = Error::new(ErrorKind::Corrupt, OPEN, "the record of what was begun last is corrupt");
                Err(corrupt.with_context("path", self.path.join(INTENT).display()).with_source(error))
            }
        }
    }

    pub(super) fn begin(&self, intent: &Intent) -> io::Result<()> {
        self.write(INTENT, &serde_json::to_vec(intent)?)
    }

    /// Records that the pending change was taken back, and the manager has yet to be notified, by the next opening if
    /// necessary.
    pub(super) fn owe(&self, base: Revision) -> io::Result<()> {
        self.begin(&Intent { base, files: Vec::new(), access: BTreeMap::new() })
    }

    /// Records that the pending change was taken back, and the manager is notified.
    pub(super) fn done(&self) -> io::Result<()> {
        match self.disk.remove(&self.path.join(INTENT)) {
            Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
            removed => removed?,
        }
        self.disk.sync_dir(&self.path)
    }

    pub(super) fn commit(&self, index: &[u8]) -> io::Result<()> {
        self.write(INDEX, index)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match self.disk.open(&self.path.join(name)) {
            Err(error) if error.kind() == IoKind::NotFound => return Ok(None),
            file => file?,
        };
        let size = usize::try_from(file.size()?).map_err(|_| io::Error::from(IoKind::FileTooLarge))?;
        let mut bytes = vec![0; size];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        let file = self.disk.create(&temporary)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        drop(file);
        self.disk.rename(&temporary, &self.path.join(name))?;
        self.disk.sync_dir(&self.path)
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        IoKind::PermissionDenied | IoKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, OPEN, "the store's record cannot be read or made")
        .with_context("path", path.display())
        .with_source(error)
}

/// Decodes an index.
///
/// # Errors
/// `Corrupt` if it cannot be decoded.
pub(super) async fn decode(bytes: &[u8]) -> Result<StoreImage> {
    let mut from = bytes;
    let mut reader = StoreSnapshotReader::begin(&mut from).await?;
    let mut resources = Vec::new();
    while let Some(resource) = reader.next().await? {
        resources.push(resource);
    }
    Ok(StoreImage::new(reader.revision(), resources))
}

/// Encodes an index.
pub(super) async fn encode<'a>(
    revision: Revision,
    count: usize,
    resources: impl Iterator<Item = &'a Resource>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = StoreSnapshotWriter::begin(&mut bytes, revision, count as u64);
    for resource in resources {
        writer.put(resource).await?;
    }
    writer.seal().await?;
    Ok(bytes)
}
