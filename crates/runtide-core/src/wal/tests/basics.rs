//! Appending and reading.

use std::{num::NonZeroU64, path::Path};

use crate::wal::{Durability, ReadFrom, Record, RecordKind, Seq, Wal, WalOptions, WalReader};

const KIND: RecordKind = RecordKind(7);

fn small() -> WalOptions {
    WalOptions::default().with_segment_bytes(NonZeroU64::new(8 << 10))
}

fn read(dir: &Path) -> Vec<Record> {
    WalReader::open(dir, ReadFrom::Start, WalOptions::default()).unwrap().map(Result::unwrap).collect()
}

#[test]
fn what_was_appended_is_read_back_in_order_across_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 1;
    for opening in 0..5_u64 {
        let wal = Wal::open(dir.path(), small()).unwrap();
        assert!(wal.repaired().is_none() && wal.damage().is_none(), "opening {opening}");
        for _ in 0..40 {
            let payload = vec![u8::try_from(next % 251).unwrap(); usize::try_from(next * 7 % 600).unwrap()];
            assert_eq!(wal.append_blocking(KIND, &payload).unwrap(), Seq(next));
            next += 1;
        }
        let records: Vec<Record> = wal.reader(ReadFrom::Start).unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len() as u64, next - 1);
    }
    let records = read(dir.path());
    assert_eq!(records.len() as u64, next - 1);
    for (record, seq) in records.iter().zip(1..) {
        assert_eq!((record.seq, record.kind), (Seq(seq), KIND));
        assert_eq!(record.bytes.len() as u64, seq * 7 % 600);
        assert!(record.bytes.iter().all(|byte| u64::from(*byte) == seq % 251));
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().count() > 5, "several segments");
}

#[tokio::test]
async fn tasks_and_batches_share_one_order() {
    for durability in [Durability::Commit, Durability::Os, Durability::Every(std::time::Duration::from_millis(2))] {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path(), small().with_durability(durability)).unwrap();
        let tasks = (0..16_u8).map(|task| {
            let wal = wal.clone();
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for n in 0..20_u8 {
                    if n % 5 == 0 {
                        let range = wal.append_batch(&[(KIND, &[task, n]), (KIND, &[task, n, 1])]).await.unwrap();
                        assert_eq!(range.end().0 - range.start().0, 1);
                        seqs.extend([(*range.start(), vec![task, n]), (*range.end(), vec![task, n, 1])]);
                    } else {
                        seqs.push((wal.append(KIND, &[task, n]).await.unwrap(), vec![task, n]));
                    }
                }
                seqs
            })
        });
        let mut told = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            told.extend(task.await.unwrap());
        }
        told.sort();
        wal.sync().await.unwrap();
        let tail = wal.tail(5).unwrap();
        assert_eq!(tail.len(), 5);
        wal.close().unwrap();
        let records: Vec<_> = read(dir.path()).into_iter().map(|record| (record.seq, record.bytes.to_vec())).collect();
        assert_eq!(records, told);
        assert_eq!(records.last().unwrap().0, tail.last().unwrap().seq);
    }
}
