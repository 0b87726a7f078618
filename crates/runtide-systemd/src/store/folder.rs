//! The folder of the unit files: scans of it, and writes that replace each file as a whole.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use runtide_core::{store::Digest, wal::fs::Disk};
use serde::{Deserialize, Serialize};

use super::name::UnitFileName;

/// Longest file that is read, in bytes: systemd accepts a line of a mebibyte, and real units are far shorter.
pub(super) const LONGEST: u64 = 4 << 20;

/// Prefix of temporary files. systemd ignores hidden files.
const TEMPORARY: &str = ".runtide-";

/// A file that changed this recently may change again within the same tick of the file system's clock.
const TICK: Duration = Duration::from_secs(2);

/// Distinguishes two states of a file, except for changes within one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    File,
    Folder,
    /// A link, or an entry that cannot be read: never followed.
    Other,
}

/// A directory entry.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) sort: Sort,
    /// `None`: the file has to be read to compare it.
    pub(super) stamp: Option<Stamp>,
}

/// Mode and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    mode: u32,
    /// `None`: the user and group of the writing process.
    owner: Option<(u32, u32)>,
}

impl Access {
    /// Access of a new file.
    const NEW: Self = Self { mode: 0o644, owner: None };
}

/// File metadata: types and stamps of names without opening them, modes and owners.
pub(super) trait Names: Debug + Send + Sync {
    /// All names in a folder.
    fn names(&self, dir: &Path) -> io::Result<Vec<Named>>;

    /// Type of a path; `None` if it does not exist.
    fn sort(&self, path: &Path) -> io::Result<Option<Sort>>;

    /// Mode and owner of a file; `None` if it does not exist.
    fn access(&self, path: &Path) -> io::Result<Option<Access>>;

    /// Creates a new file that only its owner can open.
    fn make_private(&self, path: &Path) -> io::Result<()>;

    /// Sets mode and owner of a file that was created so.
    fn give(&self, path: &Path, access: Access) -> io::Result<()>;
}

/// The metadata of the operating system.
#[derive(Debug)]
pub(super) struct OsNames;

impl Names for OsNames {
    fn names(&self, dir: &Path) -> io::Result<Vec<Named>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A name that is not UTF-8 is not a unit's name either.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) => found.push(Named { name, sort: sort_of(&metadata), stamp: stamp_of(&metadata) }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn sort(&self, path: &Path) -> io::Result<Option<Sort>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(sort_of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn access(&self, path: &Path) -> io::Result<Option<Access>> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {
                Ok(Some(Access { mode: found.mode() & 0o777, owner: Some((found.uid(), found.gid())) }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
    }

    fn give(&self, path: &Path, Access { mut mode, owner }: Access) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        if let Some((user, group)) = owner.filter(|owner| *owner != (found.uid(), found.gid())) {
            // Only root may change the owner; any user may set a group of which it is a member.
            if let Err(error) = lchown(path, Some(user), Some(group)).or_else(|_| lchown(path, None, Some(group))) {
                tracing::warn!(%error, path = %path.display(), "the unit file does not keep its owner");
                // The permissions of one group do not transfer to another.
                let others = mode & 0o007;
                mode &= !0o070 | (others << 3);
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
}

fn sort_of(metadata: &fs::Metadata) -> Sort {
    match metadata.file_type() {
        kind if kind.is_file() => Sort::File,
        kind if kind.is_dir() => Sort::Folder,
        _ => Sort::Other,
    }
}

fn stamp_of(metadata: &fs::Metadata) -> Option<Stamp> {
    let (changed, modified) = ((metadata.ctime(), metadata.ctime_nsec()), (metadata.mtime(), metadata.mtime_nsec()));
    let settled = SystemTime::now().checked_sub(TICK)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let latest = u64::try_from(changed.0.max(modified.0)).ok()?;
    (latest < settled.as_secs()).then(|| Stamp { inode: metadata.ino(), size: metadata.len(), changed, modified })
}

/// The folder of the unit files, and the prefix of those that are the store's.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) names: Arc<dyn Names>,
    pub(super) path: PathBuf,
    pub(super) prefix: String,
}

/// The result of a scan of the folder.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) files: BTreeMap<UnitFileName, Found>,
    /// Files with the store's prefix that are not resources, each with the reason.
    pub(super) skipped: Vec<(String, &'static str)>,
}

/// A file in the folder.
#[derive(Debug)]
pub(super) enum Found {
    /// Unchanged since the last scan.
    Same,
    /// Read, to be compared.
    Read(Bytes, Option<Stamp>),
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// Another program changed the file in the meantime: nothing was written.
    Foreign,
}

impl Folder {
    /// Creates the folder if necessary, and removes temporary files of an earlier run.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if self.names.sort(&self.path)?.is_none() {
            self.disk.create_dir(&self.path)?;
            self.disk.sync_dir(self.path.parent().unwrap_or(&self.path))?;
        }
        let ours = self.temporary("");
        for named in self.names.names(&self.path)? {
            if named.sort == Sort::File && named.name.starts_with(&ours) {
                self.disk.remove(&self.path.join(named.name))?;
            }
        }
        Ok(())
    }

