//! The format of the records of a journaled store.
//!
//! A record is a version (`u8`, 1), a tag (`u8`), the replay position (`u64`: number of the first record that is not contained
//! in the last whole checkpoint, or 0), a revision (`u64`), and a body that depends on the tag. Numbers are little-endian.
//!
//! | tag | body |
//! |---|---|
//! | 1 created, 2 replaced | format of the document (`u8`), length of the reference (`u16`), the reference, the document |
//! | 3 deleted | the reference |
//! | 4 begin of a checkpoint, 5 begin of a restore | number of resources (`u64`) |
//! | 6 one resource of it | as 1; the revision is the resource's own |
//! | 7 end of a checkpoint or a restore | number of resources (`u64`) |
//!
//! Opening reads the newest record first, and replays from its replay position. The first record with the position of a new
//! checkpoint or restore is the end of it, so that an unfinished one does not count. Writes that a checkpoint does not contain
//! may come before its first record and between its parts; none comes between the parts of a restore.

use bytes::Bytes;

use runtide_core::store::{Document, Planned, PlannedChange, Resource, ResourceFormat, ResourceRef, Revision};
use runtide_core::{
    Error, ErrorKind, Result,
    wal::{RecordKind, RecordRef, Seq},
};

/// Record kind of all records of a journaled store; one of those that are reserved for this crate.
pub(super) const KIND: RecordKind = RecordKind(0x8003);

const VERSION: u8 = 1;
const OPEN: &str = "store.open";

/// A decoded record.
#[derive(Debug)]
pub(super) enum Entry {
    Written(Planned),
    Begin {
        revision: Revision,
        count: u64,
        /// True for a restore: its parts replace everything, once the end is there.
        restore: bool,
    },
    Part(Resource),
    End {
        count: u64,
    },
}

/// Largest number of bytes of a write's record in addition to the document.
pub(super) fn overhead(reference: &ResourceRef) -> usize {
    HEAD + 3 + reference.as_str().len()
}

/// Bytes of version, tag, replay position and revision.
const HEAD: usize = 18;

/// Appends a record's payload.
pub(super) fn written(bytes: &mut Vec<u8>, checkpoint: Seq, planned: &Planned) {
    let tag = match planned.change {
        PlannedChange::Create => 1,
        PlannedChange::Replace => 2,
        PlannedChange::Delete | PlannedChange::Nothing => 3,
    };
    if let Some(document) = &planned.document {
        return resource(bytes, tag, checkpoint, planned.revision, &planned.reference, document);
    }
    head(bytes, tag, checkpoint, planned.revision);
    bytes.extend_from_slice(planned.reference.as_str().as_bytes());
}

pub(super) fn begin(bytes: &mut Vec<u8>, checkpoint: Seq, revision: Revision, count: u64, restore: bool) {
    head(bytes, if restore { 5 } else { 4 }, checkpoint, revision);
    bytes.extend_from_slice(&count.to_le_bytes());
}

pub(super) fn part(bytes: &mut Vec<u8>, checkpoint: Seq, one: &Resource) {
    resource(bytes, 6, checkpoint, one.revision, &one.reference, one.written());
}

pub(super) fn end(bytes: &mut Vec<u8>, checkpoint: Seq, revision: Revision, count: u64) {
    head(bytes, 7, checkpoint, revision);
    bytes.extend_from_slice(&count.to_le_bytes());
}

fn head(bytes: &mut Vec<u8>, tag: u8, checkpoint: Seq, revision: Revision) {
    bytes.extend_from_slice(&[VERSION, tag]);
    bytes.extend_from_slice(&checkpoint.0.to_le_bytes());
    bytes.extend_from_slice(&revision.0.to_le_bytes());
}

fn resource(
    bytes: &mut Vec<u8>,
    tag: u8,
    checkpoint: Seq,
    revision: Revision,
    name: &ResourceRef,
    document: &Document,
) {
    let name = name.as_str().as_bytes();
    head(bytes, tag, checkpoint, revision);
    // The maximum is never reached: a reference is far shorter than 64 KiB.
    let [low, high] = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
    bytes.extend_from_slice(&[document.format.code(), low, high]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&document.bytes);
}

