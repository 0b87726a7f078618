//! [`Context`]: a directory as the tar stream of a build, without what its ignore file leaves out.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use runtide_core::{Error, ErrorKind, Result, backend::CallSite};
use tokio::sync::mpsc;

use super::{
    entry::Entry,
    ignore::{Matched, Patterns},
};

const IGNORE_FILE: &str = ".dockerignore";
const DOCKERFILE: &str = "Dockerfile";
/// Largest ignore file, and largest Dockerfile from outside of the context, in bytes.
const LARGEST_FILE: u64 = 4 << 20;
/// Size of a chunk, and how many may wait to be sent: a reader that stops holds the walk back.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 4;

/// A directory that was found fit to be sent.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    patterns: Patterns,
    /// The Dockerfile's path in the context, with slashes.
    dockerfile: String,
    /// Files that are sent in place of those of the directory, or besides them.
    extra: Vec<(String, Vec<u8>)>,
}

impl Context {
    /// Reads the ignore file and finds the Dockerfile: `Dockerfile`, else `dockerfile`, if none is named. A named one is relative to
    /// the directory; one from outside of it is sent along.
    ///
    /// # Errors
    /// `InvalidInput` for a directory or a Dockerfile that is not there, or a pattern that cannot be read; `PermissionDenied`.
    pub async fn open(site: CallSite<'_>, root: &Path, dockerfile: Option<&Path>) -> Result<Self> {
        let (root, dockerfile) = (root.to_owned(), dockerfile.map(Path::to_owned));
        let opened = tokio::task::spawn_blocking(move || open(&root, dockerfile.as_deref())).await;
        let opened = opened.unwrap_or_else(|failed| Err(Unfit::new(Path::new(""), io::Error::other(failed))));
        opened.map_err(|unfit| unfit.located(site))
    }

    /// The Dockerfile's path in the context, as the engine takes it.
    pub fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// The tar stream. It ends with an error if a file cannot be read, or changes its size while it is read; a file that is gone by
    /// then is left out. As with the engine's own client, everything belongs to root, and sockets are left out.
    ///
    /// # Cancel safety
    /// The walk ends when the stream is dropped, after the file that it is at.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (sender, mut receiver) = mpsc::channel(CHUNKS);
        tokio::task::spawn_blocking(move || {
            let mut output = Output { sender, buffer: BytesMut::new() };
            if let Err(error) = self.write(&mut output) {
                // Without a receiver there is no one to report it to.
                let _ = output.sender.blocking_send(Err(error));
            }
        });
        futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let mut walk = Walk { context: self, tar: tar::Builder::new(output), seen: HashMap::new() };
        walk.folder(&self.root, "".as_ref(), None)?;
        for (name, contents) in &self.extra {
            Entry::file(name, contents.len() as u64).write(&mut walk.tar, contents.as_slice())?;
        }
        walk.tar.into_inner()?.flush_rest()
    }
}

/// The walk through a directory.
struct Walk<'a> {
    context: &'a Context,
    tar: tar::Builder<&'a mut Output>,
    /// Names of the files with further links, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
}

