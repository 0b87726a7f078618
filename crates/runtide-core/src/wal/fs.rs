//! The disk, as the log sees it: blocking, with positions instead of cursors, so that a test can put a model in its place
//! that cuts, reorders, fills and fails.

use std::{
    fmt::Debug,
    io::Result,
    path::{Path, PathBuf},
};

mod os;

pub use self::os::OsDisk;

/// A disk: names and files.
///
/// Every method blocks. A change of a name (create, rename, remove) is durable only after [`Disk::sync_dir`] of its folder.
///
/// # Behavior
/// * An absent file or folder is [`NotFound`](std::io::ErrorKind::NotFound), a full disk
///   [`StorageFull`](std::io::ErrorKind::StorageFull), a lock that somebody holds
///   [`WouldBlock`](std::io::ErrorKind::WouldBlock).
/// * A file that is open stays readable after its name is removed or replaced.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a folder, and those above it; one that is there already is no error.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// Opens for reading and writing; makes the file if need be, and empties it if it is there.
    fn create(&self, path: &Path) -> Result<Box<dyn File>>;

    /// Opens a file that is there: for reading and writing, or for reading alone where writing is not permitted.
    fn open(&self, path: &Path) -> Result<Box<dyn File>>;

    /// Renames; an existing file of the new name is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a name.
    fn remove(&self, path: &Path) -> Result<()>;

    /// The files of a folder, with their whole paths, in any order.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>>;

    /// Makes the folder's names durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Makes the file if need be, without emptying it, and locks it exclusively until what is returned is dropped; never
    /// waits. Also a second lock within one process is refused.
    fn lock(&self, path: &Path) -> Result<Box<dyn File>>;
}

/// An open file.
///
/// Bytes, and the size, are durable only after [`File::sync`].
pub trait File: Debug + Send + Sync {
    /// The size in bytes.
    fn size(&self) -> Result<u64>;

    /// Reads at a position. Less than asked for, or nothing, only at the file's end.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize>;

    /// Writes all of it at a position; the file grows if it must.
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()>;

    /// Reserves room for `len` bytes from the start, and makes the file at least as long: what is new reads as zeros.
    fn allocate(&self, len: u64) -> Result<()>;

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> Result<()>;
}
