//! [`Context`]: a directory as the tar stream of a build, without what its ignore file leaves out.

use std::{
    collections::HashMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use runtide_core::{Error, ErrorKind, Result, backend::CallSite};
use tokio::sync::mpsc;

use super::{
    entry::Entry,
    ignore::{BadPattern, Ignored, Matched},
};

/// The ignore files of each client.
const DOCKERS: &str = ".dockerignore";
const PODMANS: &str = ".containerignore";
/// Largest ignore file, and largest Dockerfile from outside of the context, in bytes.
const LARGEST_FILE: u64 = 4 << 20;
/// Size of a chunk, and how many may wait to be sent: a reader that stops holds the walk back.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 4;

/// The engine by the rules of whose own client a context is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// `Dockerfile`, else `dockerfile`, and `.dockerignore`.
    Docker,
    /// `Containerfile`, else `Dockerfile`; an ignore file of that name with `.containerignore` or `.dockerignore` behind it, else
    /// `.containerignore`, else `.dockerignore`. Pipes and devices are left out.
    Podman,
}

impl Rules {
    /// Names of the file to build from, where none is named.
    fn defaults(self) -> [&'static str; 2] {
        match self {
            Self::Docker => ["Dockerfile", "dockerfile"],
            Self::Podman => ["Containerfile", "Dockerfile"],
        }
    }

    /// The ignore file that the engine reads before all others.
    fn ignore_file(self) -> &'static str {
        match self {
            Self::Docker => DOCKERS,
            Self::Podman => PODMANS,
        }
    }
}

/// A directory that was found fit to be sent.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    rules: Rules,
    ignored: Ignored,
    /// The Dockerfile's path in the context, with slashes.
    dockerfile: String,
    /// Files that are sent in place of those of the directory, or besides them.
    extra: Vec<(String, Vec<u8>)>,
}