/// Decodes a record: its replay position and its entry.
///
/// # Errors
/// `Corrupt` for a record that salvage lost, or that cannot be decoded; `InvalidInput` for another kind of record; `Unsupported`
/// for another version.
pub(super) fn read(record: &RecordRef<'_>) -> Result<(Seq, Entry)> {
    if record.kind == RecordKind::LOST {
        return Err(corrupt(
            record,
            "a record was lost, and salvage left a gap: the contents of the store are not known",
        ));
    }
    if record.kind != KIND {
        let error = Error::new(
            ErrorKind::InvalidInput,
            OPEN,
            "this log has a record that is no store's; `wal::salvage` copies it without",
        );
        return Err(error.with_context("seq", record.seq).with_context("kind", record.kind));
    }
    match record.bytes.first() {
        Some(&VERSION) => {}
        Some(version) => {
            let message = format!("the store is of format version {version}; this build reads version {VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, OPEN, message).with_context("seq", record.seq));
        }
        None => return Err(corrupt(record, "the record is empty")),
    }
    parse(record.bytes).ok_or_else(|| corrupt(record, "the record cannot be read"))
}

fn corrupt(record: &RecordRef<'_>, message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, OPEN, message).with_context("seq", record.seq)
}

fn parse(bytes: &[u8]) -> Option<(Seq, Entry)> {
    let (&[_, tag], rest) = bytes.split_first_chunk()?;
    let (checkpoint, rest) = rest.split_first_chunk()?;
    let (revision, rest) = rest.split_first_chunk()?;
    let (checkpoint, revision) = (Seq(u64::from_le_bytes(*checkpoint)), Revision(u64::from_le_bytes(*revision)));
    let count = || Some(u64::from_le_bytes(rest.try_into().ok()?));
    let body = || {
        let (&[format], rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (name, body) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        // Copied, so that the resource does not keep the reader's far larger block in memory.
        let document = Document::new(ResourceFormat::from_code(format)?, Bytes::copy_from_slice(body));
        Some((reference(name)?, document))
    };
    let planned = |change| {
        let (name, document) = body()?;
        Some(Entry::Written(Planned::new(name, Some(document), change, revision)))
    };
    let entry = match tag {
        1 => planned(PlannedChange::Create)?,
        2 => planned(PlannedChange::Replace)?,
        3 => Entry::Written(Planned::new(reference(rest)?, None, PlannedChange::Delete, revision)),
        4 | 5 => Entry::Begin { revision, count: count()?, restore: tag == 5 },
        6 => {
            let (name, document) = body()?;
            Entry::Part(Resource::new(name, document, revision))
        }
        7 => Entry::End { count: count()? },
        _ => return None,
    };
    Some((checkpoint, entry))
}

fn reference(bytes: &[u8]) -> Option<ResourceRef> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use runtide_core::wal::Wal;

    /// The payloads, appended to a log and decoded from it.
    fn appended(payloads: &[&[u8]]) -> Vec<Result<(Seq, Entry)>> {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path(), runtide_core::wal::WalOptions::default()).unwrap();
        let records: Vec<_> = payloads.iter().map(|payload| (KIND, *payload)).collect();
        wal.append_reserved_blocking(&records).unwrap();
        let mut reader = wal.reader(runtide_core::wal::ReadFrom::Start).unwrap();
        let mut found = Vec::new();
        while let Some(record) = reader.next_ref().unwrap() {
            found.push(read(&record));
        }
        found
    }

    #[test]
    fn the_records_have_the_kind_of_a_stores_log() {
        assert_eq!(runtide_core::wal::WalPurpose::Store.kind(), Some(KIND));
    }

    #[test]
    fn every_record_is_read_back() {
        let name = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
        let document = Document::yaml("a: 1\n");
        let planned = |document: Option<Document>, change| Planned::new(name.clone(), document, change, Revision(7));
        let created = planned(Some(document.clone()), PlannedChange::Create);
        let deleted = planned(None, PlannedChange::Delete);
        let resource = Resource::new(name.clone(), document, Revision(3));
        let payload = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            write(&mut bytes);
            bytes
        };
        let payloads = [
            payload(&|bytes| written(bytes, Seq(5), &created)),
            payload(&|bytes| written(bytes, Seq(5), &deleted)),
            payload(&|bytes| begin(bytes, Seq(5), Revision(9), 1, true)),
            payload(&|bytes| part(bytes, Seq(5), &resource)),
            payload(&|bytes| end(bytes, Seq(8), Revision(9), 1)),
        ];
        let found = appended(&payloads.each_ref().map(Vec::as_slice));
        let found: Vec<_> = found.into_iter().map(|one| format!("{:?}", one.unwrap())).collect();
        assert_eq!(found[0], format!("{:?}", (Seq(5), Entry::Written(created))));
        assert_eq!(found[1], format!("{:?}", (Seq(5), Entry::Written(deleted))));
        assert_eq!(
            found[2],
            format!("{:?}", (Seq(5), Entry::Begin { revision: Revision(9), count: 1, restore: true }))
        );
        assert_eq!(found[3], format!("{:?}", (Seq(5), Entry::Part(resource))));
        assert_eq!(found[4], format!("{:?}", (Seq(8), Entry::End { count: 1 })));
    }

    #[test]
    fn an_unreadable_record_is_an_error_of_its_kind() {
        let found = appended(&[b"", &[2, 1], &[1, 1], &[1, 99]]);
        let kinds: Vec<_> = found.into_iter().map(|one| one.unwrap_err().kind()).collect();
        assert_eq!(kinds, [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::Corrupt, ErrorKind::Corrupt]);
    }

    proptest! {
        #[test]
        fn parse_never_panics(tag in 0_u8..9, more in prop::collection::vec(any::<u8>(), 0..100)) {
            let bytes = [&[VERSION, tag][..], &more].concat();
            if let Some((_, Entry::Written(planned))) = parse(&bytes) {
                prop_assert!(planned.reference.as_str().parse::<ResourceRef>().is_ok());
            }
        }
    }
}
