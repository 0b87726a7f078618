//! The hook of a log: decisions are made in the log's order, and durable records are shown before any caller is answered.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::{KIND, payload, read};
use crate::{
    error::ErrorKind,
    wal::{CommitHook, Commits, Forming, Seq, Wal, WalOptions},
};

/// Records the calls of `committed`, and pushes one of its `more` records with each commit.
#[derive(Default)]
struct Shown {
    last: AtomicU64,
    all: Mutex<Vec<u64>>,
    more: AtomicU64,
}

impl CommitHook for Shown {
    fn committed(&self, last: Seq) {
        self.all.lock().unwrap().push(last.0);
        self.last.store(last.0, Ordering::SeqCst);
    }

    fn settled(&self, commits: &Commits<'_>) {
        if self.more.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |more| more.checked_sub(1)).is_ok() {
            commits.hand_over(push).unwrap();
        }
    }

    fn failed(&self) {
        unreachable!("the disk is sound");
    }
}

fn push(forming: &mut Forming<'_>) -> Seq {
    let seq = forming.next_seq();
    assert_eq!(forming.push(KIND, |bytes| bytes.extend_from_slice(&payload(seq.0))), seq);
    seq
}

fn open() -> (tempfile::TempDir, Wal, Arc<Shown>) {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    let shown = Arc::<Shown>::default();
    wal.set_commit_hook(Arc::clone(&shown) as _).unwrap();
    (dir, wal, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_sees_each_commit_in_order_and_before_its_callers_are_answered() {
    let (dir, wal, shown) = open();
    let decided = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (wal, shown, decided) = (wal.clone(), Arc::clone(&shown), Arc::clone(&decided));
            tokio::spawn(async move {
                for _ in 0..50 {
                    let decide = |forming: &mut Forming<'_>| {
                        let seq = push(forming);
                        decided.lock().unwrap().push(seq.0);
                        seq
                    };
                    let seq = wal.hand_over(200, decide).await.unwrap();
                    assert!(shown.last.load(Ordering::SeqCst) >= seq.0, "it was answered before it was shown");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(decided.lock().unwrap().iter().copied().eq(1..=800), "decided in the order of the log");
    let all = shown.all.lock().unwrap().clone();
    assert!(all.is_sorted_by(|one, other| one < other));
    assert_eq!(all.last(), Some(&800));
    wal.close().unwrap();
    assert_eq!(super::assert_records(&read(dir.path()), 1), 801);
}

#[tokio::test]
async fn an_answer_without_a_record_waits_until_all_before_is_shown() {
    let (_dir, wal, shown) = open();
    assert_eq!(wal.hand_over(0, |forming| forming.next_seq()).await.unwrap(), Seq(1));
    let first = wal.hand_over(200, push);
    let nothing = async {
        wal.hand_over(0, |forming| forming.next_seq()).await.map(|next| (next, shown.last.load(Ordering::SeqCst)))
    };
    let (first, (next, seen)) = tokio::try_join!(first, nothing).unwrap();
    assert_eq!((first, next), (Seq(1), Seq(2)));
    assert_eq!(seen, 1, "what it rests on was not shown yet");
}

#[tokio::test]
async fn a_dropped_hand_over_is_written_all_the_same_or_never_began() {
    let (dir, wal, shown) = open();
    drop(wal.hand_over(200, |_: &mut Forming<'_>| unreachable!("it was never polled")));
    {
        let polled = std::pin::pin!(wal.hand_over(200, push));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(polled.poll(&mut cx).is_pending());
    }
    assert_eq!(wal.hand_over(200, push).await.unwrap(), Seq(2));
    assert_eq!(shown.last.load(Ordering::SeqCst), 2);
    wal.close().unwrap();
    assert_eq!(super::assert_records(&read(dir.path()), 1), 3);
}

#[tokio::test]
async fn the_hook_goes_on_by_itself_and_a_closed_log_decides_nothing() {
    let (dir, wal, shown) = open();
    shown.more.store(5, Ordering::SeqCst);
    wal.hand_over(200, push).await.unwrap();
    while shown.last.load(Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    wal.close().unwrap();
    let late = wal.hand_over(0, |_| unreachable!("nothing is decided any more")).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Cancelled);
    let long = wal.hand_over(Wal::MAX_RECORD + 1, |_| unreachable!("it is too long")).await;
    assert_eq!(long.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(wal.set_commit_hook(shown).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(super::assert_records(&read(dir.path()), 1), 7);
}
