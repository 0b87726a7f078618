//! Tests of the verbs on units.

use super::*;

#[tokio::test]
async fn a_wait_returns_the_exit() {
    let Some(fixture) = fixture("wait").await else { return };
    for (script, expected) in [
        ("sleep 0.2", ExitStatus::code(0)),
        ("sleep 0.2; exit 7", ExitStatus::code(7)),
        ("sleep 0.2; kill -9 $$", ExitStatus::signal(UnixSignal::KILL)),
        ("sleep 0.2; exit 137", ExitStatus::code(137)),
    ] {
        let id = fixture.started(shell(script)).await;
        assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(expected), "{script}");
        assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(expected), "{script}, again");
    }
    let mut again = shell("sleep 0.2; exit 5");
    again.restart = RestartPolicy::Always;
    let id = fixture.started(again).await;
    assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(5)));
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    fixture.end().await;
}

#[tokio::test]
async fn a_wait_outlasts_reloads_and_sees_the_end_of_a_removed_unit() {
    let Some(fixture) = disturbing("waitlong").await else { return };
    let end = format!("vb-waitlong-{}-end", std::process::id());
    let id = fixture.started(until_there(&end, 4)).await;
    let (exit, ()) = tokio::join!(within(fixture.verbs.wait(&id)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        fixture.tell("Reload").await;
        fixture.tell("Reexecute").await;
        std::fs::write(fixture.run(&end), "").unwrap();
    });
    assert_eq!(exit.unwrap(), Some(ExitStatus::code(4)));
    std::fs::remove_file(fixture.run(&end)).unwrap();
    // That a wait has begun cannot be seen from outside: on a busy machine it may come after the removal.
    for begun in [200, 2_000, 20_000].map(Duration::from_millis) {
        let id = fixture.started(spec(&["sleep", "1000"])).await;
        let (exit, removed) = tokio::join!(within(fixture.verbs.wait(&id)), async {
            tokio::time::sleep(begun).await;
            fixture.verbs.remove(&id, RemoveOptions::default().with_kill()).await
        });
        assert_eq!(removed.unwrap(), Effect::Changed);
        match exit {
            Err(late) if late.kind() == ErrorKind::NotFound => {}
            exit => {
                assert_eq!(exit.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
                return fixture.end().await;
            }
        }
    }
    panic!("no wait reported the end");
}

#[tokio::test]
async fn a_stop_ends_the_unit_within_its_timeout() {
    let Some(fixture) = fixture("stop").await else { return };
    let deaf = "trap '' TERM; trap 'exit 9' USR1";
    let id = fixture.trapping(deaf, RestartPolicy::No).await;
    assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Unchanged);
    let stopped = fixture.verbs.stop(&id, StopOptions::default().with_timeout(Duration::from_millis(300))).await;
    assert_eq!(stopped.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.wait(&id).await.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    for (signal, timeout, exit) in [
        (UnixSignal::USR1, Duration::from_secs(60), ExitStatus::code(9)),
        (UnixSignal::TERM, Duration::from_secs(1), ExitStatus::signal(UnixSignal::KILL)),
    ] {
        let id = fixture.trapping(deaf, RestartPolicy::Always).await;
        let options = StopOptions::default().with_signal(signal).with_timeout(timeout);
        let (ended, stopped) = tokio::join!(within(fixture.verbs.wait(&id)), fixture.verbs.stop(&id, options));
        assert_eq!((ended.unwrap(), stopped.unwrap()), (Some(exit), Effect::Changed));
        assert!(fixture.seen(&id).await.rests());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(fixture.seen(&id).await.rests());
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_restart_begins_another_run() {
    let Some(fixture) = fixture("restart").await else { return };
    let id = fixture.started(spec(&["sleep", "1000"])).await;
    let first = fixture.seen(&id).await.run();
    fixture.verbs.restart(&id, StopOptions::default()).await.unwrap();
    let second = fixture.seen(&id).await;
    assert!(second.is_up() && second.run() != first);
    fixture.verbs.restart(&id, StopOptions::default().with_signal(UnixSignal::KILL)).await.unwrap();
    let third = fixture.seen(&id).await;
    assert!(third.is_up() && third.run() != second.run());
    let _ = fixture.verbs.stop(&id, StopOptions::default()).await.unwrap();
    fixture.verbs.restart(&id, StopOptions::default()).await.unwrap();
    assert!(fixture.seen(&id).await.is_up());
    fixture.end().await;
}

#[tokio::test]
async fn a_pause_freezes_and_does_not_outlast_the_run() {
    let Some(fixture) = fixture("pause").await else { return };
    let id = fixture.started(spec(&["sleep", "1000"])).await;
    assert_eq!(fixture.verbs.unpause(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(fixture.verbs.pause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.pause(&id).await.unwrap(), Effect::Unchanged);
    assert!(fixture.seen(&id).await.is_frozen());
    assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(fixture.verbs.unpause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.unpause(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(fixture.verbs.pause(&id).await.unwrap(), Effect::Changed);
    fixture.verbs.kill(&id, UnixSignal::KILL).await.unwrap();
    assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
    assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Changed);
    assert!(!fixture.seen(&id).await.is_frozen());
    assert_eq!(fixture.verbs.pause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.pause(&id).await.unwrap(), Effect::Changed);
    let stopped = fixture.verbs.stop(&id, StopOptions::default().with_signal(UnixSignal::TERM)).await;
    assert_eq!(stopped.unwrap(), Effect::Changed);
    fixture.end().await;
}

#[tokio::test]
async fn a_running_unit_is_removed_only_with_kill() {
    let Some(fixture) = fixture("remove").await else { return };
    let mut always = spec(&["sleep", "1000"]);
    always.restart = RestartPolicy::Always;
    let id = fixture.started(always).await;
    assert_eq!(kind(fixture.verbs.remove(&id, RemoveOptions::default()).await), ErrorKind::Conflict);
    assert!(fixture.seen(&id).await.is_up());
    assert_eq!(fixture.verbs.remove(&id, RemoveOptions::default().with_kill()).await.unwrap(), Effect::Changed);
    assert!(fixture.look(&id).await.is_none());
    let journald = InstanceId::from("systemd-journald.service");
    assert_eq!(kind(fixture.verbs.remove(&journald, RemoveOptions::default()).await), ErrorKind::Unsupported);
    fixture.end().await;
}

#[tokio::test]
async fn attempts_are_counted_and_cleared_by_a_start() {
    let Some(fixture) = fixture("attempts").await else { return };
    let file = format!("vb-attempts-{}", std::process::id());
    let mut spec = shell(&format!("echo x >> /run/{file}; exit 1"));
    spec.restart = RestartPolicy::OnFailure { attempts: Some(2) };
    let id = fixture.make(spec).await;
    let mut counted = 0;
    while counted < 2 {
        let loaded = fixture.units_loaded().await;
        let _ = fixture.verbs.start(&id).await.unwrap();
        within(async {
            while !fixture.seen(&id).await.rests() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let attempts = fixture.content(&file).await.lines().count();
        // systemd begins to count again at a daemon-reload, and other tests reload.
        if fixture.units_loaded().await == loaded {
            assert_eq!(attempts, 3);
            counted += 1;
        } else {
            assert!(attempts >= 3, "{attempts} attempts");
        }
    }
    fixture.end().await;
}

/// systemd restarts a unit that failed: at the end of the start's job the next run may be under way.
#[tokio::test]
async fn a_start_reports_its_own_run_and_not_the_next() {
    let Some(fixture) = fixture("own").await else { return };
    for n in 0..20 {
        // The start of a program that fails before it is ready fails, for systemd; its second run never becomes ready.
        let ran = format!("vb-own-{}-{n}", std::process::id());
        let mut spec = shell(&format!("[ -e /run/{ran} ] && exec sleep 1000; touch /run/{ran}; exit 1"));
        spec.native.insert("Type".into(), "notify".into());
        spec.native.insert("RestartSec".into(), "0".into());
        spec.restart = RestartPolicy::OnFailure { attempts: Some(3) };
        let id = fixture.make(spec.clone()).await;
        assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Changed);
        assert!(fixture.run(&ran).exists(), "it ran");

        spec.command = vec!["/no/such/program".to_owned()];
        let id = fixture.make(spec).await;
        let error = fixture.verbs.start(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let context: Vec<String> = error.context().iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert!(context.contains(&"exit=203".to_owned()), "{context:?}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_start_continues_over_a_reexecution() {
    let Some(fixture) = disturbing("reexec").await else { return };
    let mut slow = spec(&["sleep", "1000"]);
    slow.entrypoint = None;
    let id = fixture.started(slow).await;
    let deaf = fixture.trapping("trap '' TERM", RestartPolicy::No).await;
    let (stopped, ()) = tokio::join!(
        fixture.verbs.stop(&deaf, StopOptions::default().with_timeout(Duration::from_millis(1500))),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fixture.tell("Reexecute").await;
        }
    );
    assert_eq!(stopped.unwrap(), Effect::Changed);
    assert!(fixture.seen(&deaf).await.rests());
    assert!(fixture.seen(&id).await.is_up());
    fixture.end().await;
}

#[tokio::test]
async fn units_with_files_and_those_of_others_are_served_too() {
    let Some(fixture) = fixture("disk").await else { return };
    let name = format!("vb-disk-{}.service", std::process::id());
    let path = fixture.root.join("run/systemd/system").join(&name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A run ends when this file is there.
    let end = format!("run/{name}.end");
    let script = format!("while [ ! -e /{end} ]; do sleep 0.05; done");
    std::fs::write(&path, format!("[Service]\nType=exec\nExecStart=/bin/sh -c '{script}'\n")).unwrap();
    let end = fixture.root.join(end);
    let id = InstanceId::from(name.clone());
    fixture.tell("Reload").await;
    let mut taken = spec(&["sleep", "1"]);
    taken.name = Some(name);
    assert_eq!(kind(fixture.maker.create(&taken).await), ErrorKind::AlreadyExists);
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    assert_eq!(kind(fixture.verbs.wait(&id).await), ErrorKind::Conflict);
    assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Changed);
    assert_eq!(kind(fixture.verbs.remove(&id, RemoveOptions::default().with_kill()).await), ErrorKind::Unsupported);
    // systemd unloads it the moment that it ended, unless a client holds it: so the wait may begin before or after that.
    fixture.client.manager("test", "RefUnit", &(id.as_str(),)).await.unwrap();
    let (exit, ()) = tokio::join!(within(fixture.verbs.wait(&id)), async { std::fs::write(&end, "").unwrap() });
    assert_eq!(exit.unwrap(), Some(ExitStatus::code(0)));
    fixture.client.manager("test", "UnrefUnit", &(id.as_str(),)).await.unwrap();
    std::fs::remove_file(&end).unwrap();
    fixture.verbs.restart(&id, StopOptions::default()).await.unwrap();
    fixture.verbs.restart(&id, StopOptions::default()).await.unwrap();
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    std::fs::remove_file(&path).unwrap();
    fixture.tell("Reload").await;
    assert_eq!(kind(fixture.verbs.start(&id).await), ErrorKind::NotFound);

    let other = InstanceId::from(format!("vb-other-{}.service", std::process::id()));
    let exec = vec![("/bin/sleep".to_owned(), vec!["sleep".to_owned(), "1000".to_owned()], false)];
    let settings = vec![("ExecStart", zbus::Variant::from(exec))];
    let none: Vec<(&str, Vec<(&str, zbus::Variant<'_>)>)> = Vec::new();
    let body = (other.as_str(), "fail", settings, none);
    fixture.client.manager("test", "StartTransientUnit", &body).await.unwrap();
    within(async {
        while !fixture.seen(&other).await.is_up() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let first = fixture.seen(&other).await.run();
    // Between its two runs only the verb holds it.
    fixture.verbs.restart(&other, StopOptions::default()).await.unwrap();
    let second = fixture.seen(&other).await;
    assert!(second.is_up() && second.run() != first);
    assert_eq!(fixture.verbs.remove(&other, RemoveOptions::default().with_kill()).await.unwrap(), Effect::Changed);
    assert!(fixture.look(&other).await.is_none());
    fixture.end().await;
}

/// A manager that is stopped, until this is dropped.
struct Stalled(String);

impl Stalled {
    /// `None`: the manager's process id is not known here.
    fn new(root: &std::path::Path) -> Option<Self> {
        let pid = root.to_str()?.strip_prefix("/proc/")?.strip_suffix("/root")?;
        let stalled = Self(pid.to_owned());
        stalled.send("-STOP").then_some(stalled)
    }

    fn send(&self, signal: &str) -> bool {
        std::process::Command::new("kill").args([signal, &self.0]).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.send("-CONT");
    }
}

#[tokio::test]
async fn a_manager_that_stalls_is_a_timeout() {
    let Some(fixture) = disturbing("stall").await else { return };
    let id = fixture.started(spec(&["sleep", "1000"])).await;
    let limit = Duration::from_millis(500);
    let config = fixture.client.config().clone().with_deadline(limit).with_job_deadline(limit);
    let client = Client::new(config).unwrap();
    let (verbs, maker) = (Lifecycle::new(client.clone()), Provision::new(client));
    {
        let Some(_stalled) = Stalled::new(&fixture.root) else { return fixture.end().await };
        // With the default deadlines, three of them would take as long.
        let began = std::time::Instant::now();
        for verb in [
            kind(verbs.start(&id).await),
            kind(verbs.stop(&id, StopOptions::default()).await),
            kind(verbs.kill(&id, UnixSignal::TERM).await),
            kind(verbs.restart(&id, StopOptions::default()).await),
            kind(verbs.pause(&id).await),
            kind(verbs.unpause(&id).await),
            kind(verbs.wait(&id).await),
            kind(verbs.remove(&id, RemoveOptions::default().with_kill()).await),
            kind(maker.create(&spec(&["sleep", "1"])).await),
        ] {
            assert_eq!(verb, ErrorKind::Timeout);
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    within(async {
        while fixture.verbs.start(&id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(fixture.seen(&id).await.is_up());
    fixture.end().await;
}
