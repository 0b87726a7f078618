//! A log such as one writes in an afternoon: one file, frame after frame.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use runtide_conformance::wal::{Audit, Cut, Entries, Entry, LogHarness, OpenLog, Salvaged};
use runtide_core::{
    Error, ErrorKind, Result,
    wal::{
        OnCorruption, ReadFrom, Retention, WalOptions,
        fs::{Disk, File},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainBug {
    None,
    TruncatesThenRewrites,
    TrustsLength,
    GluesToTheTornTail,
}

/// Size in bytes of a frame's head: length (3 bytes), number of frames of the batch that follow (1), sequence number (8), the
/// first bytes of a hash (8). The payload follows.
const FRAME: usize = 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain(pub(crate) PlainBug);

fn error(kind: ErrorKind, said: &dyn ToString) -> Error {
    Error::new(kind, "plain", said.to_string())
}

fn refused(refused: std::io::Error) -> Error {
    let kind = match refused.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::WouldBlock => ErrorKind::Conflict,
        std::io::ErrorKind::StorageFull => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    };
    error(kind, &refused).with_source(refused)
}

fn frame(more: u8, seq: u64, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let head = [&len[..3], &[more], &seq.to_le_bytes()].concat();
    let hash = blake3::hash(&[&head, payload].concat());
    [&head, &hash.as_bytes()[..8], payload].concat()
}

/// The result of a scan of the file: whole batches, and their end.
struct Scan {
    entries: Vec<Entry>,
    end: u64,
    size: u64,
}

impl Plain {
    fn scan(self, file: &dyn File) -> Result<Scan> {
        let size = file.size().map_err(refused)?;
        let (mut entries, mut batch, mut at, mut end) = (Vec::new(), Vec::new(), 0, 0);
        let mut head = [0; FRAME];
        while file.read_at(&mut head, at).map_err(refused)? == FRAME {
            let len = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
            let body = at + FRAME as u64;
            if self.0 != PlainBug::TrustsLength && len as u64 > size - body {
                break;
            }
            let mut payload = vec![0; len];
            let read = file.read_at(&mut payload, body).map_err(refused)?;
            let (more, seq) = (head[3], u64::from_le_bytes(head[4..12].try_into().unwrap()));
            if read < len || frame(more, seq, &payload)[..FRAME] != head {
                break;
            }
            at = body + len as u64;
            batch.push(Entry { seq, bytes: payload, lost: false });
            if more == 0 {
                entries.append(&mut batch);
                end = at;
            }
        }
        Ok(Scan { entries, end, size })
    }
}

/// The entries of a scan, from some record on.
fn entries_from(scan: Scan, from: ReadFrom) -> Result<Entries> {
    let first = scan.entries.first().map_or(1, |entry| entry.seq);
    let next = first + scan.entries.len() as u64;
    let seq = match from {
        ReadFrom::Seq(seq) => seq.0,
        ReadFrom::End => next,
        _ => first,
    };
    if seq < first {
        return Err(error(ErrorKind::Expired, &"it is gone"));
    }
    if seq > next {
        return Err(error(ErrorKind::InvalidInput, &"there is no such record yet"));
    }
    Ok(Box::new(scan.entries.into_iter().filter(move |entry| entry.seq >= seq).map(Ok)))
}

fn disk_of(options: &WalOptions) -> Arc<dyn Disk> {
    options.disk.clone().unwrap()
}

fn path(dir: &Path) -> PathBuf {
    dir.join("plain")
}

impl LogHarness for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn open(&self, dir: &Path, options: WalOptions) -> Result<Box<dyn OpenLog>> {
        let disk = disk_of(&options);
        disk.create_dir(dir).map_err(refused)?;
        let lock = disk.lock(&dir.join("lock")).map_err(refused)?;
        let file = match disk.open(&path(dir)) {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => disk.create(&path(dir)),
            file => file,
        };
        let file = file.map_err(refused)?;
        let scan = self.scan(&*file)?;
        let mut cut = None;
        let named = || {
            disk.sync_dir(dir)?;
            disk.sync_dir(dir.parent().unwrap())
        };
        if scan.size > scan.end && self.0 != PlainBug::GluesToTheTornTail {
            cut = set_aside(&*disk, dir, &*file, scan.end, scan.size).map_err(refused)?;
            file.truncate(scan.end).map_err(refused)?;
        }
        // Bytes that a failed sync left in memory are written again.
        let mut all = vec![0; usize::try_from(scan.end).unwrap()];
        file.read_at(&mut all, 0).map_err(refused)?;
        file.write_at(&all, 0).and_then(|()| file.sync()).map_err(refused)?;
        named().map_err(refused)?;
        let end = if self.0 == PlainBug::GluesToTheTornTail { scan.size } else { scan.end };
        let first = scan.entries.first().map_or(1, |entry| entry.seq);
        let next = first + scan.entries.len() as u64;
        let state = Mutex::new(State { file, end, next, failed: None, lock: Some(lock) });
        Ok(Box::new(Open { plain: *self, disk, dir: dir.to_owned(), cut, state }))
    }

    fn reader(&self, dir: &Path, from: ReadFrom, options: WalOptions) -> Result<Entries> {
        let file = disk_of(&options).open(&path(dir)).map_err(refused)?;
        entries_from(self.scan(&*file)?, from)
    }

    fn verify(&self, dir: &Path, anchor: Option<&str>, options: &WalOptions) -> Result<Audit> {
        let file = disk_of(options).open(&path(dir)).map_err(refused)?;
        let scan = self.scan(&*file)?;
        let last = scan.entries.last().map_or(0, |entry| entry.seq);
        let anchored = anchor.is_some_and(|anchor| anchor.parse::<u64>().unwrap() <= last);
        let torn = (scan.size > scan.end).then(|| format!("from byte {}", scan.end));
        Ok(Audit { records: scan.entries.len() as u64, anchored, corruption: None, torn })
    }

    fn salvage(&self, dir: &Path, out: &Path, options: &WalOptions) -> Result<Salvaged> {
        let entries: Vec<_> = self.reader(dir, ReadFrom::Start, options.clone())?.collect::<Result<_>>()?;
        let log = self.open(out, options.clone().with_on_corruption(OnCorruption::Continue))?;
        for entry in &entries {
            log.append(&entry.bytes)?;
        }
        Ok(Salvaged { recovered: entries.len() as u64, lost: 0 })
    }

    fn dump(&self, dir: &Path, out: &mut dyn std::io::Write, options: &WalOptions) -> Result<()> {
        for entry in self.reader(dir, ReadFrom::Start, options.clone())? {
            writeln!(out, "{:?}", entry?).map_err(refused)?;
        }
        Ok(())
    }
}

