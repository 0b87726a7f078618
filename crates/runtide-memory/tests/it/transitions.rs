//! `transitions()` on the whole backend, and the same call of a journal over restarts of the process.

use std::{path::Path, sync::Arc, time::Duration};

use runtide_core::{
    Change, Completeness, Freshness, Gap, RuntimeBackend, RuntimeBackendExt, TransitionStream, WatchOptions,
};
use runtide_journal::{JournalOptions, RuntimeJournal};
use runtide_memory::{Config, MemoryBackend, MemoryRuntime, Reboot, RuntimeOptions};

fn on(runtime: &MemoryRuntime) -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new(Config::default(), runtime.clone()).unwrap())
}

fn runtime() -> MemoryRuntime {
    MemoryRuntime::with_options(RuntimeOptions::deterministic(0))
}

fn freshness(changes: &TransitionStream) -> Option<Freshness> {
    changes.table().position(&"memory:local".into()).map(|(_, fresh)| fresh)
}

/// The lines until none came for two minutes; updates of single fields are left out.
async fn lines(changes: &mut TransitionStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(change)) = tokio::time::timeout(Duration::from_secs(120), changes.next()).await {
        let change = change.unwrap();
        let same = |step: &runtide_core::Transition| match (&step.before, &step.after) {
            (Some(before), Some(after)) => before.state == after.state,
            _ => false,
        };
        if !change.step().is_some_and(same) {
            lines.push(change.to_string());
        }
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn empty_and_unreachable_are_two_first_items() {
    let empty = runtime();
    let backend = on(&empty);
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    assert_eq!(
        changes.next().await.unwrap().unwrap(),
        Change::Synced { gap: Some(Gap::Initial), completeness: Completeness::Complete }
    );
    assert_eq!((changes.table().len(), freshness(&changes)), (0, Some(Freshness::Live)));

    let down = runtime();
    down.go_down();
    let backend = on(&down);
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let first = changes.next().await.unwrap().unwrap();
    assert!(matches!(first, Change::Offline { cause: Some(_) }), "{first:?}");
    assert_eq!((changes.table().len(), freshness(&changes)), (0, Some(Freshness::Stale)));
    down.come_up(Reboot::default());
    let seen = lines(&mut changes).await;
    assert_eq!(seen, ["! online: a comparison follows", "= complete (the watch begins)"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_between_offline_and_synced() {
    let runtime = runtime();
    let backend = on(&runtime);
    let web = runtime.run("web").unwrap();
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    lines(&mut changes).await;
    runtime.go_down();
    let offline = lines(&mut changes).await;
    assert!(offline.len() == 1 && offline[0].starts_with("! offline: "), "{offline:?}");
    assert_eq!((changes.table().len(), freshness(&changes)), (1, Some(Freshness::Stale)), "as of before the outage");
    runtime.come_up(Reboot::default());
    runtime.remove(&web).unwrap();
    let back = lines(&mut changes).await;
    assert_eq!(back.first().unwrap(), "! online: a comparison follows");
    assert!(back[1].starts_with("- web is gone (by comparison: "), "{back:?}");
    assert!(back[2].starts_with("= complete ("), "{back:?}");
    assert_eq!((back.len(), freshness(&changes)), (3, Some(Freshness::Live)));
}

#[tokio::test(start_paused = true)]
async fn a_journal_goes_on_with_the_steps_since_the_last_process() {
    let temporary = tempfile::tempdir().unwrap();
    let open = |dir: &Path| RuntimeJournal::open(dir, JournalOptions::default()).unwrap();
    let runtime = runtime();
    let web = runtime.run("web").unwrap();
    runtime.run("db").unwrap();

    let first = open(temporary.path());
    let mut changes = first.transitions(on(&runtime), WatchOptions::default()).await.unwrap();
    let seen = lines(&mut changes).await;
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[2].starts_with("= complete (the watch begins)"), "{seen:?}");
    drop((changes, first));

    // The runtime remembers: each step comes as it was, and none that the first process had.
    runtime.stop(&web).unwrap();
    let second = open(temporary.path());
    let mut changes = second.transitions(on(&runtime), WatchOptions::default()).await.unwrap();
    assert_eq!((changes.table().len(), freshness(&changes)), (2, Some(Freshness::Stale)), "as of the last process");
    let seen = lines(&mut changes).await;
    let expected = ["! online: the missed steps follow", "~ web is stopped", "= complete (nothing was missed)"];
    assert_eq!(seen, expected);
    assert_eq!(freshness(&changes), Some(Freshness::Live));
    drop((changes, second));

    // The runtime is down when the third process begins, and has forgotten when it is back.
    runtime.go_down();
    let third = open(temporary.path());
    let mut changes = third.transitions(on(&runtime), WatchOptions::default()).await.unwrap();
    let first = changes.next().await.unwrap().unwrap();
    assert!(matches!(first, Change::Offline { .. }), "{first:?}");
    assert_eq!(changes.table().len(), 2);
    runtime.come_up(Reboot::default());
    runtime.remove(&web).unwrap();
    let seen = lines(&mut changes).await;
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[1].starts_with("- web is gone (by comparison: "), "{seen:?}");
    assert!(seen[2].starts_with("= complete ("), "{seen:?}");
    drop((changes, third));

    // A filter leaves out what it does not match, and calls none of it gone.
    let fourth = open(temporary.path());
    let web =
        WatchOptions::default().with_filter(runtide_core::InstanceFilter::default().with_names(["web".to_owned()]));
    let mut changes = fourth.transitions(on(&runtime), web).await.unwrap();
    assert!(changes.table().is_empty());
    runtime.lose_history();
    runtime.sever();
    let seen = lines(&mut changes).await;
    assert!(seen.iter().all(|line| !line.contains("gone")), "{seen:?}");
    assert!(seen.last().unwrap().starts_with("= complete ("), "{seen:?}");
    drop((changes, fourth));

    // Nor is one gone that ceased to match in a gap.
    let fifth = open(temporary.path());
    let running = runtide_core::InstanceFilter::default().with_states([runtide_core::InstanceState::Running]);
    let options = WatchOptions::default().with_filter(running);
    let mut changes = fifth.transitions(on(&runtime), options).await.unwrap();
    lines(&mut changes).await;
    let held = changes.table().iter().next().unwrap().id.clone();
    runtime.go_down();
    runtime.come_up(Reboot::default());
    runtime.stop(&held).unwrap();
    let seen = lines(&mut changes).await;
    assert!(seen.iter().any(|line| line.starts_with("~ db is stopped (by comparison: ")), "{seen:?}");
    assert!(changes.table().get(&"memory:local".into(), &held).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_journal_keeps_what_its_table_lacks_over_restarts_of_the_process() {
    for checkpoint_every in [1, 1_000] {
        let temporary = tempfile::tempdir().unwrap();
        let runtime = runtime();
        runtime.run("web").unwrap();
        let db = runtime.run("db").unwrap();
        let open = || {
            let options = JournalOptions::default().with_checkpoint_every(std::num::NonZeroU64::new(checkpoint_every));
            RuntimeJournal::open(temporary.path(), options).unwrap()
        };
        let watched = async |journal: &RuntimeJournal| {
            lines(&mut journal.transitions(on(&runtime), WatchOptions::default()).await.unwrap()).await
        };
        runtime.faults(|faults| faults.bad_items.insert(db.clone()));
        let seen = watched(&open()).await;
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[1].starts_with("= partial (the watch begins), not read: "), "{seen:?}");

        let journal = open();
        assert_eq!(journal.table().completeness(&"memory:local".into()).failures().len(), 1);
        let seen = watched(&journal).await;
        assert!(seen[0].starts_with("! online") && seen[1].starts_with("= partial (nothing was missed)"), "{seen:?}");
        assert_eq!(seen.len(), 2, "{seen:?}");
        drop(journal);

        runtime.heal();
        let seen = watched(&open()).await;
        let expected = ["+ db is running (by comparison: a listing was partial)", "= complete (a listing was partial)"];
        assert_eq!(seen[2..], expected, "{seen:?}");
        assert!(open().table().completeness(&"memory:local".into()).is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_goes_on_in_the_ring_says_the_state_of_the_link_first() {
    let temporary = tempfile::tempdir().unwrap();
    let journal = RuntimeJournal::open(temporary.path(), JournalOptions::default()).unwrap();
    let runtime = runtime();
    runtime.run("web").unwrap();
    let backend = on(&runtime);
    let _keeps_the_run_alive = backend.watch(WatchOptions::default()).await.unwrap();
    let mut changes = journal.transitions(backend.clone(), WatchOptions::default()).await.unwrap();
    lines(&mut changes).await;
    drop(changes);
    let mut changes = journal.transitions(backend.clone(), WatchOptions::default()).await.unwrap();
    assert_eq!((changes.table().len(), freshness(&changes)), (1, Some(Freshness::Live)));
    assert_eq!(lines(&mut changes).await, ["= complete (nothing was missed)"]);
    drop(changes);
    runtime.go_down();
    let mut changes = journal.transitions(backend, WatchOptions::default()).await.unwrap();
    let seen = lines(&mut changes).await;
    assert!(seen.last().unwrap().starts_with("! offline: "), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_says_whether_the_state_or_the_runtime_did_not_come() {
    let runtime = runtime();
    let backend = on(&runtime);
    let web = runtime.run("web").unwrap();
    let waited = async |backend: &MemoryBackend| {
        let deadline = Duration::from_secs(5);
        backend.wait_for(&web, |now| now.state == runtide_core::InstanceState::Paused, deadline).await.unwrap_err()
    };
    let error = waited(&backend).await;
    assert_eq!(error.kind(), runtide_core::ErrorKind::Timeout);
    assert!(!error.to_string().contains("reachable"), "{error}");
    runtime.go_down();
    let error = waited(&on(&runtime)).await;
    assert_eq!(error.kind(), runtide_core::ErrorKind::Timeout);
    assert!(error.to_string().contains("the runtime is not reachable: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_closed_ends_the_steps_with_an_error() {
    let backend = on(&runtime());
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    changes.next().await.unwrap().unwrap();
    backend.close().await.unwrap();
    let last = changes.next().await.unwrap().unwrap_err();
    assert_eq!(last.kind(), runtide_core::ErrorKind::Cancelled);
    assert!(changes.next().await.is_none());
}
