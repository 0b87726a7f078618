//! A process that writes to a journaled store is killed at any moment: every write that it reported is there, in its order, and
//! no event that it showed is taken back.
//!
//! The process is this very program, run again for the test `the_process_that_is_killed`. SIGKILL ends it between two
//! instructions of anything; the system keeps the writes of a dead process. Power cuts are in the laws of stores, S9.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use runtide_core::{
    store::{Document, PageOptions, Precondition, ResourceRef, Selector, StoreBackend, StoreEvent, StoreWatchOptions},
    wal::{Retention, WalOptions},
};
use runtide_journal::{JournalOptions, JournaledStore};
use runtide_memory::MemoryStore;

const FOLDER: &str = "RUNTIDE_STORE_KILL_FOLDER";
const KILLS: u64 = 40;
const WRITERS: u64 = 8;

fn named(writer: u64, n: u64) -> ResourceRef {
    ResourceRef::new("", "Pod", format!("w{writer}").as_str(), &format!("p{n}")).unwrap()
}

fn open(folder: &Path) -> JournaledStore<MemoryStore> {
    let small = WalOptions::default().with_segment_bytes(NonZeroU64::new(64 << 10));
    let options = JournalOptions::default().with_wal(small).with_checkpoint_every(NonZeroU64::new(200));
    JournaledStore::open(folder, MemoryStore::new(), options.with_retention(Retention::default())).unwrap()
}

/// Run by the other test, with a folder, to be killed; without one it does nothing.
#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&folder);
        let place = store.stats().await.unwrap().revision;
        let watched = store.clone();
        // An event that a watcher got is never taken back, so it counts as much as an answer.
        tokio::spawn(async move {
            let mut watch = watched.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
            while let Some(Ok(event)) = watch.next().await {
                match event {
                    StoreEvent::Added(one) | StoreEvent::Modified(one) => {
                        eprintln!("is {} {} {}", one.reference, one.revision, one.document.bytes.len());
                    }
                    StoreEvent::Deleted { reference, revision } => eprintln!("gone {reference} {revision} 0"),
                    _ => {}
                }
            }
        });
        let made = AtomicU64::new(place.0);
        let writers: Vec<_> = (0..WRITERS).map(|writer| write(&store, writer, &made)).collect();
        futures_util::future::join_all(writers).await;
    });
    panic!("it ends only when it is killed");
}

async fn write(store: &JournaledStore<MemoryStore>, writer: u64, made: &AtomicU64) {
    loop {
        let n = made.fetch_add(1, Ordering::Relaxed);
        let reference = named(writer, n % 20);
        if n.is_multiple_of(5) {
            if let Some(revision) = store.delete(&reference, Precondition::None).await.unwrap() {
                eprintln!("gone {reference} {revision} 0");
            }
            continue;
        }
        // No two bodies are equal, so that every write has its own revision.
        let body = format!("{n}{}", "x".repeat(usize::try_from(n % 300).unwrap()));
        let applied = store.apply(&reference, Document::json(body.clone()), Precondition::None).await.unwrap();
        eprintln!("is {reference} {} {}", applied.revision, body.len());
    }
}

/// The last report of each resource: its revision, and the length of its body in bytes if it was there.
type Reported = BTreeMap<String, (u64, Option<usize>)>;

fn hear(line: &str, reported: &mut Reported) -> Option<()> {
    let mut words = line.split(' ');
    let (verb, name) = (words.next()?, words.next()?);
    let (revision, length) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    if !matches!(verb, "is" | "gone") || words.next().is_some() {
        return None;
    }
    let reported = reported.entry(name.to_owned()).or_insert((0, None));
    if revision > reported.0 {
        *reported = (revision, (verb == "is").then_some(length));
    }
    Some(())
}

#[test]
fn nothing_reported_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut reported, mut lines, mut random) = (Reported::new(), 0_u64, fastrand::Rng::with_seed(7));
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store_kill::the_process_that_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        // Every eighth process may be killed before its first report, the others some time after this many lines.
        let least = if kill % 8 == 0 { 0 } else { random.usize(20..300) };
        let wait = Duration::from_millis(random.u64(..if least == 0 { 150 } else { 20 }));
        let (one, so_many) = channel();
        let killer = thread::spawn(move || {
            let _ = so_many.iter().take(least).count();
            thread::sleep(wait);
            child.kill().unwrap();
            child.wait().unwrap()
        });
        let mut heard = Vec::new();
        for line in said.lines() {
            heard.push(line.unwrap());
            let _ = one.send(());
        }
        assert!(!killer.join().unwrap().success(), "{heard:?}");
        // The last line may be cut.
        let cut = heard.len().saturating_sub(1);
        for (n, line) in heard.iter().enumerate() {
            match hear(line, &mut reported) {
                Some(()) => lines += 1,
                None => assert!(n == cut, "kill {kill}: {line}"),
            }
        }
        compare(folder.path(), &reported, kill);
    }
    assert!(lines > 2_000, "{lines} lines: it hardly began to write before it was killed");
}

fn compare(folder: &Path, reported: &Reported, kill: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(folder);
        let page = store.list(&Selector::all(), PageOptions::default()).await.unwrap();
        let there: BTreeMap<_, _> = page.items.iter().map(|one| (one.reference.as_str(), one)).collect();
        for (name, (revision, length)) in reported {
            match there.get(name.as_str()) {
                // Written, but not reported before the end.
                Some(one) if one.revision.0 > *revision => {}
                Some(one) => {
                    assert_eq!(one.revision.0, *revision, "kill {kill}: {name} is older than reported");
                    assert_eq!(Some(one.document.bytes.len()), *length, "kill {kill}: {name}");
                }
                None if length.is_none() => {}
                None => {
                    // It may have been removed, by a write that was not reported.
                    let now = store.at(&name.parse().unwrap(), page.revision).await.unwrap();
                    assert_eq!(now, None, "kill {kill}: {name}");
                    assert!(removed_after(&store, name, *revision).await, "kill {kill}: {name} at {revision} is lost");
                }
            }
        }
    });
}

async fn removed_after(store: &JournaledStore<MemoryStore>, name: &str, revision: u64) -> bool {
    let mut history = store.history(&name.parse().unwrap()).await.unwrap();
    while let Some(event) = history.next().await {
        if matches!(event.unwrap(), StoreEvent::Deleted { revision: end, .. } if end.0 > revision) {
            return true;
        }
    }
    false
}