/// Copies the torn tail, unless it is all zeros.
fn set_aside(disk: &dyn Disk, dir: &Path, file: &dyn File, from: u64, to: u64) -> std::io::Result<Option<Cut>> {
    let mut torn = vec![0; usize::try_from(to - from).unwrap()];
    file.read_at(&mut torn, from)?;
    let Some(last) = torn.iter().rposition(|byte| *byte != 0) else { return Ok(None) };
    let copy = dir.join(format!("torn-{from}-{to}"));
    let aside = disk.create(&copy)?;
    aside.write_at(&torn[..=last], 0)?;
    aside.sync()?;
    disk.sync_dir(dir)?;
    Ok(Some(Cut { file: path(dir), bytes: from..=from + last as u64, copy }))
}

struct Open {
    plain: Plain,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cut: Option<Cut>,
    state: Mutex<State>,
}

struct State {
    file: Box<dyn File>,
    end: u64,
    next: u64,
    failed: Option<(ErrorKind, String)>,
    lock: Option<Box<dyn File>>,
}

impl State {
    fn usable(&self) -> Result<()> {
        match &self.failed {
            Some((kind, said)) => Err(error(*kind, &said)),
            None if self.lock.is_none() => Err(error(ErrorKind::Cancelled, &"it is closed")),
            None => Ok(()),
        }
    }

