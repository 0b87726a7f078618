//! Podman replaces its file of events once it is full, and keeps the newer half: no event is lost by that.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use runtide_core::{RuntimeBackend, RuntimeEventKind as Kind, WatchOptions};

use crate::bench::Bench;

/// The size at which the testbed's Podman replaces the file.
const FULL: u64 = 262_144;

/// Pauses, each of which is an event and has its opposite.
const PAUSES: usize = 40;

/// The file of events of the testbed's Podman.
fn log() -> PathBuf {
    let folder = std::env::var("RUNTIDE_TEST_PODMAN_DIR").expect("the testbed says where its Podman is");
    Path::new(&folder).join("tmp/events/events.log")
}

/// Fills the file with events of images, which no watch asks for, up to this many bytes below its limit.
fn fill(room: u64) {
    let path = log();
    let size = std::fs::metadata(&path).unwrap().len();
    let filler = format!(
        "{{\"ID\":\"{:064}\",\"Image\":\"\",\"Name\":\"filler\",\"Status\":\"pull\",\"Time\":\"2026-01-01T00:00:00Z\",\"Type\":\"image\"}}\n",
        0
    );
    let lines = (FULL - room).saturating_sub(size) / u64::try_from(filler.len()).unwrap();
    let text = filler.repeat(usize::try_from(lines).unwrap());
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[cfg(unix)]
fn inode() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(log()).unwrap().ino()
}

#[tokio::test]
async fn a_log_that_podman_replaces_under_the_watch_costs_no_event_and_no_resync() {
    let Some(bench) = Bench::alone("rotation").await else { return };
    let id = bench.run("busy", "sleep 100000").await;
    // Before the first message of a watch, and in the middle of it.
    for room in [0, 5_000] {
        let mut events = bench.backend.watch(WatchOptions::default()).await.unwrap();
        let next = async |events: &mut runtide_core::EventStream| {
            let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
            next.expect("nothing comes any more").unwrap().unwrap()
        };
        while !matches!(next(&mut events).await.kind, Kind::ResyncEnd { .. }) {}
        fill(room);
        let before = inode();
        for _ in 0..PAUSES {
            bench.lifecycle().pause(&id).await.unwrap();
            bench.lifecycle().unpause(&id).await.unwrap();
        }
        assert_ne!(inode(), before, "it was not replaced");
        bench.lifecycle().rename(&id, &format!("{}-renamed-{room}", bench.prefix)).await.unwrap();
        let mut changes = 0;
        loop {
            let event = next(&mut events).await;
            assert!(!matches!(event.kind, Kind::ResyncBegin { .. }), "a gap after {changes} changes: {event:?}");
            let Some(instance) = event.kind.instance().filter(|instance| instance.id == id) else { continue };
            if instance.name.contains(&format!("renamed-{room}")) {
                break;
            }
            changes += 1;
        }
        assert!(changes >= 2 * PAUSES, "{changes} of {}", 2 * PAUSES);
    }
    bench.clear().await;
}
