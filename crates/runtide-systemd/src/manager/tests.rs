//! The verbs, on a real manager.
//!
//! `RUNTIDE_TEST_SYSTEMD` is the address of its bus, `RUNTIDE_TEST_SYSTEMD_ROOT` where its file system is seen from here.
//! Without an address the tests say so and pass.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtide_core::{
    Effect, Error, ErrorKind, ExitStatus, InstanceId, InstanceSpec, Labels, LifecycleManager, Mount, MountSource,
    ProvisionManager, RemoveOptions, RestartPolicy, StopOptions, UnixSignal,
};

use super::{
    Lifecycle, Provision, holder, native,
    unit::{Call, Seen},
};
use crate::{client::Client, config::Config, labels, selection::Selection};

struct Bed {
    client: Client,
    verbs: Lifecycle,
    maker: Provision,
    root: PathBuf,
    made: Mutex<Vec<String>>,
    name: &'static str,
    /// Some of the tests have systemd execute itself anew, which the others would notice.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// A place for one test; `name` begins the names of its units.
fn bed(name: &'static str) -> Option<Bed> {
    let Ok(address) = std::env::var("RUNTIDE_TEST_SYSTEMD") else {
        runtide_conformance::report::skip("managers", "systemd", "RUNTIDE_TEST_SYSTEMD is not set");
        return None;
    };
    let root = PathBuf::from(std::env::var_os("RUNTIDE_TEST_SYSTEMD_ROOT").unwrap_or_else(|| "/".into()));
    let config = Config::system().with_address(address).with_root(root.clone()).with_selection(Selection::all());
    let client = Client::new(config.with_job_deadline(Duration::from_secs(20))).unwrap();
    Some(Bed {
        verbs: Lifecycle::new(client.clone()),
        maker: Provision::new(client.clone()),
        client,
        root,
        made: Mutex::default(),
        name,
        _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
    })
}

fn spec(words: &[&str]) -> InstanceSpec {
    let mut spec = InstanceSpec::default();
    spec.command = words.iter().map(ToString::to_string).collect();
    spec
}

fn shell(script: &str) -> InstanceSpec {
    spec(&["/bin/sh", "-c", script])
}

impl Bed {
    async fn make(&self, mut spec: InstanceSpec) -> InstanceId {
        let mut made = self.made.lock().unwrap().clone();
        let name = format!("vb-{}-{}-{}.service", self.name, std::process::id(), made.len());
        made.push(name.clone());
        *self.made.lock().unwrap() = made;
        spec.name = Some(name.clone());
        let id = self.maker.create(&spec).await.unwrap();
        assert_eq!(id.as_str(), name);
        id
    }

    async fn started(&self, spec: InstanceSpec) -> InstanceId {
        let id = self.make(spec).await;
        assert_eq!(self.verbs.start(&id).await.unwrap(), Effect::Changed);
        id
    }

    async fn look(&self, id: &InstanceId) -> Option<Seen> {
        Call { client: &self.client, operation: "test", unit: id.as_str() }.look_if_loaded().await.unwrap()
    }

    async fn seen(&self, id: &InstanceId) -> Seen {
        self.look(id).await.unwrap()
    }

    async fn tell(&self, method: &str) {
        let told = self.client.manager("test", method, &()).await;
        // systemd leaves the bus before it answers that it executes itself anew.
        assert!(told.is_ok() || method == "Reexecute", "{told:?}");
    }