    fn or_fail<T>(&mut self, done: std::io::Result<T>) -> Result<T> {
        done.map_err(|failure| {
            let failure = refused(failure);
            self.failed = Some((failure.kind(), failure.message().to_owned()));
            failure
        })
    }
}

impl OpenLog for Open {
    fn append(&self, payload: &[u8]) -> Result<u64> {
        Ok(*self.append_batch(&[payload])?.end())
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<RangeInclusive<u64>> {
        let mut state = self.state.lock().unwrap();
        state.usable()?;
        let mut bytes = Vec::new();
        for ((more, seq), payload) in (0..payloads.len()).rev().zip(state.next..).zip(payloads) {
            bytes.extend(frame(u8::try_from(more).unwrap(), seq, payload));
        }
        let done = state.file.write_at(&bytes, state.end).and_then(|()| state.file.sync());
        state.or_fail(done)?;
        let first = state.next;
        state.next += payloads.len() as u64;
        state.end += bytes.len() as u64;
        Ok(first..=state.next - 1)
    }

    fn sync(&self) -> Result<()> {
        self.state.lock().unwrap().usable()
    }

    fn reader(&self, from: ReadFrom) -> Result<Entries> {
        let state = self.state.lock().unwrap();
        let mut scan = self.plain.scan(&*state.file)?;
        scan.entries.retain(|entry| entry.seq < state.next);
        entries_from(scan, from)
    }

    fn tail(&self, n: usize) -> Result<Vec<Entry>> {
        let mut all: Vec<_> = self.reader(ReadFrom::Start)?.collect::<Result<_>>()?;
        Ok(all.split_off(all.len().saturating_sub(n)))
    }

    fn anchor(&self) -> String {
        (self.state.lock().unwrap().next - 1).to_string()
    }

    fn retain(&self, policy: Retention) -> Result<u64> {
        let mut state = self.state.lock().unwrap();
        state.usable()?;
        let scan = self.plain.scan(&*state.file)?;
        let first = scan.entries.first().map_or(1, |entry| entry.seq);
        let limited = policy.max_bytes.is_some_and(|most| most < state.end)
            || policy.max_age.is_some_and(|age| age.is_zero())
            || (policy.max_bytes.is_none() && policy.max_age.is_none());
        let keep = policy.keep_from.map_or(if limited { state.next - 1 } else { first }, |seq| seq.0);
        if !limited
            || keep <= first
            || (policy.keep_from.is_none() && policy.max_bytes.is_none() && policy.max_age.is_none())
        {
            return Ok(first);
        }
        let kept = scan.entries.iter().filter(|entry| entry.seq >= keep);
        let bytes: Vec<u8> = kept.flat_map(|entry| frame(0, entry.seq, &entry.bytes)).collect();
        let rewrite = || -> std::io::Result<Option<Box<dyn File>>> {
            if self.plain.0 == PlainBug::TruncatesThenRewrites {
                state.file.truncate(0)?;
                state.file.write_at(&bytes, 0)?;
                state.file.sync()?;
                return Ok(None);
            }
            let unfinished = self.dir.join("plain.tmp");
            let file = self.disk.create(&unfinished)?;
            file.write_at(&bytes, 0)?;
            file.sync()?;
            self.disk.rename(&unfinished, &path(&self.dir))?;
            self.disk.sync_dir(&self.dir)?;
            Ok(Some(file))
        };
        let done = rewrite();
        if let Some(file) = state.or_fail(done)? {
            state.file = file;
        }
        state.end = bytes.len() as u64;
        Ok(keep)
    }

    fn cut(&self) -> Option<Cut> {
        self.cut.clone()
    }

    fn close(&self) -> Result<()> {
        self.state.lock().unwrap().lock = None;
        Ok(())
    }
}
