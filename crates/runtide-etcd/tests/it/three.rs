//! A store on three real members of which some die, stand still, or are cut off: each test has its own cluster.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use runtide_conformance::proxy::{Action, Rule};
use runtide_core::{
    ErrorKind,
    store::{
        ApplyOutcome, Document, PageOptions, Precondition, ResourceRef, Revision, Selector, Since, StoreBackend,
        StoreEvent, StoreStream, StoreWatchOptions,
    },
};
use runtide_etcd::{Config, EtcdStore};

use crate::cluster::{Cluster, TIMEOUT, behind_a_proxy, patient, soon};

fn named(name: &str) -> ResourceRef {
    ResourceRef::new("apps", "Deployment", "shop", name).unwrap()
}

fn json(text: impl Into<String>) -> Document {
    Document::json(text.into())
}

async fn next(stream: &mut StoreStream) -> StoreEvent {
    soon("an event", stream.next()).await.expect("it goes on").expect("an event")
}

async fn next_change(stream: &mut StoreStream) -> StoreEvent {
    loop {
        match next(stream).await {
            StoreEvent::Bookmark { .. } => {}
            event => return event,
        }
    }
}

/// Which endpoint is listed first.
fn beginning_with(cluster: &Cluster, first: usize) -> Config {
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(first);
    cluster.config().with_endpoints(endpoints)
}

#[tokio::test]
async fn a_dead_first_endpoint_costs_little() {
    let Some(mut cluster) = Cluster::three() else { return };
    cluster.store().stats().await.unwrap();
    let leader = cluster.leader().await;
    let dead = (leader + 1) % 3;
    cluster.kill(dead);
    let store = EtcdStore::new(beginning_with(&cluster, dead)).unwrap();
    // Were each call to wait for the dead member, they would take more than three minutes.
    let begin = Instant::now();
    for n in 0..20 {
        store.apply(&named(&format!("n{n}")), json("{}"), Precondition::Absent).await.unwrap();
    }
    let mut stream =
        store.watch(&Selector::all(), StoreWatchOptions::default().with_since(Since::Start)).await.unwrap();
    for _ in 0..21 {
        next(&mut stream).await;
    }
    assert!(begin.elapsed() < TIMEOUT, "{:?}", begin.elapsed());
}

/// Outcomes of one writer's writes.
#[derive(Debug, Default)]
struct Outcomes {
    /// Each write that was acknowledged.
    acknowledged: BTreeMap<Revision, String>,
    unknown: Vec<String>,
    refused: Vec<String>,
}

/// Writes one resource again and again, by compare-and-set on the last known revision, until `stop` is set.
async fn write(store: Arc<EtcdStore>, who: usize, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicUsize>) -> Outcomes {
    let reference = named(&format!("w{who}"));
    let mut outcomes = Outcomes::default();
    let mut last: Option<Revision> = None;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let body = format!("{{\"by\":{who},\"n\":{n}}}");
        let precondition = last.map_or(Precondition::Absent, Precondition::Is);
        match store.apply(&reference, json(body.clone()), precondition).await {
            Ok(applied) => {
                assert_ne!(applied.outcome, ApplyOutcome::Unchanged);
                assert!(last.is_none_or(|last| last < applied.revision));
                assert!(outcomes.acknowledged.insert(applied.revision, body).is_none(), "one revision for two writes");
                last = Some(applied.revision);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.context().iter().any(|(key, value)| *key == "outcome" && value == "unknown") => {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
                outcomes.unknown.push(body);
                // It may have landed, or land later: read until the outcome is known.
                last = known(&store, &reference).await;
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Conflict),
                    "{error:?}"
                );
                if error.kind() == ErrorKind::Conflict {
                    // Only one of this writer's own writes can have come between, one with an unknown outcome.
                    assert!(!outcomes.unknown.is_empty(), "{error:?}");
                    last = known(&store, &reference).await;
                }
                outcomes.refused.push(body);
            }
        }
    }
    outcomes
}

