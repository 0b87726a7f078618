//! Runtide's log at each work.

use std::{any::Any, num::NonZeroU64, path::Path, sync::Arc};

use runtide_core::wal::{Durability, ReadFrom, RecordKind, Wal, WalOptions, WalReader, verify};

use super::{
    drive::{Appends, Tasks, Threads, each, fresh, reopened, timed},
    records::{Records, Seen},
    work::{Peer, Place, Turn, Work, million},
};

const KIND: RecordKind = RecordKind(1);

/// Records in a commit of a log that is read: 64 KiB, as many writers make them.
const COMMIT: usize = 224;

/// Records in one batch when a million are appended: about 1 MiB.
const BATCH: usize = 3_584;

/// Room for a million records, so that one thread verifies them.
const ONE_SEGMENT: u64 = 384 << 20;

/// Bytes in the segment when the process is killed: nearly full, since opening reads it.
const NEARLY_FULL: u64 = (16 << 20) / 100 * 95;

/// Runtide's log.
#[derive(Clone, Copy, Debug)]
pub struct Runtide;

impl Runtide {
    /// The contender's name in the table.
    pub const NAME: &'static str = "Runtide";
}

impl Peer for Runtide {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn turn(&self, work: Work, place: &Place<'_>) -> Option<Turn> {
        Some(match work {
            Work::Alone => Threads::new(1).turn(appender(&place.new_dir())),
            Work::Threads(threads) => Threads::new(threads).turn(appender(&place.new_dir())),
            Work::Tasks(tasks) => Tasks::new(tasks).turn(Arc::new(open(&place.new_dir()))),
            Work::Bulk => {
                let records = Records::default();
                let open = |dir: &Path| Wal::open(dir, unsynced()).expect("a log");
                fresh(place.new_dir(), million(), open, move |wal| append(wal, &records, 0..million(), BATCH))
            }
            Work::Replay => {
                let dir = place.million(make);
                Box::new(move || timed(million(), || replay(&dir)))
            }
            Work::Verify => {
                let options = unsynced().with_segment_bytes(NonZeroU64::new(ONE_SEGMENT));
                let dir = place.named("in one segment", |dir| fill(dir, options, million()));
                Box::new(move || timed(million(), || verified(&dir)))
            }
            Work::VerifyAbreast => {
                let dir = place.million(make);
                Box::new(move || timed(million(), || verified(&dir)))
            }
            Work::ReopenClosed => reopened(place.named("closed", make), None, open, once_more),
            Work::ReopenKilled => reopened(place.named("killed", make), Some(Self::NAME), open, once_more),
            Work::Tail => {
                let wal = open(&place.million(make));
                Box::new(move || {
                    timed(each(50), || {
                        for _ in 0..each(50) {
                            assert_eq!(wal.tail(100).expect("a tail").len(), 100);
                        }
                    })
                })
            }
        })
    }

    fn left_open(&self, dir: &Path) -> Box<dyn Any> {
        let wal = open(dir);
        let records = Records::default();
        loop {
            append(&wal, &records, 0..COMMIT, COMMIT);
            let next = wal.anchor().seq.0;
            let in_segment = next.saturating_sub(first_of_last_segment(dir)) * 288;
            if crate::is_trial() || (NEARLY_FULL..NEARLY_FULL + (512 << 10)).contains(&in_segment) {
                break;
            }
        }
        Box::new(wal)
    }

    fn replay(&self, dir: &Path) {
        replay(dir);
    }
}

impl Appends for Wal {
    async fn append(&self, record: &[u8]) {
        Self::append(self, KIND, record).await.expect("an append");
    }
}

pub(super) fn open(dir: &Path) -> Wal {
    Wal::open(dir, WalOptions::default()).expect("a log")
}

fn appender(dir: &Path) -> impl Fn(&[u8]) + Send + Sync + use<> {
    let wal = open(dir);
    move |record| {
        wal.append_blocking(KIND, record).expect("an append");
    }
}

pub(super) fn once_more(wal: &Wal) {
    wal.append_blocking(KIND, b"once more").expect("an append");
}

pub(super) fn unsynced() -> WalOptions {
    WalOptions::default().with_durability(Durability::Os)
}

/// Appends in batches, and syncs.
fn append(wal: &Wal, records: &Records, range: std::ops::Range<usize>, batch: usize) {
    let mut batched = Vec::with_capacity(batch);
    for begin in range.clone().step_by(batch) {
        batched.clear();
        batched.extend((begin..range.end.min(begin + batch)).map(|n| (KIND, records.get(n))));
        wal.append_batch_blocking(&batched).expect("an append");
    }
    wal.sync_blocking().expect("a sync");
}

fn make(dir: &Path) {
    fill(dir, unsynced(), million());
}

/// Makes a closed log of this many records.
pub(super) fn fill(dir: &Path, options: WalOptions, count: usize) {
    let wal = Wal::open(dir, options).expect("a log");
    append(&wal, &Records::default(), 0..count, COMMIT);
    wal.close().expect("a close");
}

fn replay(dir: &Path) {
    let mut seen = Seen::default();
    let mut reader = WalReader::open(dir, ReadFrom::Start, WalOptions::default()).expect("a reader");
    while let Some(record) = reader.next_ref().expect("a record") {
        seen.record(record.bytes);
    }
    seen.were(million());
}

fn verified(dir: &Path) {
    let verified = verify(dir, None, None).expect("a check");
    assert_eq!((verified.records, verified.corruption), (million() as u64, None));
}

/// Segments are named by their first record.
fn first_of_last_segment(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a folder");
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".wal")?.parse().ok());
    numbers.max().expect("a segment")
}
