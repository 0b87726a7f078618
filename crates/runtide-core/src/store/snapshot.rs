//! The form of a snapshot, the same for every store: what one wrote, another can restore.
//!
//! All numbers are little-endian. A header: the magic `RTSTORE\n`, the version (`u32`), the revision and the count (`u64`
//! each). Then each resource, in strictly rising order of references: the length of its reference (`u16`), its format (`u8`),
//! the length of its body (`u32`), its revision (`u64`), the reference, the body. Then BLAKE3 of all bytes before, and the end.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Digest, Document, Resource, ResourceFormat, ResourceRef, Revision, StoreSnapshotSeal};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"RTSTORE\n";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 8 + 8;
const ENTRY: usize = 2 + 1 + 4 + 8;

/// Enough for BLAKE3 to hash many blocks side by side.
const BLOCK: usize = 256 << 10;

const WRITE: &str = "store.snapshot";
const READ: &str = "store.restore";

/// Writes a snapshot, for those who implement a store.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
/// use runtide_core::store::{Document, Resource, ResourceRef, Revision, StoreSnapshotReader, StoreSnapshotWriter};
///
/// let node = ResourceRef::new("", "Node", None, "n1")?;
/// let mut bytes = Vec::new();
/// let mut writer = StoreSnapshotWriter::begin(&mut bytes, Revision(7), 1);
/// writer.put(&Resource::new(node.clone(), Document::json("{}"), Revision(5))).await?;
/// let seal = writer.seal().await?;
///
/// let mut from = &bytes[..];
/// let mut reader = StoreSnapshotReader::begin(&mut from).await?;
/// assert_eq!(reader.next().await?.unwrap().reference, node);
/// assert!(reader.next().await?.is_none(), "and only now is it known to be whole");
/// assert_eq!(reader.seal(), Some(seal));
/// # Ok(()) }
/// ```
pub struct StoreSnapshotWriter<'a> {
    out: &'a mut (dyn AsyncWrite + Send + Unpin),
    hasher: blake3::Hasher,
    block: Vec<u8>,
    revision: Revision,
    announced: u64,
    count: u64,
    last: Option<ResourceRef>,
}

impl<'a> StoreSnapshotWriter<'a> {
    /// A snapshot of that many resources at this revision.
    pub fn begin(out: &'a mut (dyn AsyncWrite + Send + Unpin), revision: Revision, count: u64) -> Self {
        let mut block = Vec::with_capacity(BLOCK + (BLOCK >> 2));
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&revision.0.to_le_bytes());
        block.extend_from_slice(&count.to_le_bytes());
        Self { out, hasher: blake3::Hasher::new(), block, revision, announced: count, count: 0, last: None }
    }

    /// The next resource, as it was written.
    ///
    /// # Errors
    /// `InvalidInput` if its reference is not greater than the one before; otherwise the writer's error.
    pub async fn put(&mut self, resource: &Resource) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| *last >= resource.reference) {
            let error = Error::new(ErrorKind::InvalidInput, WRITE, "resources come in the order of their references");
            return Err(error.with_context("resource", &resource.reference));
        }
        let (reference, document) = (resource.reference.as_str().as_bytes(), resource.written());
        self.block.extend_from_slice(&u16::try_from(reference.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.block.push(document.format.code());
        let length = u32::try_from(document.bytes.len()).map_err(|_| too_long(&resource.reference))?;
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(&resource.revision.0.to_le_bytes());
        self.block.extend_from_slice(reference);
        self.block.extend_from_slice(&document.bytes);
        self.last = Some(resource.reference.clone());
        self.count += 1;
        if self.block.len() >= BLOCK { self.flush().await } else { Ok(()) }
    }

    /// Writes the end: the hash that seals the snapshot.
    ///
    /// # Errors
    /// `InvalidInput` if there were more or fewer resources than announced; otherwise the writer's error.
    pub async fn seal(mut self) -> Result<StoreSnapshotSeal> {
        if self.count != self.announced {
            let message = format!("{} resources were announced, and {} were put", self.announced, self.count);
            return Err(Error::new(ErrorKind::InvalidInput, WRITE, message));
        }
        self.flush().await?;
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.out.write_all(&digest.0).await.map_err(refused)?;
        self.out.flush().await.map_err(refused)?;
        Ok(StoreSnapshotSeal::new(self.revision, self.count, digest))
    }

    async fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.block);
        self.out.write_all(&self.block).await.map_err(refused)?;
        self.block.clear();
        Ok(())
    }
}

