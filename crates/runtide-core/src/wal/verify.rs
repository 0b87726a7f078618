//! Verifying: every checksum and every hash, segments side by side.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    anchor::Anchor,
    chain::Chain,
    corruption::{Corruption, disk_error},
    format::Hash,
    fs::Disk,
    layout::{Layout, segment_path},
    options::{WalKey, WalOptions},
    published::lock,
    record::Seq,
    scan::{end_of_bytes, find_commit},
    segment::{DATA, Segment},
    sync::Mutex,
    walk::Walk,
};
use crate::error::{Error, ErrorKind, Result};

const VERIFY: &str = "wal.verify";

/// Most segments that are verified at the same time: each takes 1 MiB of memory.
const WORKERS: usize = 8;

/// The result of verifying a whole log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verified {
    /// Number of records up to the first corruption.
    pub records: u64,
    /// Number of commits up to the first corruption.
    pub commits: u64,
    /// Number of segments up to the first corruption, the corrupt one included.
    pub segments: u64,
    /// Number of the first record that is kept, or of the first to be appended if there is none.
    pub first: Seq,
    /// The end of the chain, up to the first corruption; `None` if not even one header is sound.
    pub head: Option<Anchor>,
    /// True if the given anchor is in the chain. False without an anchor: then nothing shows whether a tail was cut off, or an
    /// unkeyed log rewritten as a whole.
    pub anchored: bool,
    /// The first range whose bytes are not those that were written there.
    pub corruption: Option<Corruption>,
    /// An unfinished tail, which nothing proves to have been durable: a crash tore it and the next opening will cut it, or it is
    /// just being written. It is no corruption.
    pub torn: Option<Corruption>,
}

/// Verifies a log: every header, the checksum of every record, the hash of every commit, and the chain through all segments.
///
/// Corruption is a finding in the result; an `Err` means that the verification itself failed. It takes no lock and works also on
/// a log that is being written. It reads the files once, on as many threads as there are processors, at most 8, with 1 MiB of
/// memory for each.
///
/// The chain attests the bytes of its author: without a key, that may be any process that can write the files. Only an [`Anchor`]
/// that was kept elsewhere reveals that a tail was cut off, or that a log without a key was rewritten as a whole.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if there is no log; [`Unauthenticated`](ErrorKind::Unauthenticated) if the key is missing
/// or wrong; [`InvalidInput`](ErrorKind::InvalidInput) if a key is given and the log has none;
/// [`Unsupported`](ErrorKind::Unsupported) if the log is of a later version.
///
/// ```
/// use runtide_core::wal::{RecordKind, Wal, WalOptions, verify};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let wal = Wal::open(dir.path(), WalOptions::default())?;
/// wal.append_blocking(RecordKind(1), b"hello")?;
/// let anchor = wal.anchor(); // Keep it elsewhere.
/// let verified = verify(dir.path(), Some(&anchor), None)?;
/// assert!(verified.corruption.is_none() && verified.anchored);
/// assert_eq!(verified.records, 1);
/// # Ok::<(), runtide_core::Error>(())
/// ```
pub fn verify(dir: &Path, anchor: Option<&Anchor>, key: Option<&WalKey>) -> Result<Verified> {
    verify_with(dir, anchor, &WalOptions { key: key.cloned(), ..WalOptions::default() })
}

/// [`verify`] with the key and the disk of the options; the other options are not used.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(dir: &Path, anchor: Option<&Anchor>, options: &WalOptions) -> Result<Verified> {
    let disk = options.disk();
    let mut layout = Layout::read(&*disk, dir).map_err(|error| disk_error(VERIFY, dir, error))?;
    let orphaned = layout.leave_out_orphaned(&*disk, VERIFY)?;
    let Some((first, path)) = layout.segments.first() else {
        return Err(Error::new(ErrorKind::NotFound, VERIFY, "there is no log here").with_context("path", dir.display()));
    };
    let chain = match Segment::open(&*disk, *first, path, VERIFY) {
        Ok(segment) => Chain::of(&segment.header, options.key.as_ref(), VERIFY)?,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            return Ok(Verified {
                segments: 1,
                corruption: Some(Corruption::new(path, 0, DATA, None)),
                ..Verified::none(*first)
            });
        }
        Err(error) => return Err(error),
    };
    let verifier = Verifier { disk: &*disk, chain: &chain, anchor: anchor.filter(|anchor| anchor.log == chain.log) };
    let mut found = Verified::none(*first);
    if let Some(corruption) = layout.corruption.clone().or_else(|| layout.missing(dir)) {
        found.corruption = Some(corruption);
        return Ok(found);
    }
    let found = verifier.join(dir, found, verifier.all(&layout.segments)?)?;
    Ok(Verified { torn: found.torn.clone().or(orphaned), ..found })
}