    fn temporary(&self, file: &str) -> String {
        let prefix = Digest::of(self.prefix.as_bytes()).to_string();
        format!("{TEMPORARY}{}-{file}", prefix.get(..16).unwrap_or_default())
    }

    /// Scans the folder; a file whose stamp is known is not read.
    pub(super) fn scan(&self, known: &BTreeMap<UnitFileName, Option<Stamp>>) -> io::Result<Scan> {
        let mut scan = Scan::default();
        for named in self.names.names(&self.path)? {
            if !named.name.starts_with(&self.prefix) {
                continue;
            }
            match (named.sort, named.name.strip_suffix(".d")) {
                (Sort::Folder, Some(unit)) if UnitFileName::unit(unit).is_ok() => {
                    for inner in self.inner(&named.name)? {
                        let file = UnitFileName::in_folder(unit, &inner.name).map_err(|_| "systemd ignores it");
                        self.meet(&mut scan, known, file, &inner, &format!("{}/{}", named.name, inner.name))?;
                    }
                }
                (Sort::Folder, _) => {}
                _ => {
                    let file = UnitFileName::unit(&named.name).map_err(|_| "this is no name of a unit");
                    self.meet(&mut scan, known, file, &named, &named.name)?;
                }
            }
        }
        Ok(scan)
    }

