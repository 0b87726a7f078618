//! Appending and reading.

use std::time::Duration;

use super::{KIND, assert_records, log_of, payload, read, segments, small};
use crate::{
    error::ErrorKind,
    wal::{Anchor, Durability, ReadFrom, Record, RecordKind, Seq, Wal, WalOptions, WalReader},
};

#[test]
fn appended_records_are_read_back_in_order_across_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 1;
    for opening in 0..5_u64 {
        let wal = Wal::open(dir.path(), small()).unwrap();
        assert!(wal.repaired().is_none() && wal.corruption().is_none(), "opening {opening}");
        for _ in 0..60 {
            assert_eq!(wal.append_blocking(KIND, &payload(next)).unwrap(), Seq(next));
            next += 1;
        }
        let records: Vec<Record> = wal.reader(ReadFrom::Start).unwrap().map(Result::unwrap).collect();
        assert_eq!(assert_records(&records, 1), next);
    }
    assert_eq!(assert_records(&read(dir.path()), 1), next);
    assert!(segments(dir.path()).len() > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_and_batches_share_one_order() {
    for durability in [Durability::Commit, Durability::Os, Durability::Every(Duration::from_millis(2))] {
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
        let mut acknowledged = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            acknowledged.extend(task.await.unwrap());
        }
        acknowledged.sort();
        wal.sync().await.unwrap();
        let tail = wal.tail(5).unwrap();
        assert_eq!(tail.len(), 5);
        wal.close().unwrap();
        let records: Vec<_> = read(dir.path()).into_iter().map(|record| (record.seq, record.bytes.to_vec())).collect();
        assert_eq!(records, acknowledged);
        assert_eq!(records.last().unwrap().0, tail.last().unwrap().seq);
    }
}

#[test]
fn threads_share_one_order_and_each_gets_its_own_number() {
    for durability in [Durability::Commit, Durability::Os, Durability::Every(Duration::from_millis(1))] {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path(), small().with_durability(durability)).unwrap();
        let acknowledged = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..12_u8)
                .map(|thread| {
                    let wal = &wal;
                    scope.spawn(move || {
                        let append = |n| (wal.append_blocking(KIND, &[thread, n]).unwrap(), thread, n);
                        (0..40_u8).map(append).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let records = wal.tail(usize::MAX).unwrap();
        assert_eq!(records.len(), 480);
        for (seq, thread, n) in acknowledged {
            let record = &records[usize::try_from(seq.0).unwrap() - 1];
            assert_eq!((record.seq, &record.bytes[..]), (seq, &[thread, n][..]));
        }
    }
}

#[tokio::test]
async fn tasks_and_threads_append_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    let blocking = {
        let wal = wal.clone();
        std::thread::spawn(move || {
            (0..100).map(|_| wal.append_blocking(KIND, b"thread").unwrap().0).collect::<Vec<_>>()
        })
    };
    let mut seqs = Vec::new();
    for _ in 0..100 {
        seqs.push(wal.append(KIND, b"task").await.unwrap().0);
    }
    seqs.extend(blocking.join().unwrap());
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
}

#[test]
fn reading_starts_at_every_record_and_tail_ends_at_the_last() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 200);
    let wal = Wal::open(dir.path(), small()).unwrap();
    for _ in 0..3 {
        // A commit of many records, which readers enter in its middle.
        let next = wal.anchor().seq.0 + 1;
        let payloads: Vec<_> = (next..next + 20).map(payload).collect();
        let batch: Vec<_> = payloads.iter().map(|payload| (KIND, &payload[..])).collect();
        assert_eq!(wal.append_batch_blocking(&batch).unwrap(), Seq(next)..=Seq(next + 19));
    }
    for from in 1..=261 {
        let records: Vec<Record> = wal.reader(ReadFrom::Seq(Seq(from))).unwrap().map(Result::unwrap).collect();
        assert_eq!(assert_records(&records, from), 261);
        let alone = WalReader::open(dir.path(), ReadFrom::Seq(Seq(from)), WalOptions::default()).unwrap();
        assert_eq!(alone.map(Result::unwrap).next().map(|record| record.seq), records.first().map(|record| record.seq));
        let n = usize::try_from(261 - from).unwrap();
        assert_eq!(assert_records(&wal.tail(n).unwrap(), from), 261);
    }
    assert_eq!(wal.tail(1000).unwrap().len(), 260);
    for far in [262, u64::MAX] {
        assert_eq!(wal.reader(ReadFrom::Seq(Seq(far))).unwrap_err().kind(), ErrorKind::InvalidInput);
        let alone = WalReader::open(dir.path(), ReadFrom::Seq(Seq(far)), WalOptions::default());
        assert_eq!(alone.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_reader_at_the_end_goes_on_with_later_records() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    let mut bound = wal.reader(ReadFrom::Start).unwrap();
    let mut alone = WalReader::open(dir.path(), ReadFrom::Start, WalOptions::default()).unwrap();
    let mut late = wal.reader(ReadFrom::End).unwrap();
    for seq in 1..=150 {
        assert!(bound.next().is_none() && alone.next().is_none() && late.next().is_none());
        wal.append_blocking(KIND, &payload(seq)).unwrap();
        for reader in [&mut bound, &mut alone, &mut late] {
            assert_eq!(reader.next().unwrap().unwrap().seq, Seq(seq));
        }
    }
    assert!(WalReader::open(dir.path(), ReadFrom::End, WalOptions::default()).unwrap().next().is_none());
}

#[test]
fn an_empty_log_reads_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    let missing = WalReader::open(dir.path(), ReadFrom::Start, WalOptions::default());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let wal = Wal::open(&dir.path().join("a/b"), WalOptions::default()).unwrap();
    assert_eq!((wal.anchor().seq, wal.tail(3).unwrap().len()), (Seq(0), 0));
    assert!(wal.reader(ReadFrom::Start).unwrap().next().is_none());
    wal.sync_blocking().unwrap();
    drop(wal);
    assert_eq!(
        Wal::open(&dir.path().join("a/b"), WalOptions::default()).unwrap().append_blocking(KIND, b"").unwrap(),
        Seq(1)
    );
}

