//! The disk as a trait: blocking calls, with offsets instead of cursors, so that a test can replace it by a model that cuts,
//! reorders, fills up and fails.

use std::{
    fmt::Debug,
    io::Result,
    path::{Path, PathBuf},
};

mod os;

pub use self::os::OsDisk;

/// A disk: folders, names and files.
///
/// Every method blocks. A change of a name (create, rename, remove) is durable only after [`Disk::sync_dir`] of its folder.
///
/// # Behavior
/// * An absent file or folder is [`NotFound`](std::io::ErrorKind::NotFound), a full disk
///   [`StorageFull`](std::io::ErrorKind::StorageFull), a lock that is already held
///   [`WouldBlock`](std::io::ErrorKind::WouldBlock).
/// * A file that is open stays readable after its name is removed or replaced.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a folder and its parents; an existing one is no error.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// Opens a file for reading and writing; creates it if it does not exist, and empties it if it does.
    fn create(&self, path: &Path) -> Result<Box<dyn File>>;

    /// Opens an existing file: for reading and writing, or for reading alone where writing is not permitted.
    fn open(&self, path: &Path) -> Result<Box<dyn File>>;

    /// Renames a file; an existing file of the new name is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> Result<()>;

    /// The files of a folder, with their whole paths, in any order.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>>;

    /// Makes the folder's names durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Creates the file if it does not exist, without emptying it, and locks it exclusively until the returned file is dropped;
    /// never waits. A second lock within one process is refused as well.
    fn lock(&self, path: &Path) -> Result<Box<dyn File>>;
}

/// An open file.
///
/// Bytes, and the size, are durable only after [`File::sync`].
pub trait File: Debug + Send + Sync {
    /// Returns the size in bytes.
    fn size(&self) -> Result<u64>;

    /// Reads at a byte offset. Returns fewer bytes than asked for, or none, only at the file's end.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize>;

    /// Writes all of `buf` at a byte offset; the file grows if it must.
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()>;

    /// Reserves space for `len` bytes from the start, and makes the file at least that long: new bytes read as zeros.
    fn allocate(&self, len: u64) -> Result<()>;

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> Result<()>;

    /// Makes everything written so far durable.
    fn sync(&self) -> Result<()>;
}