fn too_long(reference: &ResourceRef) -> Error {
    Error::new(ErrorKind::InvalidInput, WRITE, "the document is too long").with_context("resource", reference)
}

fn refused(error: std::io::Error) -> Error {
    Error::new(ErrorKind::of_disk(&error), WRITE, "the snapshot cannot be written").with_source(error)
}

/// Reads a snapshot, for those who implement a store. Its resources are verified only once it has returned `None`.
pub struct StoreSnapshotReader<'a> {
    from: &'a mut (dyn AsyncRead + Send + Unpin),
    hasher: blake3::Hasher,
    block: Vec<u8>,
    /// Offset of the next entry in the block, in bytes.
    at: usize,
    revision: Revision,
    count: u64,
    left: u64,
    last: Option<ResourceRef>,
    seal: Option<StoreSnapshotSeal>,
}

impl<'a> StoreSnapshotReader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// `Corrupt` if it is not a snapshot; `Unsupported` if it is of a later version.
    pub async fn begin(from: &'a mut (dyn AsyncRead + Send + Unpin)) -> Result<Self> {
        let mut reader = Self {
            from,
            hasher: blake3::Hasher::new(),
            block: Vec::new(),
            at: 0,
            revision: Revision(0),
            count: 0,
            left: 0,
            last: None,
            seal: None,
        };
        if reader.fill(HEADER).await? < HEADER || reader.take::<8>() != Some(*MAGIC) {
            return Err(corrupt("this is not a snapshot"));
        }
        let version = reader.take().map_or(0, u32::from_le_bytes);
        if version != VERSION {
            let message = format!("the snapshot is of version {version}, and {VERSION} is the one that is read here");
            return Err(Error::new(ErrorKind::Unsupported, READ, message));
        }
        reader.revision = Revision(reader.take().map_or(0, u64::from_le_bytes));
        reader.count = reader.take().map_or(0, u64::from_le_bytes);
        reader.left = reader.count;
        Ok(reader)
    }

    /// Revision of the snapshot's point in time.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Number of resources that the header announces.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The seal, once all was read; `None` before.
    pub fn seal(&self) -> Option<StoreSnapshotSeal> {
        self.seal
    }

    /// The next resource, in its own memory; `None` once all were read and the seal was found to be right.
    ///
    /// # Errors
    /// `Corrupt` if the snapshot is corrupt; otherwise the reader's error.
    pub async fn next(&mut self) -> Result<Option<Arc<Resource>>> {
        if self.seal.is_some() {
            return Ok(None);
        }
        if self.left == 0 {
            self.end().await?;
            return Ok(None);
        }
        if self.fill(ENTRY).await? < ENTRY {
            return Err(corrupt("the snapshot is cut"));
        }
        let reference = usize::from(self.take().map_or(0, u16::from_le_bytes));
        let format = self.take::<1>().map_or(0, |[format]| format);
        let length = self.take().map_or(0, u32::from_le_bytes) as usize;
        let revision = Revision(self.take().map_or(0, u64::from_le_bytes));
        let format =
            ResourceFormat::from_code(format).ok_or_else(|| corrupt("a resource has a format that does not exist"))?;
        if length > Document::MAX_BYTES {
            return Err(corrupt("a resource is longer than any can be"));
        }
        if self.fill(reference + length).await? < reference + length {
            return Err(corrupt("the snapshot is cut"));
        }
        let (name, rest) =
            self.block.get(self.at..).unwrap_or_default().split_at_checked(reference).unwrap_or_default();
        let name = std::str::from_utf8(name).ok().and_then(|name| name.parse::<ResourceRef>().ok());
        let name = name.ok_or_else(|| corrupt("a resource has a reference that cannot be one"))?;
        let body = Bytes::copy_from_slice(rest.get(..length).unwrap_or_default());
        self.at += reference + length;
        if self.last.as_ref().is_some_and(|last| *last >= name) {
            return Err(corrupt("the resources are not in order").with_context("resource", name));
        }
        self.last = Some(name.clone());
        self.left -= 1;
        Ok(Some(Arc::new(Resource::new(name, Document::new(format, body), revision))))
    }

    async fn end(&mut self) -> Result<()> {
        self.account();
        let digest = Digest(*self.hasher.finalize().as_bytes());
        if self.fill(digest.0.len()).await? < digest.0.len() {
            return Err(corrupt("the snapshot is cut"));
        }
        if self.take() != Some(digest.0) {
            return Err(corrupt("the snapshot's seal is not that of its bytes"));
        }
        if self.fill(1).await? > 0 {
            return Err(corrupt("something follows the snapshot's end"));
        }
        self.seal = Some(StoreSnapshotSeal::new(self.revision, self.count, digest));
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.block.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(bytes)
    }

    /// Hashes the bytes that were read so far.
    fn account(&mut self) {
        self.hasher.update(self.block.get(..self.at).unwrap_or_default());
        self.block.drain(..self.at);
        self.at = 0;
    }

    /// Buffers this many bytes ahead, unless the end comes first; returns the number that is buffered.
    async fn fill(&mut self, wanted: usize) -> Result<usize> {
        if self.block.len() - self.at < wanted {
            self.account();
        }
        while self.block.len() < self.at + wanted {
            // A length may be wrong: memory is allocated as bytes arrive.
            self.block.reserve(BLOCK);
            let read = self.from.read_buf(&mut self.block).await;
            let read = read.map_err(|error| {
                Error::new(ErrorKind::of_disk(&error), READ, "the snapshot cannot be read").with_source(error)
            })?;
            if read == 0 {
                break;
            }
        }
        Ok(self.block.len() - self.at)
    }
}