impl Context {
    /// Finds the file to build from and reads the ignore file, by the [`Rules`]. A named file is relative to the directory; one that is
    /// outside of it by its path is sent along.
    ///
    /// # Errors
    /// `InvalidInput` for a directory or a Dockerfile that is not there, a Dockerfile or an ignore file that is not a file or leads
    /// out of the directory by a link, or a pattern that cannot be read; `PermissionDenied`.
    pub async fn open(site: CallSite<'_>, rules: Rules, root: &Path, dockerfile: Option<&Path>) -> Result<Self> {
        let (root, dockerfile) = (root.to_owned(), dockerfile.map(Path::to_owned));
        let opened = tokio::task::spawn_blocking(move || open(rules, &root, dockerfile.as_deref())).await;
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
            let mut output = Output::new(sender);
            if let Err(error) = self.write(&mut output) {
                // Without a receiver there is no one to report it to.
                let _ = output.sender.blocking_send(Err(error));
            }
        });
        futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let mut walk = Walk { context: self, tar: tar::Builder::new(output), seen: HashMap::new() };
        if let Err(error) = walk.whole() {
            // The builder writes the archive's end when it is dropped.
            walk.tar.get_mut().failed = true;
            return Err(error);
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
    fn whole(&mut self) -> io::Result<()> {
        self.folder(&self.context.root, "".as_ref(), None)?;
        self.context.extra.iter().try_for_each(|(name, contents)| {
            Entry::file(name, contents.len() as u64).write(&mut self.tar, contents.as_slice())
        })
    }

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
            let (left_out, matched) = self.context.ignored.leaves_out(&bytes, above);
            let replaced = self.context.extra.iter().any(|(extra, _)| extra.as_bytes() == bytes);
            if !left_out && !replaced {
                self.add(&path, &bytes, &metadata).map_err(|error| at(error, &path))?;
            }
            if metadata.is_dir() && (!left_out || self.context.ignored.may_keep_below(&bytes)) {
                self.folder(&path, &name, Some(&matched))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &[u8], metadata: &fs::Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if self.context.rules == Rules::Podman && !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            return Ok(());
        }
        let Some(mut entry) = Entry::of(path, name, metadata)? else { return Ok(()) };
        let inode = entry.shared_inode;
        if let Some(first) = inode.and_then(|inode| self.seen.get(&inode)) {
            entry.become_link(first);
            return entry.write(&mut self.tar, io::empty());
        }
        if entry.is_file() {
            match open_file(path) {
                Ok(file) => entry.write(&mut self.tar, file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        } else {
            entry.write(&mut self.tar, io::empty())?;
        }
        // Further names link to this one, which is in the archive only now.
        if let Some(inode) = inode {
            self.seen.insert(inode, name.to_vec());
        }
        Ok(())
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
    /// Takes no more bytes.
    failed: bool,
}

impl Output {
    fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { sender, buffer: BytesMut::new(), failed: false }
    }

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
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
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

    fn leads_out(path: &Path) -> Self {
        Self::because(path, format!("'{}' leads out of the build's context by a link", path.display()))
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

fn open(rules: Rules, given: &Path, dockerfile: Option<&Path>) -> std::result::Result<Context, Unfit> {
    let root = given.canonicalize().map_err(|error| Unfit::new(given, error))?;
    if !root.is_dir() {
        return Err(Unfit::because(&root, "the context of a build is a directory"));
    }
    let found = find_dockerfile(rules, given, &root, dockerfile)?;
    let within = found.strip_prefix(&root).ok().map(|within| String::from_utf8(archive_name(within)));
    let within = within.transpose().map_err(|_| Unfit::because(&found, "the path of the Dockerfile is not UTF-8"))?;
    let (first, mut ignored) = read_ignored(rules, &root, &found)?;
    let mut extra = Vec::new();
    let name = within.map_or_else(
        || {
            // As Docker's client does: under a name that cannot be in the directory, and that is then in the ignore file.
            let name = format!(".dockerfile.{}", uuid::Uuid::new_v4().simple());
            extra.push((name.clone(), read(&found).map_err(|error| Unfit::new(&found, error))?));
            let file = rules.ignore_file();
            let mut ignore = match first {
                Some((path, ignore)) if path == file => ignore,
                Some((_, ignore)) => [&ignore[..], b"\n", file.as_bytes()].concat(),
                None => file.as_bytes().to_vec(),
            };
            ignore.extend_from_slice(format!("\n{name}\n").as_bytes());
            extra.push((file.to_owned(), ignore));
            Ok(name)
        },
        Ok,
    )?;
    ignored.keep(&name);
    if rules == Rules::Podman {
        for suffix in SUFFIXES {
            ignored.keep(&format!("{name}{suffix}"));
        }
    }
    Ok(Context { root, rules, ignored, dockerfile: name, extra })
}

/// Ends of the names of ignore files that are for one Dockerfile, the first of which that exists is honoured.
const SUFFIXES: [&str; 2] = [DOCKERS, PODMANS];

/// The patterns of the ignore files, and the file that comes first with its path in the context.
type Read = (Option<(String, Vec<u8>)>, Ignored);

fn read_ignored(rules: Rules, root: &Path, dockerfile: &Path) -> std::result::Result<Read, Unfit> {
    let read_at = |path: &Path| match path.canonicalize() {
        // An ignore file that is for a Dockerfile elsewhere stands next to that.
        Ok(found) if path.starts_with(root) && !found.starts_with(root) => Err(Unfit::leads_out(path)),
        Ok(found) => read(&found).map(Some).map_err(|error| Unfit::new(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unfit::new(path, error)),
    };
    let unreadable = |path: &Path, bad: &BadPattern| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let message = format!("the pattern '{}' of {name} cannot be read: {}", bad.pattern.escape_debug(), bad.reason);
        Unfit::because(path, message)
    };
    if rules == Rules::Docker {
        let path = root.join(DOCKERS);
        let file = read_at(&path)?;
        let mut ignored =
            Ignored::docker(file.as_deref().unwrap_or_default()).map_err(|bad| unreadable(&path, &bad))?;
        ignored.keep(DOCKERS);
        return Ok((file.map(|file| (DOCKERS.to_owned(), file)), ignored));
    }
    let own = SUFFIXES.map(|suffix| {
        let mut path = dockerfile.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    });
    let mut ignored = Ignored::podman();
    let mut first = None;
    for either in [own, [root.join(PODMANS), root.join(DOCKERS)]] {
        for path in either {
            let Some(file) = read_at(&path)? else { continue };
            ignored.add_podmans(&file).map_err(|bad| unreadable(&path, &bad))?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            first.get_or_insert((name, file));
            break;
        }
    }
    Ok((first, ignored))
}

fn find_dockerfile(
    rules: Rules,
    given: &Path,
    root: &Path,
    named: Option<&Path>,
) -> std::result::Result<PathBuf, Unfit> {
    let [first, second] = rules.defaults().map(|name| root.join(name));
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    let path = match named {
        Some(named) => root.join(named),
        None if !is_there(&first) && is_there(&second) => second,
        None => first,
    };
    let given = std::path::absolute(given).map_err(|error| Unfit::new(given, error))?;
    let is_below = |path: &Path| path.starts_with(root) || path.starts_with(&given);
    // `..` after a link of the directory would be wherever that leads to.
    let path = if is_below(&path) { without_dots(&path) } else { path };
    let unfound = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unfit::because(&path, format!("there is no Dockerfile '{}'", path.display())),
        _ => Unfit::new(&path, error),
    };
    let found = path.canonicalize().map_err(unfound)?;
    // The caller may name any file; a link in the directory, which may be a stranger's, may not.
    let folder = path.parent().unwrap_or(&path).canonicalize().map_err(unfound)?;
    if (is_below(&path) || folder.starts_with(root)) && !found.starts_with(root) {
        return Err(Unfit::leads_out(&path));
    }
    if found.is_file() { Ok(found) } else { Err(Unfit::because(&found, "the Dockerfile is not a file")) }
}

/// The path without `.` and `..`, by its text alone.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            _ => clean.push(component),
        }
    }
    clean
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    open_file(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// Opens a regular file, and no link. Neither this nor a read waits for another process, as on a pipe or a terminal.
fn open_file(path: &Path) -> io::Result<fs::File> {
    #[cfg(unix)]
    let file = {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        fs::File::from(rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?)
    };
    #[cfg(not(unix))]
    let file = fs::File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use futures_util::StreamExt;
    use runtide_core::BackendId;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            fs::write(folder.path().join(name), contents).unwrap();
        }
        folder
    }

    async fn open_at(root: &Path, dockerfile: Option<&Path>) -> Result<Context> {
        Context::open(CallSite::new("engine.build", &BackendId::from("engine:test")), Rules::Docker, root, dockerfile)
            .await
    }

    async fn assert_refused(root: &Path, dockerfile: Option<&Path>) {
        let error = open_at(root, dockerfile).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }

    #[tokio::test]
    async fn a_link_out_of_the_directory_is_refused_and_a_named_path_outside_is_not() {
        let outside = folder(&[("secret", b"secret")]);
        let secret = outside.path().join("secret");
        let context = folder(&[("other", b"FROM scratch")]);
        let root = context.path();
        symlink(&secret, root.join("Dockerfile")).unwrap();
        symlink(outside.path(), root.join("sub")).unwrap();
        symlink(root, outside.path().join("alias")).unwrap();
        let alias = outside.path().join("alias");
        for named in ["Dockerfile", "./Dockerfile", "sub/secret", "other/../Dockerfile"] {
            assert_refused(root, Some(Path::new(named))).await;
            assert_refused(root, Some(&root.join(named))).await;
            assert_refused(&alias, Some(&alias.join(named))).await;
            assert_refused(root, Some(&alias.join("Dockerfile"))).await;
        }
        assert_refused(root, None).await;
        // The parent of `sub` is the directory, not that of its target.
        assert_refused(root, Some(Path::new("sub/../Dockerfile"))).await;
        let inside = open_at(root, Some(Path::new("sub/../other"))).await.unwrap();
        assert!(inside.dockerfile() == "other" && inside.extra.is_empty());
        let named = open_at(root, Some(&secret)).await.unwrap();
        assert_eq!(named.extra.first().unwrap().1, b"secret");

        fs::remove_file(root.join("Dockerfile")).unwrap();
        symlink(&secret, root.join("dockerfile")).unwrap();
        assert_refused(root, None).await;
        symlink(&secret, root.join(DOCKERS)).unwrap();
        assert_refused(root, Some(Path::new("other"))).await;
    }

    #[tokio::test]
    async fn an_ignore_file_that_is_a_pipe_or_a_device_is_refused() {
        let context = folder(&[("Dockerfile", b"FROM scratch")]);
        let ignore = context.path().join(DOCKERS);
        let made = std::process::Command::new("mkfifo").arg(&ignore).status().unwrap();
        assert!(made.success());
        assert_refused(context.path(), None).await;
        fs::remove_file(&ignore).unwrap();
        symlink("/dev/tty", &ignore).unwrap();
        assert_refused(context.path(), None).await;
        let pipe = context.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(open_file(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        symlink("Dockerfile", context.path().join("link")).unwrap();
        assert!(open_file(&context.path().join("link")).is_err(), "a file that became a link is not followed");
    }

    /// The bytes and the error of a stream whose file `a` gets another size while it is read.
    async fn resized(from: usize, to: usize) -> (Vec<u8>, io::Error) {
        let context = folder(&[("Dockerfile", b""), ("a", &vec![1; from])]);
        let mut opened = open_at(context.path(), None).await.unwrap();
        // Of the other files none is sent, so that `a` is the first.
        opened.ignored = Ignored::docker(b"**\n!a\n").ok().unwrap();
        let mut stream = std::pin::pin!(opened.into_stream());
        // From here on the walk is at most some chunks further, far from the end of the file.
        let mut bytes = stream.next().await.unwrap().unwrap().to_vec();
        let file = fs::OpenOptions::new().write(true).open(context.path().join("a")).unwrap();
        file.set_len(to as u64).unwrap();
        let mut error = None;
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(cause) => error = Some(cause),
            }
        }
        (bytes, error.expect("the stream has no error"))
    }

    #[tokio::test]
    async fn a_file_that_changes_its_size_is_an_error_and_the_archive_has_no_end() {
        let (_, error) = resized(20 * CHUNK, 21 * CHUNK).await;
        assert!(error.to_string().contains("longer"), "{error}");
        // Header and contents leave room for less than the archive's end in the last chunk.
        let (bytes, error) = resized(20 * CHUNK, 15 * CHUNK - 1024).await;
        assert!(error.to_string().contains("shorter"), "{error}");
        assert!(bytes.len() > 512 && bytes.iter().skip(512).all(|byte| *byte == 1), "the archive's end was sent");
    }

    #[tokio::test]
    async fn a_further_name_of_a_file_that_is_gone_is_the_file() {
        let files = folder(&[("Dockerfile", b""), ("a", b"contents")]);
        let (a, b) = (files.path().join("a"), files.path().join("b"));
        fs::hard_link(&a, &b).unwrap();
        let metadata = fs::symlink_metadata(&a).unwrap();
        let context = open_at(files.path(), None).await.unwrap();
        fs::remove_file(&a).unwrap();
        let (sender, mut receiver) = mpsc::channel(CHUNKS);
        let walked = tokio::task::spawn_blocking(move || {
            let mut output = Output::new(sender);
            let mut walk = Walk { context: &context, tar: tar::Builder::new(&mut output), seen: HashMap::new() };
            walk.add(&a, b"a", &metadata)?;
            walk.add(&b, b"b", &metadata)?;
            walk.tar.into_inner()?.flush_rest()
        });
        walked.await.unwrap().unwrap();
        let bytes = receiver.recv().await.unwrap().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let entries: Vec<_> = archive.entries().unwrap().collect::<io::Result<_>>().unwrap();
        assert_eq!(entries.len(), 1);
        let entry = entries.first().unwrap();
        assert!(entry.header().entry_type().is_file() && entry.path_bytes() == b"b".as_slice());
    }
}
