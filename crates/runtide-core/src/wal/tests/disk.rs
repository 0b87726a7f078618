//! A disk that fails, and how often it is asked.

use std::{path::Path, sync::Arc};

use super::{
    KIND, assert_records,
    model::{Fail, Model},
    payload, small,
};
use crate::{
    ErrorKind,
    wal::{Durability, ReadFrom, Record, Retention, Seq, Wal, WalOptions},
};

const DIR: &str = "/log";

fn on(model: &Model) -> WalOptions {
    WalOptions { disk: Some(Arc::new(model.clone())), ..small() }
}

#[test]
fn a_lone_writer_costs_one_sync_for_each_record() {
    let model = Model::default();
    let wal = Wal::open(Path::new(DIR), WalOptions { segment_bytes: None, ..on(&model) }).unwrap();
    let before = model.syncs();
    for seq in 1..=50 {
        wal.append_blocking(KIND, &payload(seq)).unwrap();
    }
    assert_eq!(model.syncs() - before, 50);
    let batch: Vec<_> = (0..50).map(|_| (KIND, &b"together"[..])).collect();
    wal.append_batch_blocking(&batch).unwrap();
    assert_eq!(model.syncs() - before, 51);
}

#[test]
fn without_syncs_there_are_none_until_asked() {
    let model = Model::default();
    let options = WalOptions { segment_bytes: None, durability: Durability::Os, ..on(&model) };
    let wal = Wal::open(Path::new(DIR), options).unwrap();
    let before = model.syncs();
    for seq in 1..=50 {
        wal.append_blocking(KIND, &payload(seq)).unwrap();
    }
    assert_eq!(model.syncs(), before);
    wal.sync_blocking().unwrap();
    assert_eq!(model.syncs(), before + 1);
}

#[tokio::test]
async fn a_failed_write_or_sync_is_told_to_every_later_call_and_never_tried_again() {
    for (fail, kind) in [
        (Fail::Write, ErrorKind::Unexpected),
        (Fail::Sync, ErrorKind::Unexpected),
        (Fail::Full, ErrorKind::Unavailable),
    ] {
        let model = Model::default();
        let wal = Wal::open(Path::new(DIR), on(&model)).unwrap();
        wal.append(KIND, &payload(1)).await.unwrap();
        let mut follower = wal.follow(ReadFrom::Start).unwrap();
        model.fail(Some((fail, 0)));
        // A full disk is met when the next segment is made.
        let mut acked = 1;
        let error = loop {
            match wal.append(KIND, &payload(acked + 1)).await {
                Ok(seq) => acked = seq.0,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.retry()), (kind, crate::Retry::Never));
        model.fail(None);
        let operations = model.operations();
        for _ in 0..3 {
            assert_eq!(wal.append(KIND, b"").await.unwrap_err().to_string(), error.to_string());
            assert_eq!(wal.append_blocking(KIND, b"").unwrap_err().to_string(), error.to_string());
            assert_eq!(wal.sync().await.unwrap_err().to_string(), error.to_string());
            assert_eq!(wal.retain(Retention::default()).unwrap_err().to_string(), error.to_string());
        }
        assert_eq!(model.operations(), operations, "nothing is written any more");
        // What was acknowledged is still readable, and followers are told.
        let records: Vec<Record> = wal.reader(ReadFrom::Start).unwrap().map(Result::unwrap).collect();
        assert_eq!(assert_records(&records, 1), acked + 1);
        for seq in 1..=acked {
            assert_eq!(follower.next().await.unwrap().unwrap().seq, Seq(seq));
        }
        assert_eq!(follower.next().await.unwrap().unwrap_err().kind(), kind);
        assert!(follower.next().await.is_none());
        drop(wal);
        // Opened anew it goes on; what was not acknowledged may be there.
        let wal = Wal::open(Path::new(DIR), on(&model)).unwrap();
        let next = wal.anchor().seq.0 + 1;
        assert!((acked + 1..=acked + 2).contains(&next));
        assert_eq!(wal.append_blocking(KIND, &payload(next)).unwrap().0, next);
        assert_eq!(assert_records(&wal.tail(1000).unwrap(), 1), next + 1);
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_is_believed() {
    let model = Model::default();
    let wal = Wal::open(Path::new(DIR), on(&model)).unwrap();
    wal.append_blocking(KIND, &payload(1)).unwrap();
    model.fail(Some((Fail::Sync, 0)));
    wal.append_blocking(KIND, &payload(2)).unwrap_err();
    model.fail(None);
    drop(wal);
    let before = model.operations();
    let wal = Wal::open(Path::new(DIR), on(&model)).unwrap();
    assert_eq!(wal.anchor().seq, Seq(2));
    // Of what was written before, nothing without a successful sync behind it can be relied on.
    let crashed = model.crash_now();
    drop(wal);
    assert!(model.operations() > before);
    let wal = Wal::open(Path::new(DIR), on(&crashed)).unwrap();
    assert_eq!(assert_records(&wal.tail(10).unwrap(), 1), 3);
}

#[test]
fn an_interval_syncs_by_itself() {
    let model = Model::default();
    let interval = std::time::Duration::from_millis(1);
    let wal = Wal::open(Path::new(DIR), WalOptions { durability: Durability::Every(interval), ..on(&model) }).unwrap();
    let before = model.syncs();
    wal.append_blocking(KIND, &payload(1)).unwrap();
    while model.syncs() == before {
        std::thread::yield_now();
    }
    let synced = model.syncs();
    wal.append_blocking(KIND, &payload(2)).unwrap();
    while model.syncs() == synced {
        std::thread::yield_now();
    }
}