impl Walk<'_> {
    /// `name` is the folder's in the archive.
    fn folder(&mut self, folder: &Path, name: &Path, above: Option<&Matched>) -> io::Result<()> {
        let at = |error: io::Error, path: &Path| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>().map_err(|error| at(error, folder))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(at(error, folder)),
        };
        // The order is the client's, so that the same directory is the same stream.
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at(error, &path)),
            };
            let bytes = archive_name(&name);
            let (left_out, matched) = self.context.patterns.leaves_out(&bytes, above);
            let replaced = self.context.extra.iter().any(|(extra, _)| extra.as_bytes() == bytes);
            if !left_out && !replaced {
                self.add(&path, &bytes, &metadata).map_err(|error| at(error, &path))?;
            }
            if metadata.is_dir() && (!left_out || self.context.patterns.may_keep_below(&bytes)) {
                self.folder(&path, &name, Some(&matched))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &[u8], metadata: &fs::Metadata) -> io::Result<()> {
        let Some(mut entry) = Entry::of(path, name, metadata)? else { return Ok(()) };
        if let Some(inode) = entry.shared_inode {
            match self.seen.get(&inode) {
                Some(first) => {
                    entry.become_link(first);
                    return entry.write(&mut self.tar, io::empty());
                }
                None => drop(self.seen.insert(inode, name.to_vec())),
            }
        }
        if !entry.has_contents() {
            return entry.write(&mut self.tar, io::empty());
        }
        match fs::File::open(path) {
            Ok(file) => entry.write(&mut self.tar, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The name in the archive, with slashes.
fn archive_name(name: &Path) -> Vec<u8> {
    let bytes = name.as_os_str().as_encoded_bytes();
    if std::path::MAIN_SEPARATOR == '/' {
        return bytes.to_vec();
    }
    bytes.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// The stream's other end: chunks that are sent when they are full.
struct Output {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl Output {
    fn send(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush_rest(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK.saturating_sub(self.buffer.len()).max(1);
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reason why a directory cannot be sent.
struct Unfit {
    path: PathBuf,
    message: Option<String>,
    cause: Option<io::Error>,
}

impl Unfit {
    fn new(path: &Path, cause: io::Error) -> Self {
        Self { path: path.to_owned(), message: None, cause: Some(cause) }
    }

    fn because(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: Some(message.into()), cause: None }
    }

    fn located(self, site: CallSite<'_>) -> Error {
        let kind = match self.cause.as_ref().map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidInput,
        };
        let message = self.message.unwrap_or_else(|| format!("'{}' cannot be read", self.path.display()));
        let error = site.error(kind, message).with_context("path", self.path.display());
        match self.cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

fn open(given: &Path, dockerfile: Option<&Path>) -> std::result::Result<Context, Unfit> {
    let root = given.canonicalize().map_err(|error| Unfit::new(given, error))?;
    if !root.is_dir() {
        return Err(Unfit::because(&root, "the context of a build is a directory"));
    }
    let path = root.join(IGNORE_FILE);
    let ignore = match fs::metadata(&path).and_then(|_| read(&path)) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Unfit::new(&path, error)),
    };
    let mut patterns = Patterns::parse(ignore.as_deref().unwrap_or_default()).map_err(|bad| {
        let message =
            format!("the pattern '{}' of {IGNORE_FILE} cannot be read: {}", bad.pattern.escape_debug(), bad.reason);
        Unfit::because(&path, message)
    })?;
    patterns.keep(IGNORE_FILE);
    let dockerfile = find_dockerfile(&root, dockerfile)?;
    let mut extra = Vec::new();
    let name = if let Ok(within) = dockerfile.strip_prefix(&root) {
        let name = String::from_utf8(archive_name(within));
        name.map_err(|_| Unfit::because(&dockerfile, "the path of the Dockerfile is not UTF-8"))?
    } else {
        // As the client does: under a name that cannot be in the directory, and that the engine takes out of the context.
        let name = format!(".dockerfile.{}", uuid::Uuid::new_v4().simple());
        extra.push((name.clone(), read(&dockerfile).map_err(|error| Unfit::new(&dockerfile, error))?));
        let mut ignore = ignore.unwrap_or_else(|| IGNORE_FILE.as_bytes().to_vec());
        ignore.extend_from_slice(format!("\n{name}\n").as_bytes());
        extra.push((IGNORE_FILE.to_owned(), ignore));
        name
    };
    patterns.keep(&name);
    Ok(Context { root, patterns, dockerfile: name, extra })
}

fn find_dockerfile(root: &Path, named: Option<&Path>) -> std::result::Result<PathBuf, Unfit> {
    let path = root.join(named.unwrap_or(Path::new(DOCKERFILE)));
    let small = root.join(DOCKERFILE.to_lowercase());
    let is_small = named.is_none() && path.symlink_metadata().is_err() && small.symlink_metadata().is_ok();
    let path = if is_small { small } else { path };
    let found = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unfit::because(&path, format!("there is no Dockerfile '{}'", path.display())),
        _ => Unfit::new(&path, error),
    })?;
    if found.is_file() { Ok(found) } else { Err(Unfit::because(&found, "the Dockerfile is not a file")) }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 4 MiB"));
    }
    Ok(bytes)
}