    fn inner(&self, folder: &str) -> io::Result<Vec<Named>> {
        match self.names.names(&self.path.join(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            names => names,
        }
    }

    fn meet(
        &self,
        scan: &mut Scan,
        known: &BTreeMap<UnitFileName, Option<Stamp>>,
        file: Result<UnitFileName, &'static str>,
        named: &Named,
        shown: &str,
    ) -> io::Result<()> {
        let found = match (file, named.sort) {
            (Err(why), _) => Err(why),
            (Ok(_), Sort::Other) => Err("it is a link, which is not followed, or no file"),
            (Ok(_), Sort::Folder) => Err("it is a folder"),
            (Ok(file), Sort::File) => match known.get(&file) {
                Some(Some(stamp)) if Some(*stamp) == named.stamp => Ok(Some((file, Found::Same))),
                _ => match self.read(&file)? {
                    Some(Ok(text)) => Ok(Some((file, Found::Read(text, named.stamp)))),
                    Some(Err(why)) => Err(why),
                    None => Ok(None),
                },
            },
        };
        match found {
            Ok(found) => scan.files.extend(found),
            Err(why) => scan.skipped.push((shown.to_owned(), why)),
        }
        Ok(())
    }

    /// Reads a file; `None` if it does not exist, or the reason why the store may not read it.
    pub(super) fn read(&self, file: &UnitFileName) -> io::Result<Option<Result<Bytes, &'static str>>> {
        let path = self.path.join(file.path());
        match self.sort(file)? {
            None => return Ok(None),
            Some(Sort::File) => {}
            Some(_) => return Ok(Some(Err("it is a link, which is not followed, or no file"))),
        }
        let opened = match self.disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let size = opened.size()?;
        if size > LONGEST {
            return Ok(Some(Err("it is longer than 4 MiB")));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = opened.read_at(&mut text, 0)?;
        text.truncate(read);
        Ok(Some(Ok(text.into())))
    }

    /// The type of a file; of a drop-in, its folder counts as well.
    fn sort(&self, file: &UnitFileName) -> io::Result<Option<Sort>> {
        if file.drop_in_name().is_some() {
            match self.names.sort(&self.path.join(file.drop_ins()))? {
                None => return Ok(None),
                Some(Sort::Folder) => {}
                Some(_) => return Ok(Some(Sort::Other)),
            }
        }
        self.names.sort(&self.path.join(file.path()))
    }

    /// True if the text of a file has this digest, or the file does not exist and there is none. An unreadable file has
    /// no digest.
    pub(super) fn is(&self, file: &UnitFileName, digest: Option<Digest>) -> io::Result<bool> {
        Ok(match self.read(file)? {
            Some(Ok(text)) => Some(Digest::of(&text)) == digest,
            Some(Err(_)) => false,
            None => digest.is_none(),
        })
    }

    /// Mode and owner of a file; `None` if it does not exist.
    pub(super) fn access(&self, file: &UnitFileName) -> io::Result<Option<Access>> {
        self.names.access(&self.path.join(file.path()))
    }

    /// Writes a file, or removes it, if it is unchanged; [`sync`](Self::sync) makes that durable. An existing file
    /// keeps its owner and mode; `access` is for one that does not exist.
    pub(super) fn put(
        &self,
        file: &UnitFileName,
        before: Option<Digest>,
        text: Option<&Bytes>,
        access: Option<Access>,
    ) -> io::Result<Put> {
        let path = self.path.join(file.path());
        let temporary = text.map(|text| self.written(file, text, access)).transpose()?;
        if !self.is(file, before)? {
            if let Some(temporary) = temporary {
                self.disk.remove(&temporary)?;
            }
            return Ok(Put::Foreign);
        }
        match temporary {
            Some(temporary) => self.disk.rename(&temporary, &path)?,
            None if before.is_some() => self.disk.remove(&path)?,
            None => {}
        }
        Ok(Put::Done)
    }

    /// Writes a temporary file with this text, durable except for its name.
    fn written(&self, file: &UnitFileName, text: &Bytes, access: Option<Access>) -> io::Result<PathBuf> {
        if file.drop_in_name().is_some() {
            let folder = self.path.join(file.drop_ins());
            if self.names.sort(&folder)?.is_none() {
                self.disk.create_dir(&folder)?;
                self.disk.sync_dir(&self.path)?;
            }
        }
        // Names of units may be as long as names of files.
        let digest = Digest::of(file.to_string().as_bytes()).to_string();
        let path = self.path.join(self.temporary(digest.get(..32).unwrap_or_default()));
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.names.make_private(&path)?;
        let open = self.disk.create(&path)?;
        open.write_at(text, 0)?;
        self.names.give(&path, self.access(file)?.or(access).unwrap_or(Access::NEW))?;
        open.sync()?;
        Ok(path)
    }

    /// Makes the names of these files durable.
    pub(super) fn sync<'a>(&self, files: impl Iterator<Item = &'a UnitFileName>) -> io::Result<()> {
        let mut folders: Vec<PathBuf> = vec![self.path.clone()];
        folders.extend(files.filter(|file| file.drop_in_name().is_some()).map(|file| self.path.join(file.drop_ins())));
        folders.sort();
        folders.dedup();
        for folder in folders {
            match self.disk.sync_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                synced => synced?,
            }
        }
        Ok(())
    }

    /// Removes a unit's folder of drop-ins, if it is empty.
    pub(super) fn tidy(&self, file: &UnitFileName) {
        // A folder with other files in it stays, which does no harm.
        let _ = fs::remove_dir(self.path.join(file.drop_ins()));
    }
}
