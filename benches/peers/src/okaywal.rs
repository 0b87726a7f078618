//! The peer `okaywal`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::mpsc::{self, Sender},
};

use okaywal::{Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader, WriteAheadLog};
use runtide_benches::{
    is_trial,
    log::{RECORD, Records, Seen},
};

use crate::{Store, store::STEP};

/// Bytes for a million records and their frames.
const ROOM: u32 = 300 << 20;

/// A log of the crate's.
#[derive(Debug)]
pub struct OkayWal(WriteAheadLog);

/// Reads the existing records, as every opening does.
#[derive(Debug, Default)]
struct Reads {
    /// Callback for each record, with the records so far.
    progress: Option<(Sender<Seen>, Seen)>,
}

impl LogManager for Reads {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut record = [0; RECORD];
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            chunk.read_exact(&mut record)?;
            assert!(chunk.check_crc()?, "a corrupt record");
            if let Some((_, seen)) = &mut self.progress {
                seen.record(&record);
            }
        }
        if let Some((sender, seen)) = &self.progress {
            let _ = sender.send(*seen);
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

fn large(dir: &Path) -> Configuration {
    let room = if is_trial() { ROOM / 100 } else { ROOM };
    Configuration::default_for(dir).preallocate_bytes(room).checkpoint_after_bytes(u64::MAX)
}

impl Store for OkayWal {
    const NAME: &'static str = "okaywal";
    const NOTE: &'static str = "durable appends with its defaults: it drops what is older than 768 KiB, and so writes again and \
                                again into the same room. A million records are one file, reserved beforehand; reading them is \
                                what opening does, and there is no other way to the last hundred.";
    const SHARES_SYNCS: bool = true;
    const TAIL: bool = false;

    fn open(dir: &Path) -> Self {
        Self(Configuration::default_for(dir).open(LogVoid).expect("a log"))
    }

    fn open_large(dir: &Path) -> Self {
        Self(large(dir).open(Reads::default()).expect("a log"))
    }

    fn append(&self, record: &[u8]) {
        let mut entry = self.0.begin_entry().expect("an entry");
        entry.write_chunk(record).expect("an append");
        entry.commit().expect("a commit");
    }

    fn append_all(&self, records: &Records, count: usize) {
        let mut entry = self.0.begin_entry().expect("an entry");
        for record in records.take(count) {
            entry.write_chunk(record).expect("an append");
        }
        entry.commit().expect("a commit");
    }

    fn make(dir: &Path) {
        let (log, records) = (Self::open_large(dir), Records::default());
        let count = runtide_benches::log::million();
        for begin in (0..count).step_by(STEP) {
            let mut entry = log.0.begin_entry().expect("an entry");
            for n in begin..count.min(begin + STEP) {
                entry.write_chunk(records.get(n)).expect("an append");
            }
            entry.commit().expect("a commit");
        }
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let dir = PathBuf::from(dir);
        Box::new(move |seen| {
            let (sender, receiver) = mpsc::channel();
            let log = large(&dir).open(Reads { progress: Some((sender, *seen)) }).expect("a log");
            *seen = receiver.try_iter().last().expect("an entry");
            log.shutdown().expect("an end");
        })
    }

    fn tail(&self, _: usize) -> usize {
        unreachable!("it has none")
    }
}
