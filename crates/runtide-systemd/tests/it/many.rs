//! The cost of a watch's start: calls and time up to the end of the first resync, on a machine with many units.
//!
//! With 200 of them by default; `RUNTIDE_MANY=5000 cargo test -p runtide-systemd --test it many:: -- --nocapture`.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use runtide_conformance::testbed::Turn;
use runtide_core::{ErrorKind, InstanceState, RuntimeBackend, RuntimeEventKind as Kind, WatchOptions};
use runtide_systemd::{Config, Selection, SystemdBackend};
use zbus::Variant;

use crate::{
    bus::Bus,
    machine::{self, Machine, Settings},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_begins_with_one_list_and_at_most_two_calls_for_each_unit() {
    let Ok(address) = std::env::var("RUNTIDE_TEST_SYSTEMD2") else {
        let why = "RUNTIDE_TEST_SYSTEMD2 is not set: cargo xtask testbed up systemd2";
        runtide_conformance::report::skip("many", "systemd", why);
        return;
    };
    let many: usize = std::env::var("RUNTIDE_MANY").ok().map_or(200, |text| text.parse().unwrap());
    let _turn = Turn::on("systemd2").await.unwrap();
    let machine = Arc::new(Machine::at(&address));
    let prefix = format!("my{:x}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() & 0xff_ffff_ffff);
    stream::iter(0..many)
        .for_each_concurrent(32, |number| {
            let (machine, unit) = (Arc::clone(&machine), format!("{prefix}-{number}.service"));
            async move {
                let exec = vec![("/bin/sleep".to_owned(), vec!["sleep".to_owned(), "100000".to_owned()], false)];
                let settings: Settings<'_> = vec![("ExecStart", Variant::from(exec))];
                let aux: Vec<(&str, Settings<'_>)> = Vec::new();
                machine.manager("StartTransientUnit", &(unit.as_str(), "fail", settings, aux)).await.unwrap();
                // systemd cannot take thousands of starts whose jobs no client awaits.
                let up = |seen: Option<&machine::Properties>| {
                    seen.is_some_and(|seen| machine::text(seen, "ActiveState") == "active")
                };
                machine.until(&unit, up).await.unwrap();
            }
        })
        .await;

    let folder = tempfile::tempdir().unwrap();
    let proxy = Bus::start(&folder.path().join("bus"), &machine.socket().unwrap()).unwrap();
    let config = Config::system()
        .with_address(format!("unix:path={}", folder.path().join("bus").display()))
        .with_root(std::env::var_os("RUNTIDE_TEST_SYSTEMD2_ROOT").map(PathBuf::from))
        .with_selection(Selection::default().with_pattern(format!("{prefix}*")));
    let backend = SystemdBackend::new(config.clone()).unwrap();
    let mut events = None;
    for (round, each) in [("the first listing", 2), ("a listing of known units", 1)] {
        let before: usize = proxy.calls().values().sum();
        let began = Instant::now();
        let events = match &mut events {
            None => events.insert(backend.watch(WatchOptions::default()).await.unwrap()),
            Some(events) => {
                machine.manager("Reload", &()).await.unwrap();
                events
            }
        };
        let mut present = 0;
        loop {
            match &events.next().await.unwrap().unwrap().kind {
                Kind::Present(instance) => {
                    assert_eq!(instance.state, InstanceState::Running);
                    assert!(instance.incarnation.is_some() && instance.group.is_some() && instance.labels.is_some());
                    present += 1;
                }
                Kind::ResyncEnd(_) => break,
                _ => {}
            }
        }
        let calls = proxy.calls().values().sum::<usize>() - before;
        println!("{round}: {present} units, {calls} calls, {:.2?} to ResyncEnd; {:?}", began.elapsed(), proxy.calls());
        assert_eq!(present, many);
        assert!(calls <= each * many + 12, "{round}: {calls} calls for {many} units: {:?}", proxy.calls());
    }
    backend.close().await.unwrap();
    // A manager that stalls during a listing fails it with the first inspection, not after each in its turn.
    let config = config.with_deadline(Duration::from_secs(5)).with_inspect_concurrency(NonZeroUsize::MIN);
    let backend = SystemdBackend::new(config).unwrap();
    proxy.break_with(|broken, _| broken.stall_at = Some("GetAll"));
    let listing = backend.list_instances(runtide_core::ListOptions::default());
    let listed = tokio::time::timeout(Duration::from_secs(60), listing).await.expect("one deadline");
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Timeout);
    proxy.heal();
    for number in 0..many {
        let _ = machine.manager("KillUnit", &(format!("{prefix}-{number}.service"), "all", 9_i32)).await;
        let _ = machine.manager("StopUnit", &(format!("{prefix}-{number}.service"), "replace")).await;
        let _ = machine.manager("ResetFailedUnit", &(format!("{prefix}-{number}.service"),)).await;
    }
}