async fn known(store: &EtcdStore, reference: &ResourceRef) -> Option<Revision> {
    loop {
        match store.get(reference, None).await {
            Ok(there) => return there.map(|there| there.revision),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_leaders_that_die_and_stand_still() {
    const WRITERS: usize = 6;
    let Some(mut cluster) = Cluster::three() else { return };
    let watcher = cluster.store();
    watcher.stats().await.unwrap();
    let mut stream = watcher.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut stream).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|who| {
            let config = beginning_with(&cluster, who % 3).with_request_timeout(Duration::from_secs(6));
            let store = Arc::new(EtcdStore::new(config).unwrap());
            tokio::spawn(write(store, who, Arc::clone(&stop), Arc::clone(&acknowledged)))
        })
        .collect();
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let leader = cluster.leader().await;
        if round % 2 == 0 {
            cluster.kill(leader);
            cluster.leader().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.run(leader);
        } else {
            cluster.pause(leader);
            tokio::time::sleep(Duration::from_millis(2500)).await;
            cluster.go_on(leader);
        }
    }
    soon("writes", async {
        while acknowledged.load(Ordering::Relaxed) <= 60 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut all: BTreeMap<Revision, String> = BTreeMap::new();
    let (mut unknown, mut refused) = (Vec::new(), Vec::new());
    for writer in writers {
        let outcomes = soon("a writer", writer).await.unwrap();
        for (revision, body) in outcomes.acknowledged {
            assert!(all.insert(revision, body).is_none(), "two writes got the same revision");
        }
        unknown.extend(outcomes.unknown);
        refused.extend(outcomes.refused);
    }
    assert!(all.len() > 50, "the writers got nowhere: {}", all.len());

    // The history, as the watcher saw it over all the faults of the members.
    let page = watcher.list(&Selector::all(), PageOptions::default()).await.unwrap();
    let mut seen: BTreeMap<Revision, String> = BTreeMap::new();
    let mut last = Revision(0);
    while last < page.items.iter().map(|item| item.revision).max().unwrap() {
        match next_change(&mut stream).await {
            StoreEvent::Added(resource) | StoreEvent::Modified(resource) => {
                assert!(resource.revision > last, "back in time");
                last = resource.revision;
                let body = String::from_utf8(resource.document.bytes.to_vec()).unwrap();
                assert!(seen.insert(resource.revision, body).is_none());
            }
            event => panic!("{event:?}"),
        }
    }
    for (revision, body) in &all {
        assert_eq!(seen.get(revision), Some(body), "acknowledged at {revision}, and not there");
    }
    for (revision, body) in &seen {
        // No write landed that was reported as failed to its writer; none landed twice.
        assert!(all.get(revision) == Some(body) || unknown.contains(body), "{body} was done, and no writer knows");
        assert!(!refused.contains(body), "{body} was done, and was reported to its writer as not done");
        assert_eq!(seen.values().filter(|one| *one == body).count(), 1, "{body} was done twice");
    }
    println!("{} acknowledged, {} unknown, {} refused", all.len(), unknown.len(), refused.len());
}

#[tokio::test]
async fn without_a_majority_a_write_is_not_guessed_at_and_lands_or_not_later() {
    let Some(mut cluster) = Cluster::three() else { return };
    cluster.store().stats().await.unwrap();
    let config = cluster.config().with_request_timeout(Duration::from_secs(6));
    let store = EtcdStore::new(config).unwrap();
    let before = cluster.store().apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    let leader = cluster.leader().await;
    // The write is sent: the store is connected to a member that answers.
    soon("a connection", async { while store.get(&named("a"), None).await.is_err() {} }).await;
    for at in 0..3 {
        if at != leader {
            cluster.pause(at);
        }
    }
    let first = store.apply(&named("a"), json("2"), Precondition::Is(before)).await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Timeout, "{first:?}");
    assert!(first.fact("outcome") == Some("unknown"), "{first:?}");
    let read = store.get(&named("a"), None).await.unwrap_err();
    assert!(!read.to_string().contains("outcome"), "{read:?}");
    for at in 0..3 {
        if at != leader {
            cluster.go_on(at);
        }
    }
    let there = soon("an answer", async {
        loop {
            if let Ok(there) = store.get(&named("a"), None).await {
                return there.unwrap();
            }
        }
    })
    .await;
    // In either case a compare-and-set is not misled.
    let third = cluster.store().apply(&named("a"), json("3"), Precondition::Is(there.revision)).await;
    match third {
        Ok(third) => {
            // Now the first can never land any more.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let there = cluster.store().get(&named("a"), None).await.unwrap().unwrap();
            assert_eq!((there.revision, &there.document), (third.revision, &json("3")));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
    }
}

#[tokio::test]
async fn a_write_of_which_the_answer_is_lost_is_found_and_not_done_twice() {
    let Some(cluster) = Cluster::three() else { return };
    cluster.store().stats().await.unwrap();
    let (proxy, config) = behind_a_proxy(&cluster, 0).await;
    let proxy = Arc::new(proxy);
    let store = EtcdStore::new(config).unwrap();
    let mut watch = cluster.store().watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut watch).await;
    let mut last = store.apply(&named("a"), json("0"), Precondition::Absent).await.unwrap().revision;
    assert_eq!(next_change(&mut watch).await.revision(), last);
    for n in 1..8 {
        // The response comes too late: the link is broken once the write is seen to have landed.
        proxy.add(Rule::all(Action::Delay(TIMEOUT)));
        let (what, body) = (named("a"), json(n.to_string()));
        let write = store.apply(&what, body, Precondition::Is(last));
        let mut seen = Revision(0);
        let broken = async {
            seen = next_change(&mut watch).await.revision();
            proxy.heal();
            proxy.sever();
        };
        let (write, ()) = tokio::join!(write, broken);
        let write = write.unwrap();
        assert_eq!((write.outcome, write.revision), (ApplyOutcome::Changed, seen));
        last = seen;
    }
    proxy.add(Rule::all(Action::Delay(TIMEOUT)));
    let what = named("a");
    let delete = store.delete(&what, Precondition::Is(last));
    let mut seen = Revision(0);
    let broken = async {
        seen = next_change(&mut watch).await.revision();
        proxy.heal();
        proxy.sever();
    };
    let (delete, ()) = tokio::join!(delete, broken);
    assert_eq!(delete.unwrap(), Some(seen));
}

/// Others replace the resource again and again before the writer learns what became of its request.
#[tokio::test]
async fn a_write_of_which_the_answer_is_lost_is_found_below_those_of_others() {
    let Some(cluster) = Cluster::three() else { return };
    let other = cluster.store();
    other.stats().await.unwrap();
    let (proxy, config) = behind_a_proxy(&cluster, 0).await;
    let store = EtcdStore::new(config).unwrap();
    let what = named("a");
    let mut last = store.apply(&what, json("0"), Precondition::None).await.unwrap().revision;
    let mut watch =
        other.watch(&Selector::all(), StoreWatchOptions::default().with_since(Since::After(last))).await.unwrap();
    let mut n = 0;
    let mut theirs = async || {
        n += 1;
        other.apply(&what, json(format!("\"theirs {n}\"")), Precondition::None).await.unwrap().revision
    };
    // It landed.
    for round in 0..3 {
        proxy.add(Rule::all(Action::Delay(TIMEOUT)));
        let write = store.apply(&what, json(format!("\"ours {round}\"")), Precondition::Is(last));
        let mut seen = Revision(0);
        let replaced = async {
            seen = next_change(&mut watch).await.revision();
            for _ in 0..=round * 2 {
                last = theirs().await;
            }
            proxy.heal();
            proxy.sever();
        };
        let (write, ()) = tokio::join!(write, replaced);
        let write = write.unwrap();
        assert_eq!((write.outcome, write.revision), (ApplyOutcome::Changed, seen), "round {round}");
        while next_change(&mut watch).await.revision() < last {}
        // A revision that the writer knows is that of others by now.
        assert_eq!(store.get(&what, None).await.unwrap().unwrap().revision, last);
    }
    // It did not, since it was made for what others have replaced.
    for _ in 0..3 {
        theirs().await;
    }
    let taken = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\",\
                 grpc_type=\"unary\"} ";
    let before = cluster.metric(taken).await;
    proxy.add(Rule::all(Action::Delay(TIMEOUT)));
    let write = store.apply(&what, json("\"ours\""), Precondition::None);
    let answered = async {
        soon("an answer of the member", async {
            while cluster.metric(taken).await == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        proxy.heal();
        proxy.sever();
    };
    let (write, ()) = tokio::join!(write, answered);
    let write = write.unwrap();
    assert_eq!(write.outcome, ApplyOutcome::Changed);
    let there = other.get(&what, None).await.unwrap().unwrap();
    assert_eq!((there.revision, &there.document), (write.revision, &json("\"ours\"")));
}

#[tokio::test]
async fn a_create_of_which_the_answer_is_lost_does_not_bring_back_what_others_deleted() {
    let Some(cluster) = Cluster::three() else { return };
    let other = cluster.store();
    other.stats().await.unwrap();
    let (proxy, config) = behind_a_proxy(&cluster, 0).await;
    let store = EtcdStore::new(config).unwrap();
    store.apply(&named("first"), json("0"), Precondition::None).await.unwrap();
    let mut watch = other.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut watch).await;
    // Others act before the creator gets its answer: they delete it; replace and delete it; delete it, and create their own.
    for (n, others) in ["delete", "replace", "create"].into_iter().enumerate() {
        let what = named(&format!("a{n}"));
        proxy.add(Rule::all(Action::Delay(TIMEOUT)));
        let write = store.apply(&what, json("\"ours\""), Precondition::None);
        let mut seen = Revision(0);
        let broken = async {
            seen = next_change(&mut watch).await.revision();
            if others == "replace" {
                other.apply(&what, json("\"theirs\""), Precondition::Is(seen)).await.unwrap();
            }
            assert!(other.delete(&what, Precondition::None).await.unwrap().is_some());
            if others == "create" {
                other.apply(&what, json("\"theirs\""), Precondition::Absent).await.unwrap();
            }
            proxy.heal();
            proxy.sever();
        };
        let (write, ()) = tokio::join!(write, broken);
        let write = write.unwrap();
        assert_eq!((write.outcome, write.revision), (ApplyOutcome::Created, seen), "{others}");
        let left = other.get(&what, None).await.unwrap();
        let theirs = (others == "create").then(|| json("\"theirs\""));
        assert_eq!(left.as_ref().map(|there| &there.document), theirs.as_ref(), "{others}");
        let end = other.apply(&named("mark"), json(n.to_string()), Precondition::None).await.unwrap().revision;
        let mut changes = Vec::new();
        loop {
            let event = next_change(&mut watch).await;
            if event.revision() == end {
                break;
            }
            changes.push(event);
        }
        let ours = changes.iter().filter(|event| match event {
            StoreEvent::Added(one) | StoreEvent::Modified(one) => one.document == json("\"ours\""),
            _ => false,
        });
        assert_eq!(ours.count(), 0, "{others}: it is written once: {changes:?}");
    }
}

#[tokio::test]
async fn a_create_that_a_member_takes_late_does_not_land_any_more() {
    let Some(mut cluster) = Cluster::three() else { return };
    let other = cluster.store();
    other.stats().await.unwrap();
    let leader = cluster.leader().await;
    let slow = (leader + 1) % 3;
    let store = EtcdStore::new(beginning_with(&cluster, slow).with_request_timeout(Duration::from_secs(24))).unwrap();
    for n in 0..4 {
        let what = named(&format!("a{n}"));
        // The store is connected to the member that stands still next, which then has the request and does not read it.
        store.stats().await.unwrap();
        cluster.pause(slow);
        let made = store.apply(&what, json("1"), Precondition::None).await.unwrap();
        assert_eq!(made.outcome, ApplyOutcome::Created);
        assert!(other.delete(&what, Precondition::Is(made.revision)).await.unwrap().is_some());
        cluster.go_on(slow);
        // The member answers, so it has read what was sent to it before.
        let theirs = patient(Config::default().with_endpoints([cluster.endpoints()[slow].clone()]));
        let theirs = EtcdStore::new(theirs).unwrap();
        theirs.apply(&named("mark"), json(n.to_string()), Precondition::None).await.unwrap();
        assert_eq!(other.get(&what, None).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_whose_link_is_cut_goes_on_without_loss_or_repetition() {
    const ROUNDS: usize = 24;
    const WRITES: usize = 20;
    let Some(cluster) = Cluster::three() else { return };
    let writer = cluster.store();
    writer.stats().await.unwrap();
    let (proxy, config) = behind_a_proxy(&cluster, 1).await;
    let store = EtcdStore::new(config).unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut stream).await;
    let (mut written, mut seen) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let dials = proxy.dials().len();
        let some_more = async {
            for n in round * WRITES..(round + 1) * WRITES {
                let what = named(&format!("n{}", n % 7));
                written.extend(match n % 3 {
                    2 => writer.delete(&what, Precondition::None).await.unwrap(),
                    _ => Some(writer.apply(&what, json(n.to_string()), Precondition::None).await.unwrap().revision),
                });
            }
        };
        // While they are written, some of them already delivered and some not.
        let cut = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match round % 3 {
                0 => proxy.sever(),
                // In the middle of a message, more often than not.
                1 => proxy.add(Rule::all(Action::Cut(97)).existing_only()),
                _ => {
                    proxy.add(Rule::all(Action::Refuse));
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
            }
        };
        tokio::join!(some_more, cut);
        proxy.heal();
        proxy.sever();
        while seen.last() != written.last() {
            seen.push(next_change(&mut stream).await.revision());
        }
        // All may have arrived before the link was cut.
        soon("another link", async {
            while proxy.dials().len() == dials {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert_eq!(seen, written);
}

#[tokio::test]
async fn a_watch_whose_link_is_half_open_is_replaced() {
    let Some(cluster) = Cluster::three() else { return };
    let writer = cluster.store();
    writer.stats().await.unwrap();
    let (proxy, config) = behind_a_proxy(&cluster, 2).await;
    // The watch is opened once more on the link that is half open, and again when that call has had its time.
    let config = config.with_max_silence(Duration::from_millis(900)).with_request_timeout(Duration::from_secs(12));
    let store = EtcdStore::new(config).unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut stream).await;
    let a = writer.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    assert_eq!(next_change(&mut stream).await.revision(), a);
    // Open links get nothing any more, without an error; new links work.
    proxy.add(Rule::all(Action::Swallow).existing_only());
    let b = writer.apply(&named("b"), json("1"), Precondition::None).await.unwrap().revision;
    let begin = Instant::now();
    assert_eq!(next_change(&mut stream).await.revision(), b);
    // By default the silence alone is noticed later.
    assert!(begin.elapsed() < Config::default().max_silence, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_quiet_link_that_is_well_is_left_alone() {
    const SILENCE: Duration = Duration::from_secs(7);
    let Some(cluster) = Cluster::three() else { return };
    let writer = cluster.store();
    writer.stats().await.unwrap();
    let (proxy, config) = behind_a_proxy(&cluster, 0).await;
    let store = EtcdStore::new(config.with_max_silence(SILENCE)).unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut stream).await;
    // A link that is not left alone is dialled again each time. A member on a busy machine is silent once.
    let mut windows = 0..6;
    loop {
        assert!(windows.next().is_some(), "it was dialled again each time, and nothing was wrong");
        let dials = proxy.dials().len();
        tokio::time::sleep(SILENCE * 2 + Duration::from_secs(2)).await;
        if proxy.dials().len() == dials {
            break;
        }
    }
    let a = writer.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    assert_eq!(next_change(&mut stream).await.revision(), a);
}

#[tokio::test]
async fn a_watch_leaves_a_member_that_is_cut_off_from_the_others_or_dies() {
    let Some(mut cluster) = Cluster::three() else { return };
    let writer = cluster.store();
    writer.stats().await.unwrap();
    let mut last = writer.apply(&named("a"), json("0"), Precondition::None).await.unwrap().revision;
    let config = cluster.config().with_max_silence(Duration::from_secs(2));
    let store = EtcdStore::new(config).unwrap();
    let mut stream =
        store.watch(&Selector::all(), StoreWatchOptions::default().with_since(Since::After(last))).await.unwrap();
    for at in 0..3 {
        cluster.kill(at);
        last = writer.apply(&named("a"), json(format!("killed {at}")), Precondition::None).await.unwrap().revision;
        assert_eq!(next_change(&mut stream).await.revision(), last);
        cluster.run(at);
        cluster.raw(at).await;
        cluster.pause(at);
        last = writer.apply(&named("a"), json(format!("paused {at}")), Precondition::None).await.unwrap().revision;
        assert_eq!(next_change(&mut stream).await.revision(), last);
        cluster.go_on(at);
        cluster.raw(at).await;
    }
}

#[tokio::test]
async fn all_members_killed_and_restarted_have_all_that_was_acknowledged() {
    let Some(mut cluster) = Cluster::three() else { return };
    let store = EtcdStore::new(cluster.config().with_request_timeout(TIMEOUT)).unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    next(&mut stream).await;
    let mut written = Vec::new();
    for n in 0..100 {
        written
            .push(store.apply(&named(&format!("n{n:03}")), json("{}"), Precondition::Absent).await.unwrap().revision);
    }
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        cluster.run(at);
    }
    let page = store.list(&Selector::all(), PageOptions::default()).await.unwrap();
    assert!(page.items.iter().map(|item| item.revision).eq(written.iter().copied()));
    for revision in written {
        assert_eq!(next_change(&mut stream).await.revision(), revision);
    }
}
