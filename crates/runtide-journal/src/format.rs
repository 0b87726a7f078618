//! The payload of a record in every journal: `{"v":1,"checkpoint":17,"record":{…}}`.
//!
//! Each record names the format's version and the last checkpoint before it. Recovery finds the newest record at once, and
//! starts to read at its checkpoint.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use runtide_core::{
    Error, ErrorKind, Result,
    wal::{ReadFrom, Record, RecordKind, Seq, Wal, WalReader},
};

/// Format version that this crate writes and reads.
const VERSION: u32 = 1;

/// Kind of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Journal {
    Events,
    Operations,
}

impl Journal {
    pub(super) const fn kind(self) -> RecordKind {
        match self {
            Self::Events => RecordKind(0x8001),
            Self::Operations => RecordKind(0x8002),
        }
    }

    const fn open(self) -> &'static str {
        match self {
            Self::Events => "journal.open",
            Self::Operations => "operations.open",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    /// First record of the last checkpoint; 0 before the first one.
    checkpoint: u64,
    record: T,
}

/// The field that every version has.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Pointer {
    checkpoint: u64,
}

pub(super) fn encode<T: Serialize>(journal: Journal, checkpoint: Seq, record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(&Envelope { v: VERSION, checkpoint: checkpoint.0, record }).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, journal.open(), "the record cannot be written as JSON").with_source(error)
    })
}

/// The payload, or the reason why it cannot be read. `None`: a record that salvage put in place of a lost one.
pub(super) fn decode<T: DeserializeOwned>(journal: Journal, record: &Record) -> Result<Option<T>> {
    if record.kind == RecordKind::LOST {
        return Ok(None);
    }
    match serde_json::from_slice::<Envelope<T>>(&record.bytes) {
        Ok(envelope) if envelope.v == VERSION && record.kind == journal.kind() => Ok(Some(envelope.record)),
        read => {
            check(journal, record)?;
            let corrupt = Error::new(ErrorKind::Corrupt, journal.open(), "the record cannot be read")
                .with_context("seq", record.seq);
            Err(match read {
                Err(error) => corrupt.with_source(error),
                Ok(_) => corrupt,
            })
        }
    }
}

/// Checks that the record belongs to this kind of journal, in this version.
fn check(journal: Journal, record: &Record) -> Result<()> {
    if record.kind != journal.kind() {
        let what = match journal {
            Journal::Events => "this log has a record that is no journal's; `wal::salvage` copies it without",
            Journal::Operations => "this log has a record that is no operation's; `wal::salvage` copies it without",
        };
        return Err(Error::new(ErrorKind::InvalidInput, journal.open(), what)
            .with_context("seq", record.seq)
            .with_context("kind", record.kind));
    }
    match serde_json::from_slice(&record.bytes) {
        Ok(Version { v: VERSION }) => Ok(()),
        Ok(Version { v }) => {
            let other = format!("the journal is of format version {v}; this build reads version {VERSION}");
            Err(Error::new(ErrorKind::Unsupported, journal.open(), other)
                .with_context("feature", "journal_format")
                .with_context("found", v)
                .with_context("reads", VERSION))
        }
        Err(error) => Err(Error::new(ErrorKind::Corrupt, journal.open(), "the record does not say its version")
            .with_context("seq", record.seq)
            .with_source(error)),
    }
}

/// Number of the next record. Valid only while the caller holds the journal's writer lock.
pub(super) fn next(wal: &Wal) -> Seq {
    wal.anchor().seq.next()
}

/// Every record from the last checkpoint on, with the checkpoint's number. A checkpoint points to itself.
pub(super) fn replay(journal: Journal, wal: &Wal) -> Result<(Seq, WalReader)> {
    let newest = wal.tail(1)?.pop();
    let checkpoint = match &newest {
        Some(newest) if newest.kind != RecordKind::LOST => {
            check(journal, newest)?;
            serde_json::from_slice(&newest.bytes).map_or(Seq(0), |Pointer { checkpoint }| Seq(checkpoint))
        }
        _ => Seq(0),
    };
    let from = if checkpoint == Seq(0) { ReadFrom::Start } else { ReadFrom::Seq(checkpoint) };
    Ok((checkpoint, wal.reader(from)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JournalOptions, RuntimeJournal};
    use runtide_core::wal::{WalOptions, WalPurpose};

    fn opening_after(payload: &[u8]) -> Error {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path(), WalOptions::default().with_purpose(WalPurpose::Events)).unwrap();
        wal.append_reserved_blocking(&[(Journal::Events.kind(), payload)]).unwrap();
        wal.close().unwrap();
        RuntimeJournal::open(dir.path(), JournalOptions::default()).unwrap_err()
    }

    #[test]
    fn another_version_is_refused_and_named() {
        let newer = opening_after(br#"{"v":2,"anything":"else"}"#);
        assert_eq!(newer.kind(), ErrorKind::Unsupported);
        assert!(newer.to_string().contains("format version 2; this build reads version 1"), "{newer}");
        assert_eq!(opening_after(b"hello").kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn each_journal_has_the_kind_of_its_logs_purpose() {
        assert_eq!(WalPurpose::Events.kind(), Some(Journal::Events.kind()));
        assert_eq!(WalPurpose::Operations.kind(), Some(Journal::Operations.kind()));
    }

    #[test]
    fn no_application_can_append_a_journals_records() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
        for journal in [Journal::Events, Journal::Operations] {
            let refused = wal.append_batch_blocking(&[(journal.kind(), b"{}")]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
    }
}