impl Verified {
    fn none(first: u64) -> Self {
        Self {
            records: 0,
            commits: 0,
            segments: 0,
            first: Seq(first),
            head: None,
            anchored: false,
            corruption: None,
            torn: None,
        }
    }
}

struct Verifier<'a> {
    disk: &'a dyn Disk,
    chain: &'a Chain,
    /// An anchor of this log; one of another log is dropped before.
    anchor: Option<&'a Anchor>,
}

/// The findings in one segment by itself.
struct Report {
    path: PathBuf,
    /// Number of the first record, and hash of the commit before it, by its header; `None` if the header is corrupt.
    begins: Option<(u64, Hash)>,
    records: u64,
    commits: u64,
    /// Number of the record after the last, and hash of the last commit.
    ends: (u64, Hash),
    anchored: bool,
    corruption: Option<Corruption>,
    torn: Option<Corruption>,
    /// Range of offsets behind the last commit, up to the end of the space for commits.
    rest: (u64, u64),
    /// True if a footer confirms that this is the segment's end.
    sealed: bool,
}

impl Verifier<'_> {
    /// Verifies all segments; `None` for one that is gone, since retention may have dropped it in the meantime.
    fn all(&self, segments: &[(u64, PathBuf)]) -> Result<Vec<Option<Report>>> {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let turn = AtomicUsize::new(0);
        let reports = Mutex::new(Vec::new());
        let work = || {
            loop {
                let number = turn.fetch_add(1, Ordering::Relaxed);
                let Some((first, path)) = segments.get(number) else { break };
                let report = self.segment(*first, path, number + 1 == segments.len());
                lock(&reports).push((number, report));
            }
        };
        thread::scope(|scope| {
            for _ in 1..cores.min(WORKERS).min(segments.len()) {
                // A thread that cannot be started is not needed: this thread verifies all segments that are left.
                let _ = thread::Builder::new().name("runtide-wal-verify".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        let mut reports = reports.into_inner().unwrap_or_default();
        reports.sort_unstable_by_key(|(number, _)| *number);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    fn segment(&self, first: u64, path: &Path, is_last: bool) -> Result<Option<Report>> {
        let segment = match Segment::open(self.disk, first, path, VERIFY) {
            Ok(segment) => segment,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Some(Report::headless(path, first))),
            Err(error) => return Err(error),
        };
        let header = &segment.header;
        let foreign = header.log != self.chain.log
            || header.keyed != self.chain.key_check()
            || (first == 1 && header.prev != self.chain.genesis());
        if foreign {
            return Ok(Some(Report::headless(path, first)));
        }
        self.commits(&segment, is_last).map(Some).map_err(|error| disk_error(VERIFY, path, error))
    }

    fn commits(&self, segment: &Segment, is_last: bool) -> std::io::Result<Report> {
        let header = &segment.header;
        let is_anchor =
            |seq: u64, hash: &Hash| self.anchor.is_some_and(|anchor| anchor.seq.0 == seq && anchor.hash == *hash);
        let mut walk = Walk::new(segment, segment.file.size()?);
        let mut anchored = is_anchor(header.first.saturating_sub(1), &header.prev);
        let mut commits = 0;
        loop {
            while let Some(commit) = walk.step(Some(self.chain))? {
                commits += 1;
                anchored |= is_anchor(commit.last(), &commit.hash);
            }
            // The footer is read after the last commit, since both may just have been written.
            let footer = segment.footer()?;
            let (at, next, epoch) = (walk.at, walk.next, walk.epoch);
            let limit = footer.as_ref().map_or(walk.limit, |(start, _)| *start).max(at);
            let end = end_of_bytes(&mut walk.window, at, limit)?;
            let footer_claims_more = footer.as_ref().is_some_and(|(_, footer)| {
                footer.end > at && footer.last >= next && (!is_last || footer.synced >= footer.last)
            });
            let accept = |commit: &super::format::CommitHeader| {
                commit.first >= next
                    && commit.epoch >= epoch
                    && (footer_claims_more || !is_last || commit.synced >= next)
            };
            let later = find_commit(&mut walk.window, at, end, &header.log, accept)?;
            if later.is_some() || footer_claims_more {
                // A commit that was being written while it was read is whole by now.
                walk.window.forget();
                if let Some(commit) = walk.step(Some(self.chain))? {
                    commits += 1;
                    anchored |= is_anchor(commit.last(), &commit.hash);
                    continue;
                }
            }
            let corruption = match (&later, &footer) {
                (Some((behind, commit)), _) => Some(((*behind).max(at + 1), commit.first.saturating_sub(1))),
                (None, Some((_, footer))) if footer_claims_more => Some((footer.end, footer.last)),
                _ => None,
            };
            let corruption =
                corruption.map(|(behind, last)| Corruption::new(&segment.path, at, behind, Some((next, last))));
            let torn =
                (corruption.is_none() && is_last && end > at).then(|| Corruption::new(&segment.path, at, end, None));
            return Ok(Report {
                path: segment.path.clone(),
                begins: Some((header.first, header.prev)),
                records: next - header.first,
                commits,
                ends: (next, walk.hash),
                anchored,
                corruption,
                torn,
                rest: (at, limit),
                sealed: footer.is_some_and(|(_, footer)| footer.end == at && end == at),
            });
        }
    }

    /// Joins the segments' reports: each has to begin where the one before ends.
    fn join(&self, dir: &Path, mut found: Verified, reports: Vec<Option<Report>>) -> Result<Verified> {
        let mut before: Option<Report> = None;
        for report in reports {
            let Some(report) = report else {
                if before.is_none() {
                    // Retention dropped it after the listing.
                    continue;
                }
                return Err(Error::new(
                    ErrorKind::Expired,
                    VERIFY,
                    "retention dropped a segment that was being verified: verify again",
                ));
            };
            if let Some(before) = &before {
                found.corruption = gap(dir, before, &report);
                if found.corruption.is_some() {
                    break;
                }
            } else {
                found.first = Seq(report.begins.map_or(found.first.0, |(first, _)| first));
            }
            found.segments += 1;
            found.corruption.clone_from(&report.corruption);
            let Some(_) = report.begins else { break };
            found.records += report.records;
            found.commits += report.commits;
            found.anchored |= report.anchored;
            found.torn.clone_from(&report.torn);
            found.head = Some(Anchor::new(self.chain.log, report.ends.0.saturating_sub(1), report.ends.1));
            if found.corruption.is_some() {
                break;
            }
            before = Some(report);
        }
        Ok(found)
    }
}

impl Report {
    /// The report of a segment whose header cannot be trusted.
    fn headless(path: &Path, first: u64) -> Self {
        Self {
            path: path.to_owned(),
            begins: None,
            records: 0,
            commits: 0,
            ends: (first, [0; 32]),
            anchored: false,
            corruption: Some(Corruption::new(path, 0, DATA, None)),
            torn: None,
            rest: (0, 0),
            sealed: false,
        }
    }
}

/// The corruption between two neighbouring segments, if the second does not continue the first.
fn gap(dir: &Path, before: &Report, after: &Report) -> Option<Corruption> {
    let (next, hash) = before.ends;
    let (first, prev) = after.begins?;
    if first == next {
        // The header does not continue the chain: one of the two files was replaced.
        return (prev != hash).then(|| Corruption::new(&after.path, 0, DATA, None));
    }
    let missing = Some((next, first.saturating_sub(1)));
    Some(if before.sealed {
        Corruption::new(&segment_path(dir, next), 0, 0, missing)
    } else {
        Corruption::new(&before.path, before.rest.0, before.rest.1, missing)
    })
}