#[test]
fn a_commit_larger_than_a_segment_gets_one_that_is_large_enough() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    let large = |byte| vec![byte; 3 << 20];
    for byte in 1..=3_u8 {
        wal.append_blocking(KIND, &large(byte)).unwrap();
        wal.append_batch_blocking(&[(KIND, &large(byte)), (KIND, b"small")]).unwrap();
    }
    let records: Vec<Record> = wal.reader(ReadFrom::Start).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 9);
    assert!(records.chunks(3).zip(1..).all(|(three, byte)| three[0].bytes == large(byte) && three[2].bytes == "small"));
    drop(wal);
    assert_eq!(read(dir.path()), records);
    assert_eq!(Wal::open(dir.path(), small()).unwrap().tail(9).unwrap(), records);
}

#[test]
fn oversized_and_reserved_records_are_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    let long = vec![0; Wal::MAX_RECORD + 1];
    let most = &long[..Wal::MAX_RECORD];
    let refused = [
        wal.append_blocking(KIND, &long).unwrap_err(),
        wal.append_blocking(RecordKind(0x8000), b"").unwrap_err(),
        wal.append_batch_blocking(&[]).unwrap_err(),
        wal.append_batch_blocking(&[(KIND, b"good"), (RecordKind::LOST, b"")]).unwrap_err(),
        wal.append_batch_blocking(&[(KIND, most), (KIND, most), (KIND, most), (KIND, most)]).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(wal.anchor().seq, Seq(0));
    assert_eq!(wal.append_blocking(KIND, most).unwrap(), Seq(1));
}

#[test]
fn a_second_writer_is_refused_with_the_name_of_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    let error = Wal::open(dir.path(), WalOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("holder=pid {}", std::process::id())), "{error}");
    let clone = wal.clone();
    drop(wal);
    assert_eq!(Wal::open(dir.path(), WalOptions::default()).unwrap_err().kind(), ErrorKind::Conflict);
    clone.close().unwrap();
    Wal::open(dir.path(), WalOptions::default()).unwrap();
    assert_eq!(clone.append_blocking(KIND, b"").unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(clone.sync_blocking().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn opening_and_closing_makes_no_segments_and_changes_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 50);
    let before: Vec<_> = segments(dir.path()).into_iter().map(|path| std::fs::read(path).unwrap()).collect();
    for _ in 0..5 {
        drop(Wal::open(dir.path(), small()).unwrap());
    }
    let after: Vec<_> = segments(dir.path()).into_iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(before == after);
}

#[tokio::test]
async fn a_dropped_append_leaves_the_log_usable() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    for _ in 0..50 {
        let mut append = Box::pin(wal.append(KIND, b"dropped"));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx).is_pending())).await);
        drop(append);
    }
    let last = wal.append(KIND, b"kept").await.unwrap();
    assert_eq!(wal.tail(1).unwrap()[0].seq, last);
    wal.close().unwrap();
    assert_eq!(read(dir.path()).len() as u64, last.0);
}

#[tokio::test]
async fn an_append_that_moves_between_tasks_is_still_woken() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    for _ in 0..100 {
        let wal = wal.clone();
        let mut append = Box::pin(async move { wal.append(KIND, b"moves").await });
        // Polled once here, with a waker that does nothing, then by another task.
        let mut nowhere = std::task::Context::from_waker(std::task::Waker::noop());
        if append.as_mut().poll(&mut nowhere).is_pending() {
            tokio::spawn(append).await.unwrap().unwrap();
        }
    }
    assert_eq!(wal.anchor().seq, Seq(100));
}

#[test]
fn anchors_have_one_text_form() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    wal.append_blocking(KIND, b"one").unwrap();
    let anchor = wal.anchor();
    let json = serde_json::to_string(&anchor).unwrap();
    assert_eq!(json, format!("\"{anchor}\""));
    assert_eq!(serde_json::from_str::<Anchor>(&json).unwrap(), anchor);
    let text = anchor.to_string();
    for wrong in [
        "",
        "runtide-anchor:2:00:1:00",
        &text[1..],
        &text[..text.len() - 1],
        &format!("{text}:"),
        &text.replace(":1:", ":x:"),
    ] {
        assert_eq!(wrong.parse::<Anchor>().unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
    }
}
