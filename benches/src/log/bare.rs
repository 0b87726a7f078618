//! The bare loops: the machine's limit, reached by the least code that does the work. They keep none of a log's promises
//! except the measured one: no order over restarts, no repair, no chain.

use std::{
    any::Any,
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    drive::{Tasks, Threads, fresh, timed},
    format::{push_frame, read_frames},
    group::{Reserved, TaskGroup, ThreadGroup},
    records::{RECORD, Records, Seen},
    work::{Peer, Place, Turn, Work, million},
};

/// Bytes written, or read, together.
const WRITE: usize = 1 << 20;
const READ: usize = 256 << 10;

/// Time for which a group waits for the missing appenders of the last one.
const LINGER: Duration = Duration::from_micros(60);

/// Frames under one hash.
const HASHED: usize = 64 << 10;

/// The bare loops.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

/// Bare group commit that waits up to 60 µs for the missing appenders of the last group.
#[derive(Clone, Copy, Debug)]
pub struct Lingering;

impl Bare {
    /// The contender's name in the table.
    pub const NAME: &'static str = "bare loop";
}

impl Lingering {
    /// The contender's name in the table.
    pub const NAME: &'static str = "bare, lingering";
}

impl Peer for Bare {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn turn(&self, work: Work, place: &Place<'_>) -> Option<Turn> {
        Some(match work {
            Work::Alone => {
                let mut file = Reserved::new(&place.new_dir());
                let (mut frame, records) = (Vec::new(), Records::default());
                let each = super::each(1_000);
                Box::new(move || {
                    timed(each, || {
                        for (number, record) in records.take(each).enumerate() {
                            frame.clear();
                            push_frame(&mut frame, number, record);
                            file.commit(&frame);
                        }
                    })
                })
            }
            Work::Tasks(tasks) => group(tasks, Duration::ZERO, place),
            Work::Threads(threads) => led(threads, Duration::ZERO, place),
            Work::Bulk => {
                let records = Records::default();
                fresh(place.new_dir(), million(), empty, move |file| bulk(file, &records, false))
            }
            Work::Replay => {
                let dir = place.million(make);
                Box::new(move || timed(million(), || self::replay(&dir)))
            }
            Work::Verify => {
                let dir = place.named("hashed", |dir| bulk(&empty(dir), &Records::default(), true));
                Box::new(move || timed(million(), || verify(&dir)))
            }
            Work::VerifyAbreast | Work::ReopenClosed | Work::ReopenKilled | Work::Tail => return None,
        })
    }

    fn left_open(&self, _: &Path) -> Box<dyn Any> {
        Box::new(())
    }

    fn replay(&self, dir: &Path) {
        replay(dir);
    }
}

impl Peer for Lingering {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn turn(&self, work: Work, place: &Place<'_>) -> Option<Turn> {
        match work {
            Work::Tasks(tasks) => Some(group(tasks, LINGER, place)),
            Work::Threads(threads) => Some(led(threads, LINGER, place)),
            _ => None,
        }
    }

    fn left_open(&self, _: &Path) -> Box<dyn Any> {
        Box::new(())
    }

    fn replay(&self, _: &Path) {}
}

fn group(tasks: usize, linger: Duration, place: &Place<'_>) -> Turn {
    let group = TaskGroup::new(&place.new_dir(), linger);
    Tasks::new(tasks).turn(Arc::new(group))
}

fn led(threads: usize, linger: Duration, place: &Place<'_>) -> Turn {
    let group = ThreadGroup::new(&place.new_dir(), linger);
    Threads::new(threads).turn(move |record| group.append(record))
}

fn empty(dir: &Path) -> File {
    fs::create_dir_all(dir).expect("a folder");
    File::create(dir.join("log")).expect("a file")
}

fn make(dir: &Path) {
    bulk(&empty(dir), &Records::default(), false);
}

/// Frames in a buffer, a write for each MiB, a sync at the end.
fn bulk(file: &File, records: &Records, hashed: bool) {
    let (mut bytes, mut at) = (Vec::with_capacity(WRITE + HASHED), 0);
    let block = if hashed { HASHED } else { WRITE };
    for (number, record) in records.take(million()).enumerate() {
        push_frame(&mut bytes, number, record);
        if bytes.len() >= block {
            at = write(file, &mut bytes, at, hashed);
        }
    }
    write(file, &mut bytes, at, hashed);
    file.sync_data().expect("a sync");
}

fn write(file: &File, bytes: &mut Vec<u8>, at: u64, hashed: bool) -> u64 {
    let mut begin = at;
    if hashed {
        file.write_all_at(&(bytes.len() as u64).to_le_bytes(), begin).expect("a write");
        file.write_all_at(blake3::hash(bytes).as_bytes(), begin + 8).expect("a write");
        begin += 40;
    }
    file.write_all_at(bytes, begin).expect("a write");
    begin += bytes.len() as u64;
    bytes.clear();
    begin
}

/// A block at a time, every checksum checked.
fn replay(dir: &Path) {
    let file = File::open(dir.join("log")).expect("a file");
    let (mut block, mut at, mut seen) = (vec![0; READ], 0, Seen::default());
    loop {
        let read = file.read_at(&mut block, at).expect("a read");
        let used = read_frames(&block[..read], |record| seen.record(record));
        if used == 0 {
            break;
        }
        at += used as u64;
    }
    seen.were(million());
}

/// A commit at a time, its hash and every checksum checked.
fn verify(dir: &Path) {
    let mut file = File::open(dir.join("log")).expect("a file");
    let (mut head, mut block, mut seen) = ([0; 40], Vec::with_capacity(HASHED + RECORD * 2), Seen::default());
    while file.read_exact(&mut head).is_ok() {
        let (length, hash) = head.split_first_chunk::<8>().expect("40 bytes");
        block.resize(usize::try_from(u64::from_le_bytes(*length)).expect("a block"), 0);
        file.read_exact(&mut block).expect("a block");
        assert_eq!(blake3::hash(&block).as_bytes(), hash, "a corrupt block");
        read_frames(&block, |record| seen.record(record));
    }
    seen.were(million());
}
