//! Where a manager's journal lies, and `journalctl` as a child that reads it.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
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

/// What is taken from the child at once.
const CHUNK: usize = 64 * 1024;

/// What is kept of its complaints.
const COMPLAINT: usize = 4 * 1024;

/// How long a child that closed its output may take to end.
const END: Duration = Duration::from_secs(5);

/// The output of a unit, in the journal of its manager.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    client: Client,
    operation: &'static str,
    unit: String,
    pub(super) root: PathBuf,
    /// What an entry must have; one field several times: any of these.
    matches: Vec<String>,
}

/// From where on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct From<'a> {
    /// This entry, which comes first if it is still there.
    pub(super) cursor: Option<&'a str>,
    /// Microseconds since 1970, both inclusive. Together with a cursor or `last`, `since` is not for journalctl to know.
    pub(super) since: Option<u64>,
    pub(super) until: Option<u64>,
    /// Only so many, the last ones.
    pub(super) last: Option<u32>,
    pub(super) order: Order,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// To the end of what is there.
    #[default]
    Forward,
    /// And then what comes.
    Follow,
    /// The last one first.
    Backward,
}

impl Journal {
    /// Finds it. `invocation`: only the output of this run, which is an id.
    ///
    /// # Errors
    /// `Unsupported` if its files cannot be seen from here, `Unavailable` if it has none, `PermissionDenied`.
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
        // What the kernel's audit says of the unit's processes is not their output.
        matches.extend(["stdout", "syslog", "journal"].map(|transport| format!("_TRANSPORT={transport}")));
        if root != Path::new("/") {
            // Below another root all machines' journals are read.
            matches.push(format!("_MACHINE_ID={machine}"));
        }
        check_access(&root, &machine, owner).await.map_err(|(kind, why)| {
            site.error(kind, format!("the journal cannot be read: {why}")).with_context("instance", unit)
        })?;
        Ok(Self { client: client.clone(), operation, unit: unit.to_owned(), root, matches })
    }

    fn arguments(&self, from: &From<'_>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["--quiet", "--no-pager", "--all", "--output=export"].map(Into::into).into();
        // The cursor and the times come always.
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
            // Following begins ten entries back by default.
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

    /// Starts to read. Whoever drops it ends the child.
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
        })
    }

    /// The last entry of the unit, whenever it was.
    pub(super) async fn last(&self) -> Result<Option<Entry>> {
        self.read(&From { last: Some(1), ..From::default() })?.entry().await
    }

    /// What comes before there is anything to read has a deadline.
    pub(super) async fn within<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = self.client.config().deadline;
        match tokio::time::timeout(deadline, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(self.client.site(self.operation).timeout(deadline).with_context("instance", &self.unit)),
        }
    }

    pub(super) async fn flush(&self) -> Result<()> {
        super::flush::flush(&self.client, self.operation, &self.root).await
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
}

impl Journalctl {
    /// The next entry; `None`: it came to the end, and all is well.
    ///
    /// # Errors
    /// It broke off, or complained: then what it printed is not all that there is.
    ///
    /// # Cancel safety
    /// Nothing is lost.
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

/// There is output, and no way to it.
pub(super) fn unreadable(client: &Client, operation: &'static str, unit: &str, reason: impl Into<String>) -> Error {
    let reason = reason.into();
    client
        .site(operation)
        .error(ErrorKind::Unsupported, format!("its output cannot be read: {reason}"))
        .with_context("instance", unit)
        .with_context("feature", "logs")
        .with_context("reason", reason)
}

/// As `journalctl` takes a time. It knows no year after 9999.
fn stamp(microseconds: u64) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    (seconds < YEAR_10000).then(|| format!("@{seconds}.{rest:06}"))
}

/// 128 bits in hexadecimal, as machines, boots and lives are called.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// True if the files can be opened. `journalctl` says nothing of those that it may not, as long as there is one that it may.
async fn check_access(root: &Path, machine: &str, user: Option<u32>) -> std::result::Result<(), (ErrorKind, String)> {
    let folders = ["var/log/journal", "run/log/journal"].map(|folder| root.join(folder).join(machine));
    let own = user.map(|user| format!("user-{user}"));
    let looked = tokio::task::spawn_blocking(move || opened(&folders, own.as_deref())).await;
    match looked {
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

/// Finds out if a file of the system's journal, or of a user's own, can be opened, or which cannot; `None`: there is none. While a
/// file is changed for another there are only old ones, which have more in their names.
fn opened(folders: &[PathBuf], own: Option<&str>) -> Option<std::result::Result<(), PathBuf>> {
    // A volatile journal, and one without users' own files, has everything in the system's.
    let is_meant = |name: &str| {
        let stem = name.split(['.', '@']).next();
        stem == Some("system") || (own.is_some() && stem == own)
    };
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let mut denied = None;
    for folder in folders {
        match std::fs::read_dir(folder) {
            Ok(files) => {
                for file in files.flatten().filter(|file| file.file_name().to_str().is_some_and(is_meant)) {
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
    fn a_journal_is_there_also_while_its_file_is_changed_for_another() {
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

    #[test]
    fn times_are_written_as_journalctl_reads_them() {
        assert_eq!(stamp(1_795_299_829_009_341).as_deref(), Some("@1795299829.009341"));
        assert_eq!(stamp(u64::MAX), None);
    }
}
