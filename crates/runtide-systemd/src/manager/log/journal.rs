//! The location of a manager's journal, and `journalctl` as a child that reads it.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::BufMut as _;
use runtide_core::{Error, ErrorKind, Incarnation, Result};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::export::{Decoder, Entry, LONGEST, Malformed};
use crate::{
    client::{BUS, BUS_PATH, Client, SYSTEMD},
    config::Scope,
};

const PROGRAM: &str = "journalctl";

/// Size of a read from the child, in bytes.
const CHUNK: usize = 64 * 1024;

/// Limit of the kept stderr, in bytes.
const COMPLAINT: usize = 4 * 1024;

/// Size of the shortest header of a journal's file, in bytes (`HEADER_SIZE_MIN` of journald).
const SHORTEST_HEADER: usize = 208;

/// Time for the exit of a child that closed its output, and for the header of a new file.
const END: Duration = Duration::from_secs(5);

/// The output of a unit, in the journal of its manager.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    client: Client,
    operation: &'static str,
    unit: String,
    pub(super) root: PathBuf,
    /// Matches that an entry must satisfy; of several with the same field, one.
    matches: Vec<String>,
    /// Time of the last flush, in microseconds since 1970: a read returns the entries before it. At first beyond all times.
    flushed: Arc<AtomicU64>,
}

/// The range and order of a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct From<'a> {
    /// The first entry to return, if it is still there.
    pub(super) cursor: Option<&'a str>,
    /// Microseconds since 1970, both inclusive. With a cursor or `last`, `since` is not passed to journalctl.
    pub(super) since: Option<u64>,
    pub(super) until: Option<u64>,
    /// Number of entries, from the end.
    pub(super) last: Option<u32>,
    pub(super) order: Order,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// From the first entry to the end of the journal.
    #[default]
    Forward,
    /// The same, then new entries.
    Follow,
    /// From the last entry to the first.
    Backward,
}

impl Journal {
    /// Finds the journal. `invocation`: only the output of this run, which is an id.
    ///
    /// # Errors
    /// `Unsupported` if its files are not visible from here, `Unavailable` if it has none, `PermissionDenied`.
    pub(super) async fn find(
        client: &Client,
        operation: &'static str,
        unit: &str,
        invocation: Option<&Incarnation>,
    ) -> Result<Self> {
        let Some(root) = client.config().root.clone() else {
            let reason = "the manager's file system is not seen from here, and its journal is in files";
            return Err(unreadable(client, operation, unit, reason));
        };
        let site = client.site(operation);
        let read = tokio::fs::read_to_string(root.join("etc/machine-id")).await;
        let machine = read.ok().map(|text| text.trim().to_owned()).filter(|id| is_id(id)).ok_or_else(|| {
            site.error(
                ErrorKind::Unavailable,
                "the machine has no id yet (etc/machine-id), so that its journal has no name",
            )
        })?;
        let mut matches = Vec::new();
        let mut owner = None;
        match client.config().scope {
            Scope::System => matches.push(format!("_SYSTEMD_UNIT={unit}")),
            Scope::User => {
                let body = &(SYSTEMD,);
                let call = (BUS_PATH, BUS, "GetConnectionUnixUser");
                let answer = client.call_at(operation, BUS, call, body, client.config().deadline).await?;
                let user: u32 = client.read(operation, &answer)?;
                matches.push(format!("_SYSTEMD_USER_UNIT={unit}"));
                matches.push(format!("_UID={user}"));
                owner = Some(user);
            }
        }
        if let Some(invocation) = invocation {
            matches.push(format!("_SYSTEMD_INVOCATION_ID={invocation}"));
        }
        // Messages of the kernel's audit about the unit's processes are not their output.
        matches.extend(["stdout", "syslog", "journal"].map(|transport| format!("_TRANSPORT={transport}")));
        if root != Path::new("/") {
            // With another root, the journals of all machines in it are read.
            matches.push(format!("_MACHINE_ID={machine}"));
        }
        check_access(&root, &machine, owner).await.map_err(|(kind, why)| {
            site.error(kind, format!("the journal cannot be read: {why}")).with_context("instance", unit)
        })?;
        let flushed = Arc::new(AtomicU64::new(u64::MAX));
        Ok(Self { client: client.clone(), operation, unit: unit.to_owned(), root, matches, flushed })
    }

