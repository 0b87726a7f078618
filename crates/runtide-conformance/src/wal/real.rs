//! Runtide's own log.

use std::{ops::RangeInclusive, path::Path};

use runtide_core::{
    Error, ErrorKind, Result,
    wal::{
        Corruption, ReadFrom, Record, RecordKind, Retention, Wal, WalOptions, WalReader, dump_with, salvage_with,
        verify_with,
    },
};

use super::{Audit, Cut, Entries, Entry, LogHarness, OpenLog, Salvaged};

const KIND: RecordKind = RecordKind(7);

/// [`Wal`] itself.
#[derive(Clone, Copy, Debug)]
pub struct RealLog;

impl LogHarness for RealLog {
    fn name(&self) -> &'static str {
        "wal"
    }

    fn open(&self, dir: &Path, options: WalOptions) -> Result<Box<dyn OpenLog>> {
        Ok(Box::new(Wal::open(dir, options)?))
    }

    fn reader(&self, dir: &Path, from: ReadFrom, options: WalOptions) -> Result<Entries> {
        Ok(entries(WalReader::open(dir, from, options)?))
    }

    fn verify(&self, dir: &Path, anchor: Option<&str>, options: &WalOptions) -> Result<Audit> {
        let anchor = anchor.map(str::parse).transpose()?;
        let found = verify_with(dir, anchor.as_ref(), options)?;
        let as_text = |corruption: Option<Corruption>| corruption.map(|corruption| corruption.to_string());
        Ok(Audit {
            records: found.records,
            anchored: found.anchored,
            corruption: as_text(found.corruption),
            torn: as_text(found.torn),
        })
    }

    fn salvage(&self, dir: &Path, out: &Path, options: &WalOptions) -> Result<Salvaged> {
        let report = salvage_with(dir, out, options)?;
        Ok(Salvaged { recovered: report.recovered, lost: report.lost.len() })
    }

    fn dump(&self, dir: &Path, out: &mut dyn std::io::Write, options: &WalOptions) -> Result<()> {
        dump_with(dir, ReadFrom::Start, out, options).map(drop)
    }
}

impl OpenLog for Wal {
    fn append(&self, payload: &[u8]) -> Result<u64> {
        Ok(self.append_blocking(KIND, payload)?.0)
    }

    fn append_in_task(&self, payload: &[u8]) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "harness", "the system gives no runtime").with_source(error)
        })?;
        Ok(runtime.block_on(Self::append(self, KIND, payload))?.0)
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<RangeInclusive<u64>> {
        let records: Vec<_> = payloads.iter().map(|payload| (KIND, *payload)).collect();
        let range = self.append_batch_blocking(&records)?;
        Ok(range.start().0..=range.end().0)
    }

    fn sync(&self) -> Result<()> {
        self.sync_blocking()
    }

    fn reader(&self, from: ReadFrom) -> Result<Entries> {
        Ok(entries(Self::reader(self, from)?))
    }

    fn tail(&self, n: usize) -> Result<Vec<Entry>> {
        Self::tail(self, n)?.iter().map(entry).collect()
    }

    fn anchor(&self) -> String {
        Self::anchor(self).to_string()
    }

    fn retain(&self, policy: Retention) -> Result<u64> {
        Ok(Self::retain(self, policy)?.first.0)
    }

    fn cut(&self) -> Option<Cut> {
        let repair = self.repaired()?;
        Some(Cut { file: repair.cut.segment.clone(), bytes: repair.cut.bytes.clone(), copy: repair.copy.clone() })
    }

    fn close(&self) -> Result<()> {
        Self::close(self)
    }
}

fn entries(reader: WalReader) -> Entries {
    Box::new(reader.map(|record| entry(&record?)))
}

fn entry(record: &Record) -> Result<Entry> {
    let lost = record.kind == RecordKind::LOST;
    if !lost && record.kind != KIND {
        return Err(Error::new(ErrorKind::Corrupt, "harness", "a record came back with another kind"));
    }
    Ok(Entry { seq: record.seq.0, bytes: record.bytes.to_vec(), lost })
}
