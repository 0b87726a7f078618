//! Followers: each record once, woken for each commit, and the end.

use futures_core::Stream;

use super::{KIND, assert_records, log_of, payload, small};
use crate::wal::{ReadFrom, Retention, Seq, Wal};

const fn is_stream<T: Stream + Send + Unpin + 'static>(_: &T) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_each_record_once_while_it_is_appended_and_end_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 50);
    let wal = Wal::open(dir.path(), small()).unwrap();
    let follow = |from| {
        let mut stream = wal.follow(from).unwrap();
        is_stream(&stream);
        tokio::spawn(async move {
            let mut records = Vec::new();
            while let Some(record) = stream.next().await {
                records.push(record.unwrap());
            }
            records
        })
    };
    let followers = [(follow(ReadFrom::Start), 1), (follow(ReadFrom::Seq(Seq(40))), 40), (follow(ReadFrom::End), 51)];
    for seq in 51..=400 {
        wal.append(KIND, &payload(seq)).await.unwrap();
        if seq == 200 {
            wal.retain(Retention::default().with_keep_from(Seq(200))).unwrap();
        }
    }
    wal.close().unwrap();
    for (follower, first) in followers {
        assert_eq!(assert_records(&follower.await.unwrap(), first), 401);
    }
}

#[tokio::test]
async fn a_follower_is_woken_for_each_commit() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    let mut stream = wal.follow(ReadFrom::End).unwrap();
    for seq in 1..=200 {
        let appended = {
            let wal = wal.clone();
            tokio::spawn(async move { wal.append(KIND, &payload(seq)).await })
        };
        assert_eq!(stream.next().await.unwrap().unwrap().seq, Seq(seq));
        appended.await.unwrap().unwrap();
    }
    drop(wal);
    assert!(stream.next().await.is_none() && stream.next().await.is_none());
}