    fn arguments(&self, from: &From<'_>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["--quiet", "--no-pager", "--all", "--output=export"].map(Into::into).into();
        // The cursor and the times are always included.
        arguments.push("--output-fields=MESSAGE,_LINE_BREAK,_SYSTEMD_INVOCATION_ID".into());
        if self.root != Path::new("/") {
            let mut root = OsString::from("--root=");
            root.push(&self.root);
            arguments.push(root);
        }
        let mut push = |argument: String| arguments.push(argument.into());
        match from.order {
            Order::Forward => {}
            Order::Follow => push("--follow".to_owned()),
            Order::Backward => push("--reverse".to_owned()),
        }
        match from.last {
            Some(last) => push(format!("--lines={last}")),
            // By default `--follow` begins ten entries back.
            None if from.order == Order::Follow => push("--lines=all".to_owned()),
            None => {}
        }
        if let Some(cursor) = from.cursor {
            push(format!("--cursor={cursor}"));
        }
        if let Some(since) = from.since.and_then(stamp) {
            push(format!("--since={since}"));
        }
        if let Some(until) = from.until.and_then(stamp) {
            push(format!("--until={until}"));
        }
        self.matches.iter().for_each(|one| push(one.clone()));
        arguments
    }

    /// Starts to read. Dropping the returned value ends the child.
    pub(super) fn read(&self, from: &From<'_>) -> Result<Journalctl> {
        let spawned = Command::new(PROGRAM)
            .args(self.arguments(from))
            .env("LC_ALL", "C")
            .env("SYSTEMD_LOG_TARGET", "console")
            .env("SYSTEMD_LOG_LEVEL", "warning")
            .env("SYSTEMD_COLORS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let reason = "there is no journalctl here to read it with";
                unreadable(&self.client, self.operation, &self.unit, reason)
            } else {
                self.error(ErrorKind::Unexpected, "journalctl cannot be started").with_source(error)
            }
        })?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(self.error(ErrorKind::Unexpected, "journalctl was started without pipes"));
        };
        Ok(Journalctl {
            journal: self.clone(),
            child,
            out: Some(out),
            err: Some(err),
            complaint: Vec::new(),
            decoder: Decoder::default(),
            flushed: self.flushed.load(Ordering::Acquire),
        })
    }

    /// Returns the last entry of the unit, of any time.
    pub(super) async fn last(&self) -> Result<Option<Entry>> {
        self.read(&From { last: Some(1), ..From::default() })?.entry().await
    }

    /// Applies the deadline of a call to the steps before the first line.
    pub(super) async fn within<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = self.client.config().deadline;
        match tokio::time::timeout(deadline, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(self.client.site(self.operation).timeout(deadline).with_context("instance", &self.unit)),
        }
    }

    pub(super) async fn flush(&self) -> Result<()> {
        super::flush::flush(&self.client, self.operation, &self.root).await?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        self.flushed.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Release);
        Ok(())
    }

    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.client.site(self.operation).error(kind, message).with_context("instance", &self.unit)
    }
}

/// A running `journalctl`.
#[derive(Debug)]
pub(super) struct Journalctl {
    journal: Journal,
    child: Child,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    complaint: Vec<u8>,
    decoder: Decoder,
    /// Time of the flush before it began.
    flushed: u64,
}

