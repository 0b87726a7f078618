//! The log on real files, sound and corrupt. The laws of the log (`runtide-conformance`) test it on a disk that fails and after
//! power cuts.

mod basics;
mod corruption;
mod follow;
#[cfg(shuttle)]
mod handover;
mod hook;
mod keys;
mod purpose;
mod retain;
mod salvage;
mod torn;

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use super::{ReadFrom, Record, RecordKind, Wal, WalOptions, WalReader};

const KIND: RecordKind = RecordKind(7);

/// Options with segments of 8 KiB, the smallest size, so that a test gets several of them.
fn small() -> WalOptions {
    WalOptions::default().with_segment_bytes(NonZeroU64::new(8 << 10))
}

/// The payload of record `seq`: its number, and up to 89 bytes more.
fn payload(seq: u64) -> Vec<u8> {
    let mut payload = seq.to_le_bytes().to_vec();
    payload.resize(8 + usize::try_from(seq * 7 % 90).unwrap(), u8::try_from(seq % 251).unwrap());
    payload
}

/// Writes a log of `records` records, one commit each, and closes it.
fn log_of(dir: &Path, options: WalOptions, records: u64) {
    let wal = Wal::open(dir, options).unwrap();
    for seq in 1..=records {
        assert_eq!(wal.append_blocking(KIND, &payload(seq)).unwrap().0, seq);
    }
    wal.close().unwrap();
}

fn read_with(dir: &Path, options: WalOptions) -> Vec<crate::error::Result<Record>> {
    WalReader::open(dir, ReadFrom::Start, options).unwrap().collect()
}

fn read(dir: &Path) -> Vec<Record> {
    read_with(dir, WalOptions::default()).into_iter().map(Result::unwrap).collect()
}

/// Asserts that these are the records from `first` on, each as it was appended; returns the number after the last.
fn assert_records<'a>(records: impl IntoIterator<Item = &'a Record>, first: u64) -> u64 {
    let mut next = first;
    for record in records {
        assert_eq!((record.seq.0, record.kind), (next, KIND));
        assert_eq!(record.bytes, payload(next), "record {next}");
        next += 1;
    }
    next
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths.sort();
    paths
}

/// Copies a log, so that a test can corrupt the copy.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}