fn corrupt(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, READ, message)
}

impl fmt::Debug for StoreSnapshotWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSnapshotWriter")
            .field("revision", &self.revision)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreSnapshotReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSnapshotReader")
            .field("revision", &self.revision)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn resources(count: u64) -> Vec<Resource> {
        let one = |n: u64| {
            let name = ResourceRef::new("", "Pod", "shop", &format!("web{n:04}")).unwrap();
            Resource::new(name, Document::json(format!("{{\"n\":{n}}}")), Revision(n + 1))
        };
        (0..count).map(one).collect()
    }

    fn written(resources: &[Resource]) -> (Vec<u8>, StoreSnapshotSeal) {
        let mut bytes = Vec::new();
        let seal = block_on(async {
            let mut writer = StoreSnapshotWriter::begin(&mut bytes, Revision(99), resources.len() as u64);
            for resource in resources {
                writer.put(resource).await?;
            }
            writer.seal().await
        });
        (bytes, seal.unwrap())
    }

    fn read(mut bytes: &[u8]) -> Result<(Vec<Arc<Resource>>, Option<StoreSnapshotSeal>)> {
        block_on(async {
            let mut reader = StoreSnapshotReader::begin(&mut bytes).await?;
            let mut all = Vec::new();
            while let Some(resource) = reader.next().await? {
                all.push(resource);
            }
            Ok((all, reader.seal()))
        })
    }

    #[test]
    fn a_written_snapshot_is_read_back() {
        for count in [0, 1, 10_000] {
            let resources = resources(count);
            let (bytes, seal) = written(&resources);
            let (found, sealed) = read(&bytes).unwrap();
            assert!(found.iter().map(|one| &**one).eq(&resources));
            assert_eq!((sealed, seal.count, seal.revision), (Some(seal), count, Revision(99)));
        }
    }

    #[test]
    fn every_flip_cut_and_addition_is_noticed() {
        let (bytes, _) = written(&resources(3));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(read(&flipped).is_err(), "byte {at}");
            assert_eq!(read(&bytes[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {at}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(read(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_later_version_is_refused_in_clear_words() {
        let (mut bytes, _) = written(&[]);
        bytes[8] = 2;
        let error = read(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn wrong_use_of_the_writer_is_an_error() {
        let mut two = resources(2);
        two.reverse();
        let mut bytes = Vec::new();
        let refused = block_on(async {
            let mut writer = StoreSnapshotWriter::begin(&mut bytes, Revision(1), 2);
            writer.put(&two[0]).await.unwrap();
            let order = writer.put(&two[1]).await.unwrap_err();
            (order, writer.seal().await.unwrap_err())
        });
        assert_eq!((refused.0.kind(), refused.1.kind()), (ErrorKind::InvalidInput, ErrorKind::InvalidInput));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(more in prop::collection::vec(any::<u8>(), 0..200), count in any::<u64>()) {
            let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &7_u64.to_le_bytes(), &count.to_le_bytes()].concat();
            bytes.extend(more);
            prop_assert!(read(&bytes).is_err());
        }
    }
}