impl Journalctl {
    /// Returns the next entry; `None`: the child read to the end and exited with success.
    ///
    /// # Errors
    /// The child broke off, or wrote to stderr: then its output is incomplete.
    ///
    /// # Cancel safety
    /// No entry is lost.
    pub(super) async fn entry(&mut self) -> Result<Option<Entry>> {
        let mut scrap = [0; 512];
        loop {
            if let Some(entry) = self.decoder.next().map_err(|why| self.malformed(&why))? {
                return Ok(Some(entry));
            }
            match (&mut self.out, &mut self.err) {
                (None, None) => return self.end().await.map(|()| None),
                (out, err) => {
                    let buffer = self.decoder.buffer();
                    buffer.reserve(CHUNK);
                    let mut room = buffer.limit(CHUNK);
                    tokio::select! {
                        read = async { match out { Some(out) => out.read_buf(&mut room).await, None => std::future::pending().await } } => {
                            if read.map_err(|error| self.broken(error))? == 0 {
                                self.out = None;
                            }
                        }
                        read = async { match err { Some(err) => err.read(&mut scrap).await, None => std::future::pending().await } } => {
                            let read = read.map_err(|error| self.broken(error))?;
                            if read == 0 {
                                self.err = None;
                            }
                            let room = COMPLAINT.saturating_sub(self.complaint.len());
                            self.complaint.extend_from_slice(scrap.get(..read.min(room)).unwrap_or_default());
                        }
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn kill(&mut self) {
        let _ = self.child.start_kill();
    }

    async fn end(&mut self) -> Result<()> {
        let status = match tokio::time::timeout(END, self.child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => {
                return Err(self.journal.error(ErrorKind::Timeout, "journalctl closed its output and did not end"));
            }
        };
        let complaint = String::from_utf8_lossy(&self.complaint);
        let complaint = complaint.trim();
        if !status.success() {
            let message = format!("journalctl broke off ({status}): {complaint}");
            return Err(self.journal.error(ErrorKind::Unavailable, message));
        }
        let mut complaints = Vec::new();
        for line in complaint.lines() {
            let was_empty = match truncated_file(line) {
                Some(file) => begins_after(Path::new(file), self.flushed).await,
                None => false,
            };
            if !was_empty {
                complaints.push(line);
            }
        }
        let complaint = complaints.join("\n");
        if !complaint.is_empty() {
            let message = format!("journalctl did not read everything: {complaint}");
            return Err(self.journal.error(ErrorKind::Corrupt, message));
        }
        self.decoder.finish().map_err(|why| self.malformed(&why))
    }

    fn broken(&self, error: io::Error) -> Error {
        self.journal.error(ErrorKind::Unexpected, "what journalctl prints cannot be read").with_source(error)
    }

    fn malformed(&self, why: &Malformed) -> Error {
        let message = match why {
            Malformed::TooLong => format!("an entry of the journal is longer than {LONGEST} bytes"),
            Malformed::Field(text) => format!("journalctl printed what is no field of an entry: {text:?}"),
            Malformed::Truncated => "journalctl ended inside an entry".to_owned(),
        };
        self.journal.error(ErrorKind::Protocol, message)
    }
}

/// The error of output that exists and cannot be read.
pub(super) fn unreadable(client: &Client, operation: &'static str, unit: &str, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    client
        .site(operation)
        .error(ErrorKind::Unsupported, format!("its output cannot be read: {reason}"))
        .with_context("instance", unit)
        .with_context("feature", "logs")
        .with_context("reason", reason)
}

/// Returns the file that journalctl skipped as truncated.
///
/// At a rotation, journald creates a file and writes its header a moment later; a file that is read in between is truncated to
/// journalctl. It is also where it is corrupt, and then its entries are missing.
fn truncated_file(complaint: &str) -> Option<&str> {
    let file = complaint.strip_prefix("Journal file ")?.strip_suffix(" is truncated, ignoring file.")?;
    // An archived file is complete, so that its truncation is corruption.
    let is_archived = Path::new(file).file_name()?.to_str()?.contains('@');
    (!is_archived).then_some(file)
}

/// Waits until the file has a header; true if it then has no entry from before `flushed`, so that the read missed none.
async fn begins_after(file: &Path, flushed: u64) -> bool {
    let first_entry = async {
        loop {
            match header(file) {
                Some(header) => break first_entry(&header),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    // 0: it has no entry.
    tokio::time::timeout(END, first_entry).await.is_ok_and(|at| at == 0 || at >= flushed)
}

/// The shortest header that a file can have; `None` while it has none.
fn header(file: &Path) -> Option<[u8; SHORTEST_HEADER]> {
    let mut header = [0; SHORTEST_HEADER];
    io::Read::read_exact(&mut std::fs::File::open(file).ok()?, &mut header).ok()?;
    Some(header)
}

/// Time of the file's first entry, in microseconds since 1970: `head_entry_realtime` of journald, 24 bytes before that end.
fn first_entry(header: &[u8; SHORTEST_HEADER]) -> u64 {
    let before = header.split_last_chunk::<16>().and_then(|(before, _)| before.split_last_chunk());
    before.map_or(u64::MAX, |(_, at)| u64::from_le_bytes(*at))
}

/// Formats a time as `journalctl` accepts it, which has no year after 9999.
fn stamp(microseconds: u64) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    (seconds < YEAR_10000).then(|| format!("@{seconds}.{rest:06}"))
}

/// True if the text is 128 bits in hexadecimal, the format of the ids of machines, boots and runs.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Checks that the files can be opened. `journalctl` silently skips unreadable ones as long as one is readable.
async fn check_access(root: &Path, machine: &str, user: Option<u32>) -> std::result::Result<(), (ErrorKind, String)> {
    let folders = ["var/log/journal", "run/log/journal"].map(|folder| root.join(folder).join(machine));
    let own = user.map(|user| format!("user-{user}"));
    let access = tokio::task::spawn_blocking(move || opened(&folders, own.as_deref())).await;
    match access {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(path))) => {
            let why = format!("this user may not read {} (the groups systemd-journal and adm may)", path.display());
            Err((ErrorKind::PermissionDenied, why))
        }
        Ok(None) => {
            Err((ErrorKind::Unavailable, "it has no files (is journald up, and does it store anything?)".to_owned()))
        }
        Err(error) => Err((ErrorKind::Unexpected, error.to_string())),
    }
}

/// Checks that a file of the system's journal, or of a user's own, can be opened, or returns the one that cannot;
/// `None`: there is none. During a rotation there are only archived files, which have longer names.
fn opened(folders: &[PathBuf], own: Option<&str>) -> Option<std::result::Result<(), PathBuf>> {
    // A volatile journal, and one without the users' own files, has everything in the system's.
    let is_candidate = |name: &str| {
        let stem = name.split(['.', '@']).next();
        stem == Some("system") || (own.is_some() && stem == own)
    };
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let mut denied = None;
    for folder in folders {
        match std::fs::read_dir(folder) {
            Ok(files) => {
                for file in files.flatten().filter(|file| file.file_name().to_str().is_some_and(is_candidate)) {
                    match std::fs::File::open(file.path()) {
                        Ok(_) => return Some(Ok(())),
                        Err(error) if is_denied(&error) => denied = Some(file.path()),
                        Err(_) => {}
                    }
                }
            }
            Err(error) if is_denied(&error) => denied = Some(folder.clone()),
            Err(_) => {}
        }
    }
    denied.map(Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_found_during_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned(), folder.path().join("none")];
        let put = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        put("systemd.txt");
        put("user-1000.journal");
        assert_eq!(opened(&folders, None), None);
        assert_eq!(opened(&folders, Some("user-100")), None);
        assert_eq!(opened(&folders, Some("user-1000")), Some(Ok(())));
        put("system@0123-01-02.journal");
        assert_eq!(opened(&folders, None), Some(Ok(())));
    }

    #[tokio::test]
    async fn a_file_that_is_being_created_is_not_corrupt() {
        let truncated = |file: &str| format!("Journal file {file} is truncated, ignoring file.");
        let new = truncated("/var/log/journal/1/system.journal");
        assert_eq!(truncated_file(&new), Some("/var/log/journal/1/system.journal"));
        assert_eq!(truncated_file(&truncated("/var/log/journal/1/system@0-1.journal")), None);
        assert_eq!(truncated_file("Journal file /var/log/journal/1/system.journal corrupted, ignoring file."), None);

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("system.journal");
        let write = |length: usize, first_entry: u64| {
            let mut bytes = vec![0xff; 184];
            bytes.extend(first_entry.to_le_bytes());
            bytes.resize(length, 0xff);
            std::fs::write(&file, bytes).unwrap();
        };
        for (length, first_entry, expected) in [(208, 0, true), (300, 10, true), (208, 11, true), (8 << 20, 9, false)] {
            std::fs::write(&file, [0; 207]).unwrap();
            let mut waiting = Box::pin(begins_after(&file, 10));
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("it has no header yet"),
                () = tokio::task::yield_now() => write(length, first_entry),
            }
            assert_eq!(waiting.await, expected, "{length} bytes, first entry at {first_entry}");
        }
        std::fs::write(&file, []).unwrap();
        tokio::time::pause();
        assert!(!begins_after(&file, 10).await, "it stays empty");
    }

    #[test]
    fn times_are_formatted_for_journalctl() {
        assert_eq!(stamp(1_795_299_829_009_341).as_deref(), Some("@1795299829.009341"));
        assert_eq!(stamp(u64::MAX), None);
    }
}
