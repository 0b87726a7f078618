//! Salvage and dump.

use super::{KIND, assert_records, log_of, payload, read, segments, small};
use crate::{
    error::ErrorKind,
    wal::{ReadFrom, RecordKind, Seq, Wal, WalOptions, dump, salvage, verify},
};

#[test]
fn salvage_keeps_every_record_that_is_whole_and_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    log_of(&old, small(), 200);
    let names = segments(&old);
    // One record, one commit's header, one segment's header, and one segment.
    let flip = |path: &std::path::Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&names[0], 4096 + 104 + 40);
    flip(&names[1], 4096 + 50);
    flip(&names[2], 100);
    std::fs::remove_file(&names[3]).unwrap();
    let before: Vec<_> = segments(&old).iter().map(|path| std::fs::read(path).unwrap()).collect();

    let report = salvage(&old, &new).unwrap();
    let after: Vec<_> = segments(&old).iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(before == after, "the old log is left as it is");
    assert_eq!(report.lost.len(), 4, "{:#?}", report.lost);
    let records = read(&new);
    assert_eq!(records.iter().map(|record| record.seq.0).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    let missing = report.lost[3].seqs.clone().unwrap();
    for record in records {
        if record.seq == Seq(1) || missing.contains(&record.seq) {
            assert_eq!((record.kind, record.bytes.len()), (RecordKind::LOST, 0));
        } else {
            assert_eq!((record.kind, &record.bytes[..]), (KIND, &payload(record.seq.0)[..]));
        }
    }
    assert_eq!(report.recovered, 200 - 1 - (missing.end().0 - missing.start().0 + 1));
    assert!(verify(&new, None, None).unwrap().corruption.is_none());
    assert_eq!(Wal::open(&new, small()).unwrap().append_blocking(KIND, b"on").unwrap(), Seq(201));
    assert_eq!(salvage(&old, &new).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn salvage_reads_a_log_whose_only_header_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    log_of(&old, small(), 20);
    let path = segments(&old).remove(0);
    let sound = std::fs::read(&path).unwrap();
    // The version, and the log's id, with which every commit's checksum begins.
    for at in [9, 16, 31] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let new = dir.path().join(format!("new{at}"));
        let report = salvage(&old, &new).unwrap();
        assert_eq!((report.recovered, report.lost.len()), (20, 1), "{at}");
        assert_eq!(assert_records(&read(&new), 1), 21);
    }
}

#[test]
fn salvage_reads_a_log_whose_only_header_and_only_commit_are_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let wal = Wal::open(&old, small()).unwrap();
    wal.append_batch_blocking(&[(KIND, b"first"), (KIND, b"second"), (KIND, b"third")]).unwrap();
    wal.close().unwrap();
    let path = segments(&old).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let second = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[0] ^= 1;
    bytes[second] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    // No commit is whole, but the footer, with the id that is left in the header, says how many records there were.
    let report = salvage(&old, &new).unwrap();
    assert_eq!((report.recovered, read(&new).len()), (2, 3));
}

#[test]
fn a_dump_has_a_line_for_each_record_and_each_corrupt_range() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    for payload in [&b"plain"[..], b"\"quoted\" \\ \n\x01 \xc3\xa4", &[0xff, 0x00], b"lost", b"last"] {
        wal.append_blocking(KIND, payload).unwrap();
    }
    drop(wal);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == b"lost").unwrap();
    bytes[at] = b'L';
    std::fs::write(&path, bytes).unwrap();
    let mut out = Vec::new();
    assert_eq!(dump(dir.path(), ReadFrom::Start, &mut out).unwrap(), 4);
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["text"], "plain");
    assert_eq!(lines[1]["text"], "\"quoted\" \\ \n\u{1} \u{e4}");
    assert_eq!(lines[2]["hex"], "ff00");
    assert_eq!((&lines[3]["corruption"]["seqs"][0], &lines[3]["corruption"]["seqs"][1]), (&4.into(), &4.into()));
    assert_eq!((&lines[4]["seq"], &lines[4]["kind"], &lines[4]["text"]), (&5.into(), &7.into(), &"last".into()));
    assert!(lines[0]["at"].as_str().unwrap().ends_with('Z'));
}