    /// Waits until a file in `/run` is there, and takes its content.
    async fn content(&self, name: &str) -> String {
        let path = self.root.join("run").join(name);
        for _ in 0..2000 {
            if let Ok(text) = std::fs::read_to_string(&path)
                && !text.is_empty()
            {
                let _ = std::fs::remove_file(&path);
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} was not written");
    }

    async fn end(self) {
        let made = self.made.lock().unwrap().clone();
        for name in made {
            let id = InstanceId::from(name);
            let _ = self.verbs.remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
            assert!(self.look(&id).await.is_none());
            assert!(self.look(&InstanceId::from(holder::of(id.as_str()))).await.is_none());
        }
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), future).await.expect("in time")
}

#[tokio::test]
async fn what_is_created_is_there_until_it_is_removed() {
    let Some(bed) = bed("life") else { return };
    let mut spec = shell("exit 3");
    spec.labels = Labels::from_iter([("runtide.owner", "me"), ("a b", "x\"\n$;%")]);
    let id = bed.make(spec.clone()).await;
    let created = bed.seen(&id).await;
    assert_eq!((created.active(), created.life()), ("inactive", None));
    let environment = created.service.environment.unwrap();
    assert_eq!(labels::of_environment(environment.iter().map(String::as_str)), spec.labels);
    assert_eq!(kind(bed.verbs.wait(&id).await), ErrorKind::Conflict);
    assert_eq!(kind(bed.verbs.kill(&id, UnixSignal::TERM).await), ErrorKind::Conflict);
    assert_eq!(kind(bed.verbs.pause(&id).await), ErrorKind::Conflict);
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    spec.name = Some(id.as_str().to_owned());
    assert_eq!(kind(bed.maker.create(&spec).await), ErrorKind::AlreadyExists);
    let mut lives = Vec::new();
    for reload in [None, None, Some("Reload"), Some("Reexecute")] {
        if let Some(reload) = reload {
            bed.tell(reload).await;
        }
        let started = within(async {
            loop {
                match bed.verbs.start(&id).await {
                    // Nobody is systemd on the bus while it executes itself anew.
                    Err(error) if reload == Some("Reexecute") && error.kind() != ErrorKind::Conflict => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    started => return started,
                }
            }
        });
        assert_eq!(started.await.unwrap(), Effect::Changed);
        assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(3)));
        lives.push(bed.seen(&id).await.life().unwrap());
    }
    lives.dedup();
    assert_eq!(lives.len(), 4);
    assert_eq!(bed.verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Unchanged);
    for verb in [
        kind(bed.verbs.start(&id).await),
        kind(bed.verbs.stop(&id, StopOptions::default()).await),
        kind(bed.verbs.wait(&id).await),
        kind(bed.verbs.pause(&id).await),
        kind(bed.verbs.restart(&id, StopOptions::default()).await),
        kind(bed.verbs.kill(&id, UnixSignal::TERM).await),
    ] {
        assert_eq!(verb, ErrorKind::NotFound);
    }
    bed.end().await;
}

#[tokio::test]
async fn words_and_variables_arrive_as_they_are_also_after_a_reload() {
    let Some(bed) = bed("words") else { return };
    let nasty = "a;b $HOME ${HOME} $$ %n %% \"q\" 'q' \\x41 \\n\nnew\tline é \u{202e} \\; ; end\\";
    let file = format!("vb-words-{}", std::process::id());
    let script = format!("printf '%s|' \"$@\" \"$NASTY\" > /run/{file}.new; mv /run/{file}.new /run/{file}");
    let mut spec = spec(&["/bin/sh", "-c", &script, "sh", nasty, "", ";", "$", nasty]);
    spec.env.insert("NASTY".into(), nasty.into());
    let id = bed.make(spec).await;
    for reload in [false, true] {
        if reload {
            bed.tell("Reload").await;
        }
        assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Changed);
        assert_eq!(bed.content(&file).await, format!("{nasty}||;|$|{nasty}|{nasty}|"));
        let _ = bed.verbs.wait(&id).await.unwrap();
    }
    bed.end().await;
}

#[tokio::test]
async fn a_large_environment_arrives() {
    let Some(bed) = bed("large") else { return };
    let file = format!("vb-large-{}", std::process::id());
    let mut spec = shell(&format!("printf %s \"$A\" | wc -c > /run/{file}"));
    spec.env.insert("A".into(), "é".repeat(32 * 1024));
    let id = bed.make(spec).await;
    bed.tell("Reload").await;
    let _ = bed.verbs.start(&id).await.unwrap();
    assert_eq!(bed.content(&file).await.trim(), "65536");
    bed.end().await;
}

#[tokio::test]
async fn waits_give_the_true_end() {
    let Some(bed) = bed("wait") else { return };
    for (script, expected) in [
        ("sleep 0.2", ExitStatus::code(0)),
        ("sleep 0.2; exit 7", ExitStatus::code(7)),
        ("sleep 0.2; kill -9 $$", ExitStatus::signal(UnixSignal::KILL)),
        ("sleep 0.2; exit 137", ExitStatus::code(137)),
    ] {
        let id = bed.started(shell(script)).await;
        assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(expected), "{script}");
        assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(expected), "{script}, again");
    }
    let mut again = shell("sleep 0.2; exit 5");
    again.restart = RestartPolicy::Always;
    let id = bed.started(again).await;
    assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(5)));
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    bed.end().await;
}

