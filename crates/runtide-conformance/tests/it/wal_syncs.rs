//! The number of syncs of a log, and the report of a sync that fails.

use std::{
    future::poll_fn,
    num::NonZeroU64,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::Stream;
use runtide_conformance::wal::{Fault, ModelDisk};
use runtide_core::{
    ErrorKind, Retry,
    wal::{Durability, FollowStream, ReadFrom, Record, RecordKind, Seq, Wal, WalOptions},
};

const KIND: RecordKind = RecordKind(7);

fn open(disk: &ModelDisk, durability: Durability) -> Wal {
    let options = WalOptions::default().with_durability(durability).with_disk(Some(Arc::new(disk.clone()) as Arc<_>));
    Wal::open(Path::new("/log"), options).unwrap()
}

#[test]
fn a_lone_writer_costs_one_sync_for_each_record() {
    let disk = ModelDisk::new();
    let wal = open(&disk, Durability::Commit);
    let before = disk.load().syncs;
    for _ in 0..50 {
        wal.append_blocking(KIND, b"alone").unwrap();
    }
    assert_eq!(disk.load().syncs - before, 50);
    wal.append_batch_blocking(&[(KIND, &b"together"[..]); 50]).unwrap();
    assert_eq!(disk.load().syncs - before, 51);
}

#[test]
fn without_syncs_there_are_none_until_asked() {
    let disk = ModelDisk::new();
    let wal = open(&disk, Durability::Os);
    let before = disk.load().syncs;
    for _ in 0..50 {
        wal.append_blocking(KIND, b"later").unwrap();
    }
    assert_eq!(disk.load().syncs, before);
    wal.sync_blocking().unwrap();
    assert_eq!(disk.load().syncs, before + 1);
    wal.sync_blocking().unwrap();
    assert_eq!(disk.load().syncs, before + 1, "there is nothing new");
}

#[test]
fn an_interval_syncs_by_itself() {
    let disk = ModelDisk::new();
    let wal = open(&disk, Durability::Every(Duration::from_millis(1)));
    for _ in 0..2 {
        let before = disk.load().syncs;
        wal.append_blocking(KIND, b"soon").unwrap();
        let begun = Instant::now();
        while disk.load().syncs == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "no sync came by itself");
            std::thread::yield_now();
        }
    }
    assert!(
        disk.crash()
            .read(Path::new("/log/00000000000000000001.wal"))
            .is_some_and(|bytes| { bytes.windows(4).filter(|window| *window == b"soon").count() == 2 })
    );
}

async fn next(follower: &mut FollowStream) -> Option<runtide_core::Result<Record>> {
    poll_fn(|cx| Pin::new(&mut *follower).poll_next(cx)).await
}

#[tokio::test]
async fn a_failure_reaches_tasks_and_followers() {
    for (fault, kind) in [
        (Fault::Write, ErrorKind::Unexpected),
        (Fault::Sync, ErrorKind::Unexpected),
        (Fault::Full, ErrorKind::Unavailable),
    ] {
        let disk = ModelDisk::new();
        let options = WalOptions::default()
            .with_segment_bytes(NonZeroU64::new(8 << 10))
            .with_disk(Some(Arc::new(disk.clone()) as Arc<_>));
        let wal = Wal::open(Path::new("/log"), options).unwrap();
        wal.append(KIND, b"sound").await.unwrap();
        let mut follower = wal.follow(ReadFrom::Start).unwrap();
        disk.fail(fault, 0, true);
        // A full disk is met when the next segment is made.
        let mut acknowledged = 1;
        let error = loop {
            match wal.append(KIND, b"more").await {
                Ok(seq) => acknowledged = seq.0,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Never));
        for seq in 1..=acknowledged {
            assert_eq!(next(&mut follower).await.unwrap().unwrap().seq, Seq(seq));
        }
        assert_eq!(next(&mut follower).await.unwrap().unwrap_err().kind(), kind);
        assert!(next(&mut follower).await.is_none());
        assert_eq!(wal.append(KIND, b"").await.unwrap_err().to_string(), error.to_string());
    }
}
