//! [`Entry`]: one file as the header and the contents of a tar entry.

use std::{fs, io, path::Path, time::UNIX_EPOCH};

/// Longest name in the header itself, in bytes; a longer one is in a record before it.
const LONGEST_NAME: usize = 100;

/// One entry of an archive.
pub(super) struct Entry {
    header: tar::Header,
    name: Vec<u8>,
    link: Vec<u8>,
    /// The file's capabilities, the one extended attribute that the engine's client sends.
    capability: Option<Vec<u8>>,
    /// Device and inode of a file with further links.
    pub(super) shared_inode: Option<(u64, u64)>,
}

impl Entry {
    /// A file of root's that only root may read.
    pub(super) fn file(name: &str, size: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(size);
        Self { header, name: name.as_bytes().to_vec(), link: Vec::new(), capability: None, shared_inode: None }
    }

    /// The entry of a file, a folder, a link, a pipe or a device, owned by root. `None`: a socket, which an archive cannot hold.
    pub(super) fn of(path: &Path, name: &[u8], metadata: &fs::Metadata) -> io::Result<Option<Self>> {
        let mut header = tar::Header::new_ustar();
        let kind = metadata.file_type();
        let mut entry_name = name.to_vec();
        let mut link = Vec::new();
        header.set_size(0);
        if kind.is_file() {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(metadata.len());
        } else if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            entry_name.push(b'/');
        } else if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            link = fs::read_link(path)?.into_os_string().into_encoded_bytes();
        } else if !special(&mut header, metadata)? {
            return Ok(None);
        }
        // Whole seconds: the archive has no more. A time before 1970 is 1970.
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        header.set_mtime(modified.map_or(0, |since| since.as_secs()));
        header.set_mode(mode(metadata));
        let shared_inode = shared_inode(metadata).filter(|_| !kind.is_dir());
        let capability = if kind.is_file() { capability(path)? } else { None };
        Ok(Some(Self { header, name: entry_name, link, capability, shared_inode }))
    }

    /// Makes it a further name of an earlier entry.
    pub(super) fn become_link(&mut self, first: &[u8]) {
        self.header.set_entry_type(tar::EntryType::Link);
        self.header.set_size(0);
        self.link = first.to_vec();
    }

    pub(super) fn is_file(&self) -> bool {
        self.header.entry_type().is_file()
    }

    /// Writes the entry. Contents of another size than the header's are an error, since everything behind them would be out of place.
    pub(super) fn write<W: io::Write>(mut self, tar: &mut tar::Builder<W>, contents: impl io::Read) -> io::Result<()> {
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        if !put(&mut self.header.as_old_mut().name, &self.name) {
            records.push(("path", &self.name));
        }
        if !put(&mut self.header.as_old_mut().linkname, &self.link) {
            records.push(("linkpath", &self.link));
        }
        if let Some(capability) = &self.capability {
            records.push(("SCHILY.xattr.security.capability", capability));
        }
        if !records.is_empty() {
            tar.append_pax_extensions(records)?;
        }
        self.header.set_uid(0);
        self.header.set_gid(0);
        self.header.set_cksum();
        let mut contents = Exactly { contents, left: self.header.size()? };
        tar.append(&self.header, &mut contents)
    }
}

/// Puts a name into its field; `false`: it is too long, and its begin alone is there.
fn put(field: &mut [u8; LONGEST_NAME], name: &[u8]) -> bool {
    *field = [0; LONGEST_NAME];
    for (slot, byte) in field.iter_mut().zip(name) {
        *slot = *byte;
    }
    name.len() <= LONGEST_NAME
}

/// A reader that has exactly this many bytes, or fails.
struct Exactly<R> {
    contents: R,
    left: u64,
}

impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return match self.contents.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the file became longer while it was read")),
            };
        }
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.contents.read(buffer.get_mut(..room).unwrap_or_default())?;
        if count == 0 && room > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(unix)]
fn special(header: &mut tar::Header, metadata: &fs::Metadata) -> io::Result<bool> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = metadata.file_type();
    if kind.is_fifo() {
        header.set_entry_type(tar::EntryType::Fifo);
        return Ok(true);
    }
    if !kind.is_char_device() && !kind.is_block_device() {
        return Ok(false);
    }
    header.set_entry_type(if kind.is_char_device() { tar::EntryType::Char } else { tar::EntryType::Block });
    #[cfg(target_os = "linux")]
    {
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = metadata.rdev();
    Ok(true)
}

#[cfg(not(unix))]
fn special(_: &mut tar::Header, _: &fs::Metadata) -> io::Result<bool> {
    Ok(false)
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777
}

/// As the engine's client on such a system: everything may be read and run.
#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> u32 {
    0o755
}

#[cfg(unix)]
fn shared_inode(metadata: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn shared_inode(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

#[cfg(target_os = "linux")]
fn capability(path: &Path) -> io::Result<Option<Vec<u8>>> {
    use rustix::io::Errno;
    // The kernel's structure has at most 24 bytes.
    let mut value = [0; 64];
    match rustix::fs::lgetxattr(path, "security.capability", &mut value) {
        Ok(size) => Ok(value.get(..size).map(<[u8]>::to_vec)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn capability(_: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_of_another_size_are_an_error() {
        let write = |size, contents: &[u8]| Entry::file("a", size).write(&mut tar::Builder::new(Vec::new()), contents);
        for (size, contents) in [(0, &b""[..]), (3, b"abc")] {
            write(size, contents).unwrap();
        }
        for (size, contents, says) in [(0, &b"a"[..], "longer"), (3, b"abcd", "longer"), (3, b"ab", "shorter")] {
            assert!(write(size, contents).unwrap_err().to_string().contains(says));
        }
    }
}