#[tokio::test]
async fn a_wait_outlives_reloads_and_sees_the_end_of_what_is_removed() {
    let Some(bed) = bed("waitlong") else { return };
    let id = bed.started(shell("sleep 2; exit 4")).await;
    let (exit, ()) = tokio::join!(within(bed.verbs.wait(&id)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bed.tell("Reload").await;
        bed.tell("Reexecute").await;
    });
    assert_eq!(exit.unwrap(), Some(ExitStatus::code(4)));
    let id = bed.started(spec(&["sleep", "1000"])).await;
    let (exit, removed) = tokio::join!(within(bed.verbs.wait(&id)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bed.verbs.remove(&id, RemoveOptions::default().with_kill()).await
    });
    assert_eq!(exit.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
    assert_eq!(removed.unwrap(), Effect::Changed);
    bed.end().await;
}

#[tokio::test]
async fn stops_end_it_in_their_time() {
    let Some(bed) = bed("stop") else { return };
    let deaf = "trap '' TERM; trap 'exit 9' USR1; while :; do sleep 0.05; done";
    let id = bed.started(shell(deaf)).await;
    assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Unchanged);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = bed.verbs.stop(&id, StopOptions::default().with_timeout(Duration::from_millis(300))).await;
    assert_eq!(stopped.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.wait(&id).await.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    let mut always = shell(deaf);
    always.restart = RestartPolicy::Always;
    for (spec, signal, exit) in [
        (always.clone(), UnixSignal::USR1, ExitStatus::code(9)),
        (always, UnixSignal::TERM, ExitStatus::signal(UnixSignal::KILL)),
    ] {
        let id = bed.started(spec).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let options = StopOptions::default().with_signal(signal).with_timeout(Duration::from_secs(1));
        let (ended, stopped) = tokio::join!(within(bed.verbs.wait(&id)), bed.verbs.stop(&id, options));
        assert_eq!((ended.unwrap(), stopped.unwrap()), (Some(exit), Effect::Changed));
        assert!(bed.seen(&id).await.rests());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(bed.seen(&id).await.rests());
    }
    bed.end().await;
}

#[tokio::test]
async fn restart_begins_another_life() {
    let Some(bed) = bed("restart") else { return };
    let id = bed.started(spec(&["sleep", "1000"])).await;
    let first = bed.seen(&id).await.life();
    bed.verbs.restart(&id, StopOptions::default()).await.unwrap();
    let second = bed.seen(&id).await;
    assert!(second.is_up() && second.life() != first);
    bed.verbs.restart(&id, StopOptions::default().with_signal(UnixSignal::KILL)).await.unwrap();
    let third = bed.seen(&id).await;
    assert!(third.is_up() && third.life() != second.life());
    let _ = bed.verbs.stop(&id, StopOptions::default()).await.unwrap();
    bed.verbs.restart(&id, StopOptions::default()).await.unwrap();
    assert!(bed.seen(&id).await.is_up());
    bed.end().await;
}

#[tokio::test]
async fn pause_freezes_and_is_not_carried_into_the_next_life() {
    let Some(bed) = bed("pause") else { return };
    let id = bed.started(spec(&["sleep", "1000"])).await;
    assert_eq!(bed.verbs.unpause(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(bed.verbs.pause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.pause(&id).await.unwrap(), Effect::Unchanged);
    assert!(bed.seen(&id).await.is_frozen());
    assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(bed.verbs.unpause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.unpause(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(bed.verbs.pause(&id).await.unwrap(), Effect::Changed);
    bed.verbs.kill(&id, UnixSignal::KILL).await.unwrap();
    assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
    assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Changed);
    assert!(!bed.seen(&id).await.is_frozen());
    assert_eq!(bed.verbs.pause(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.pause(&id).await.unwrap(), Effect::Changed);
    let stopped = bed.verbs.stop(&id, StopOptions::default().with_signal(UnixSignal::TERM)).await;
    assert_eq!(stopped.unwrap(), Effect::Changed);
    bed.end().await;
}

#[tokio::test]
async fn a_running_one_is_removed_only_if_that_is_said() {
    let Some(bed) = bed("remove") else { return };
    let mut always = spec(&["sleep", "1000"]);
    always.restart = RestartPolicy::Always;
    let id = bed.started(always).await;
    assert_eq!(kind(bed.verbs.remove(&id, RemoveOptions::default()).await), ErrorKind::Conflict);
    assert!(bed.seen(&id).await.is_up());
    assert_eq!(bed.verbs.remove(&id, RemoveOptions::default().with_kill()).await.unwrap(), Effect::Changed);
    assert!(bed.look(&id).await.is_none());
    let journald = InstanceId::from("systemd-journald.service");
    assert_eq!(kind(bed.verbs.remove(&journald, RemoveOptions::default()).await), ErrorKind::Unsupported);
    bed.end().await;
}

#[tokio::test]
async fn what_cannot_be_executed_does_not_start() {
    let Some(bed) = bed("exec") else { return };
    for mut spec in [spec(&["/no/such/program"]), spec(&["sleep", "1"])] {
        if spec.command[0] == "sleep" {
            spec.user = Some("no-such-user".into());
        }
        let id = bed.make(spec).await;
        let error = bed.verbs.start(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let mut oneshot = shell("exit 3");
    oneshot.native.insert("Type".into(), "oneshot".into());
    let id = bed.started(oneshot).await;
    assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(3)));
    let mut long = shell("sleep 1; exit 2");
    long.native.insert("Type".into(), "oneshot".into());
    let id = bed.started(long).await;
    assert!(bed.seen(&id).await.is_up());
    assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(2)));
    bed.end().await;
}

#[tokio::test]
async fn settings_that_do_not_go_together_leave_nothing() {
    let Some(bed) = bed("bad") else { return };
    let mut spec = spec(&["sleep", "1"]);
    spec.name = Some(format!("vb-bad-{}", std::process::id()));
    spec.restart = RestartPolicy::Always;
    spec.native.insert("Type".into(), "oneshot".into());
    let id = InstanceId::from(format!("{}.service", spec.name.clone().unwrap()));
    assert_eq!(kind(bed.maker.create(&spec).await), ErrorKind::InvalidInput);
    assert!(bed.look(&id).await.is_none());
    assert!(bed.look(&InstanceId::from(holder::of(id.as_str()))).await.is_none());
    spec.native.clear();
    spec.native.insert("StandardOutput".into(), "nowhere".into());
    assert_eq!(kind(bed.maker.create(&spec).await), ErrorKind::InvalidInput);
    assert!(bed.look(&id).await.is_none());
    bed.end().await;
}

#[tokio::test]
async fn settings_of_a_spec_are_kept_over_a_reload() {
    let Some(bed) = bed("native") else { return };
    let file = format!("vb-native-{}", std::process::id());
    let mut spec = shell(&format!(
        "(pwd; id -un; cat /mnt/x; ls -A /media; umask; ulimit -n) > /run/{file}.n; mv /run/{file}.n /run/{file}"
    ));
    spec.user = Some("root:root".into());
    spec.working_dir = Some("/usr/local".into());
    std::fs::create_dir_all(bed.root.join("run").join(format!("{file}-d"))).unwrap();
    std::fs::write(bed.root.join("run").join(format!("{file}-d")).join("x"), "content\n").unwrap();
    spec.mounts = vec![
        Mount::new(MountSource::Bind(format!("/run/{file}-d").into()), "/mnt").read_only(),
        Mount::new(MountSource::Tmpfs, "/media"),
    ];
    spec.stop_signal = Some(UnixSignal::INT);
    spec.stop_timeout = Some(Duration::from_millis(1500));
    for (key, value) in [
        ("systemd.Slice", "vbx.slice"),
        ("RemainAfterExit", "yes"),
        ("UMask", "0027"),
        ("LimitNOFILE", "99:100"),
        ("Description", "It is $a; 100% \"quoted\""),
        ("RestrictAddressFamilies", "~AF_PACKET"),
        ("SystemCallFilter", "@system-service"),
        ("ReadOnlyPaths", "-/opt /srv"),
        ("AmbientCapabilities", ""),
        ("NoNewPrivileges", "yes"),
        ("After", "basic.target"),
        ("TimeoutStartSec", "1min 30s"),
        ("CPUWeight", "50"),
        ("SyslogIdentifier", "vb"),
    ] {
        spec.native.insert(key.into(), value.into());
    }
    let id = bed.make(spec).await;
    for _ in 0..2 {
        let _ = bed.verbs.start(&id).await.unwrap();
        assert_eq!(bed.content(&file).await, "/usr/local\nroot\ncontent\n0027\n99\n");
        assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(0)));
        let seen = bed.seen(&id).await;
        assert!(seen.has_exited());
        assert_eq!(seen.service.slice.as_deref(), Some("vbx.slice"));
        assert_eq!(seen.more.timeout_stop, Some(1_500_000));
        bed.tell("Reload").await;
    }
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    bed.end().await;
}

#[tokio::test]
async fn attempts_are_counted_and_forgotten_by_a_start() {
    let Some(bed) = bed("attempts") else { return };
    let file = format!("vb-attempts-{}", std::process::id());
    let mut spec = shell(&format!("echo x >> /run/{file}; exit 1"));
    spec.restart = RestartPolicy::OnFailure { attempts: Some(2) };
    let id = bed.make(spec).await;
    for _ in 0..2 {
        let _ = bed.verbs.start(&id).await.unwrap();
        within(async {
            while !bed.seen(&id).await.rests() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert_eq!(bed.content(&file).await, "x\nx\nx\n");
    }
    bed.end().await;
}

#[tokio::test]
async fn a_scope_is_made_of_what_runs() {
    let Some(bed) = bed("scope") else { return };
    let id = bed.started(spec(&["sleep", "1000"])).await;
    let pid = bed.seen(&id).await.service.main_pid.unwrap();
    let mut scope = InstanceSpec::default();
    scope.name = Some(format!("vb-scope-{}.scope", std::process::id()));
    assert_eq!(kind(bed.maker.create(&scope).await), ErrorKind::InvalidInput);
    scope.native.insert("PIDs".into(), pid.to_string());
    let scope = bed.maker.create(&scope).await.unwrap();
    assert!(bed.seen(&scope).await.is_up());
    assert_eq!(bed.verbs.pause(&scope).await.unwrap(), Effect::Changed);
    assert_eq!(bed.verbs.unpause(&scope).await.unwrap(), Effect::Changed);
    let (end, killed) = tokio::join!(within(bed.verbs.wait(&scope)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bed.verbs.kill(&scope, UnixSignal::TERM).await
    });
    assert_eq!(end.unwrap(), None);
    killed.unwrap();
    let _ = bed.verbs.remove(&scope, RemoveOptions::default()).await.unwrap();
    bed.end().await;
}

#[tokio::test]
async fn a_start_goes_on_while_systemd_is_executed_anew() {
    let Some(bed) = bed("reexec") else { return };
    let mut slow = spec(&["sleep", "1000"]);
    slow.entrypoint = None;
    let id = bed.started(slow).await;
    let deaf = bed.started(shell("trap '' TERM; while :; do sleep 0.05; done")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (stopped, ()) =
        tokio::join!(bed.verbs.stop(&deaf, StopOptions::default().with_timeout(Duration::from_millis(1500))), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            bed.tell("Reexecute").await;
        });
    assert_eq!(stopped.unwrap(), Effect::Changed);
    assert!(bed.seen(&deaf).await.rests());
    assert!(bed.seen(&id).await.is_up());
    bed.end().await;
}

#[tokio::test]
async fn a_hundred_at_once_are_made_run_and_gone() {
    let Some(bed) = bed("many") else { return };
    let made = (0..100).map(|_| async {
        let id = bed.maker.create(&spec(&["sleep", "1000"])).await.unwrap();
        assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Changed);
        assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
        assert_eq!(bed.verbs.wait(&id).await.unwrap(), Some(ExitStatus::signal(UnixSignal::TERM)));
        assert_eq!(bed.verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Changed);
    });
    futures_util::future::join_all(made).await;
    bed.end().await;
}

#[tokio::test]
async fn a_create_that_is_dropped_leaves_nothing() {
    let Some(bed) = bed("drop") else { return };
    let mut whole = 0;
    for n in 0..60_u64 {
        let mut spec = shell("a; b");
        let name = format!("vb-drop-{}-{n}.service", std::process::id());
        spec.name = Some(name.clone());
        let id = InstanceId::from(name);
        if tokio::time::timeout(Duration::from_micros(n * 900), bed.maker.create(&spec)).await.is_ok() {
            whole += 1;
            let _ = bed.verbs.remove(&id, RemoveOptions::default()).await.unwrap();
        }
        let holder = InstanceId::from(holder::of(id.as_str()));
        within(async {
            while bed.look(&id).await.is_some() || bed.look(&holder).await.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    eprintln!("{whole} of 60 were done in time");
    bed.end().await;
}

#[tokio::test]
async fn units_with_files_and_those_of_others_are_served_too() {
    let Some(bed) = bed("disk") else { return };
    let name = format!("vb-disk-{}.service", std::process::id());
    let path = bed.root.join("run/systemd/system").join(&name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "[Service]\nType=exec\nExecStart=/bin/sleep 0.3\n").unwrap();
    let id = InstanceId::from(name.clone());
    bed.tell("Reload").await;
    let mut taken = spec(&["sleep", "1"]);
    taken.name = Some(name);
    assert_eq!(kind(bed.maker.create(&taken).await), ErrorKind::AlreadyExists);
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    assert_eq!(kind(bed.verbs.wait(&id).await), ErrorKind::Conflict);
    assert_eq!(bed.verbs.start(&id).await.unwrap(), Effect::Changed);
    assert_eq!(kind(bed.verbs.remove(&id, RemoveOptions::default().with_kill()).await), ErrorKind::Unsupported);
    // systemd forgets it the moment that it ended.
    assert_eq!(within(bed.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(0)));
    bed.verbs.restart(&id, StopOptions::default()).await.unwrap();
    bed.verbs.restart(&id, StopOptions::default()).await.unwrap();
    assert_eq!(bed.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    std::fs::remove_file(&path).unwrap();
    bed.tell("Reload").await;
    assert_eq!(kind(bed.verbs.start(&id).await), ErrorKind::NotFound);

    let other = InstanceId::from(format!("vb-other-{}.service", std::process::id()));
    let exec = vec![("/bin/sleep".to_owned(), vec!["sleep".to_owned(), "1000".to_owned()], false)];
    let settings = vec![("ExecStart", zbus::Variant::from(exec))];
    let none: Vec<(&str, Vec<(&str, zbus::Variant<'_>)>)> = Vec::new();
    let body = (other.as_str(), "fail", settings, none);
    bed.client.manager("test", "StartTransientUnit", &body).await.unwrap();
    within(async {
        while !bed.seen(&other).await.is_up() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let first = bed.seen(&other).await.life();
    // Nothing holds it between its two lives but the verb.
    bed.verbs.restart(&other, StopOptions::default()).await.unwrap();
    let second = bed.seen(&other).await;
    assert!(second.is_up() && second.life() != first);
    assert_eq!(bed.verbs.remove(&other, RemoveOptions::default().with_kill()).await.unwrap(), Effect::Changed);
    assert!(bed.look(&other).await.is_none());
    bed.end().await;
}

/// A manager that is stopped, until this is dropped.
struct Stalled(String);

impl Stalled {
    /// `None`: which process it is cannot be told from here.
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
    let Some(bed) = bed("stall") else { return };
    let id = bed.started(spec(&["sleep", "1000"])).await;
    let limit = Duration::from_millis(300);
    let config = bed.client.config().clone().with_deadline(limit).with_job_deadline(limit);
    let client = Client::new(config).unwrap();
    let (verbs, maker) = (Lifecycle::new(client.clone()), Provision::new(client));
    {
        let Some(_stalled) = Stalled::new(&bed.root) else { return bed.end().await };
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
        assert!(began.elapsed() < limit * 9 * 3);
    }
    within(async {
        while bed.verbs.start(&id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(bed.seen(&id).await.is_up());
    bed.end().await;
}

#[tokio::test]
async fn every_setting_is_taken_and_read_again() {
    let Some(bed) = bed("keys") else { return };
    let mut refused = Vec::new();
    let mut made = Vec::new();
    for (key, value) in native::samples() {
        let mut spec = spec(&["/bin/true"]);
        spec.native.insert(key.to_owned(), value.to_owned());
        match bed.maker.create(&spec).await {
            Ok(id) => made.push((key, id)),
            Err(error) => refused.push(format!("{key}={value}: {error}")),
        }
    }
    bed.tell("Reload").await;
    for (key, id) in made {
        if bed.seen(&id).await.about.load_state.as_deref() != Some("loaded") {
            refused.push(format!("{key}: not read again"));
        }
        let _ = bed.verbs.remove(&id, RemoveOptions::default()).await.unwrap();
    }
    assert_eq!(refused, Vec::<String>::new());
    bed.end().await;
}
