//! Tests of create, and of the settings that units keep.

use super::*;

#[tokio::test]
async fn a_created_unit_stays_until_it_is_removed() {
    let Some(fixture) = disturbing("life").await else { return };
    let mut spec = shell("exit 3");
    spec.labels = Labels::from_iter([("runtide.owner", "me"), ("a b", "x\"\n$;%")]);
    let id = fixture.make(spec.clone()).await;
    let created = fixture.seen(&id).await;
    assert_eq!((created.active(), created.run()), ("inactive", None));
    let environment = created.service.environment.unwrap();
    assert_eq!(labels::of_environment(environment.iter().map(String::as_str)), spec.labels);
    assert_eq!(kind(fixture.verbs.wait(&id).await), ErrorKind::Conflict);
    assert_eq!(kind(fixture.verbs.kill(&id, UnixSignal::TERM).await), ErrorKind::Conflict);
    assert_eq!(kind(fixture.verbs.pause(&id).await), ErrorKind::Conflict);
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Unchanged);
    spec.name = Some(id.as_str().to_owned());
    assert_eq!(kind(fixture.maker.create(&spec).await), ErrorKind::AlreadyExists);
    let mut incarnations = Vec::new();
    for reload in [None, None, Some("Reload"), Some("Reexecute")] {
        if let Some(reload) = reload {
            fixture.tell(reload).await;
        }
        let started = within(async {
            loop {
                match fixture.verbs.start(&id).await {
                    // systemd's name has no owner on the bus while it re-executes itself.
                    Err(error) if reload == Some("Reexecute") && error.kind() != ErrorKind::Conflict => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    started => return started,
                }
            }
        });
        assert_eq!(started.await.unwrap(), Effect::Changed);
        assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(3)));
        incarnations.push(fixture.seen(&id).await.run().unwrap());
    }
    incarnations.dedup();
    assert_eq!(incarnations.len(), 4);
    assert_eq!(fixture.verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Unchanged);
    for verb in [
        kind(fixture.verbs.start(&id).await),
        kind(fixture.verbs.stop(&id, StopOptions::default()).await),
        kind(fixture.verbs.wait(&id).await),
        kind(fixture.verbs.pause(&id).await),
        kind(fixture.verbs.restart(&id, StopOptions::default()).await),
        kind(fixture.verbs.kill(&id, UnixSignal::TERM).await),
    ] {
        assert_eq!(verb, ErrorKind::NotFound);
    }
    fixture.end().await;
}

#[tokio::test]
async fn arguments_and_variables_are_unchanged_also_after_a_reload() {
    let Some(fixture) = fixture("words").await else { return };
    let nasty = "a;b $HOME ${HOME} $$ %n %% \"q\" 'q' \\x41 \\n\nnew\tline é \u{202e} \\; ; end\\";
    let file = format!("vb-words-{}", std::process::id());
    let script = format!("printf '%s|' \"$@\" \"$NASTY\" > /run/{file}.new; mv /run/{file}.new /run/{file}");
    let mut spec = spec(&["/bin/sh", "-c", &script, "sh", nasty, "", ";", "$", nasty]);
    spec.env.insert("NASTY".into(), nasty.into());
    let id = fixture.make(spec).await;
    for reload in [false, true] {
        if reload {
            fixture.tell("Reload").await;
        }
        assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Changed);
        assert_eq!(fixture.content(&file).await, format!("{nasty}||;|$|{nasty}|{nasty}|"));
        let _ = fixture.verbs.wait(&id).await.unwrap();
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_large_environment_arrives() {
    let Some(fixture) = fixture("large").await else { return };
    let file = format!("vb-large-{}", std::process::id());
    let mut spec = shell(&format!("printf %s \"$A\" | wc -c > /run/{file}"));
    spec.env.insert("A".into(), "é".repeat(32 * 1024));
    let id = fixture.make(spec).await;
    fixture.tell("Reload").await;
    let _ = fixture.verbs.start(&id).await.unwrap();
    assert_eq!(fixture.content(&file).await.trim(), "65536");
    fixture.end().await;
}

#[tokio::test]
async fn a_missing_program_does_not_start() {
    let Some(fixture) = fixture("exec").await else { return };
    for mut spec in [spec(&["/no/such/program"]), spec(&["sleep", "1"])] {
        if spec.command[0] == "sleep" {
            spec.user = Some("no-such-user".into());
        }
        let id = fixture.make(spec).await;
        let error = fixture.verbs.start(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let mut oneshot = shell("exit 3");
    oneshot.native.insert("Type".into(), "oneshot".into());
    let id = fixture.started(oneshot).await;
    assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(3)));
    let end = format!("vb-exec-{}-end", std::process::id());
    let mut long = until_there(&end, 2);
    long.native.insert("Type".into(), "oneshot".into());
    let id = fixture.started(long).await;
    assert!(fixture.seen(&id).await.is_up());
    assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Unchanged);
    std::fs::write(fixture.run(&end), "").unwrap();
    assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(2)));
    std::fs::remove_file(fixture.run(&end)).unwrap();
    fixture.end().await;
}

#[tokio::test]
async fn settings_that_do_not_go_together_leave_nothing() {
    let Some(fixture) = fixture("bad").await else { return };
    let mut spec = spec(&["sleep", "1"]);
    spec.name = Some(format!("vb-bad-{}", std::process::id()));
    spec.restart = RestartPolicy::Always;
    spec.native.insert("Type".into(), "oneshot".into());
    let id = InstanceId::from(format!("{}.service", spec.name.clone().unwrap()));
    assert_eq!(kind(fixture.maker.create(&spec).await), ErrorKind::InvalidInput);
    assert!(fixture.look(&id).await.is_none());
    assert!(fixture.look(&InstanceId::from(holder::of(id.as_str()))).await.is_none());
    spec.native.clear();
    spec.native.insert("StandardOutput".into(), "nowhere".into());
    assert_eq!(kind(fixture.maker.create(&spec).await), ErrorKind::InvalidInput);
    assert!(fixture.look(&id).await.is_none());
    fixture.end().await;
}

#[tokio::test]
async fn settings_of_a_spec_are_kept_over_a_reload() {
    let Some(fixture) = fixture("native").await else { return };
    let file = format!("vb-native-{}", std::process::id());
    let mut spec = shell(&format!(
        "(pwd; id -un; cat /mnt/x; ls -A /media; umask; ulimit -n) > /run/{file}.n; mv /run/{file}.n /run/{file}"
    ));
    spec.user = Some("root:root".into());
    spec.working_dir = Some("/usr/local".into());
    std::fs::create_dir_all(fixture.root.join("run").join(format!("{file}-d"))).unwrap();
    std::fs::write(fixture.root.join("run").join(format!("{file}-d")).join("x"), "content\n").unwrap();
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
    let id = fixture.make(spec).await;
    for _ in 0..2 {
        let _ = fixture.verbs.start(&id).await.unwrap();
        assert_eq!(fixture.content(&file).await, "/usr/local\nroot\ncontent\n0027\n99\n");
        assert_eq!(within(fixture.verbs.wait(&id)).await.unwrap(), Some(ExitStatus::code(0)));
        let seen = fixture.seen(&id).await;
        assert!(seen.has_exited());
        assert_eq!(seen.service.slice.as_deref(), Some("vbx.slice"));
        assert_eq!(seen.more.timeout_stop, Some(1_500_000));
        fixture.tell("Reload").await;
    }
    assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
    fixture.end().await;
}

#[tokio::test]
async fn a_scope_is_made_of_running_processes() {
    let Some(fixture) = fixture("scope").await else { return };
    let id = fixture.started(spec(&["sleep", "1000"])).await;
    let pid = fixture.seen(&id).await.service.main_pid.unwrap();
    let mut scope = InstanceSpec::default();
    scope.name = Some(format!("vb-scope-{}.scope", std::process::id()));
    assert_eq!(kind(fixture.maker.create(&scope).await), ErrorKind::InvalidInput);
    scope.native.insert("PIDs".into(), pid.to_string());
    let scope = fixture.maker.create(&scope).await.unwrap();
    assert!(fixture.seen(&scope).await.is_up());
    assert_eq!(fixture.verbs.pause(&scope).await.unwrap(), Effect::Changed);
    assert_eq!(fixture.verbs.unpause(&scope).await.unwrap(), Effect::Changed);
    // Held, so that a wait may begin after its end too: that it has begun cannot be seen from outside.
    fixture.client.manager("test", "RefUnit", &(scope.as_str(),)).await.unwrap();
    let (end, killed) = tokio::join!(within(fixture.verbs.wait(&scope)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        fixture.verbs.kill(&scope, UnixSignal::TERM).await
    });
    assert_eq!(end.unwrap(), None);
    killed.unwrap();
    fixture.client.manager("test", "UnrefUnit", &(scope.as_str(),)).await.unwrap();
    let _ = fixture.verbs.remove(&scope, RemoveOptions::default()).await.unwrap();
    fixture.end().await;
}

#[tokio::test]
async fn a_hundred_at_once_are_created_run_and_removed() {
    let Some(fixture) = fixture("many").await else { return };
    let made = (0..100).map(|_| async {
        let id = fixture.maker.create(&spec(&["sleep", "1000"])).await.unwrap();
        assert_eq!(fixture.verbs.start(&id).await.unwrap(), Effect::Changed);
        assert_eq!(fixture.verbs.stop(&id, StopOptions::default()).await.unwrap(), Effect::Changed);
        assert_eq!(fixture.verbs.wait(&id).await.unwrap(), Some(ExitStatus::signal(UnixSignal::TERM)));
        assert_eq!(fixture.verbs.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Changed);
    });
    futures_util::future::join_all(made).await;
    fixture.end().await;
}

#[tokio::test]
async fn a_dropped_create_leaves_nothing() {
    let Some(fixture) = fixture("drop").await else { return };
    let mut whole = 0;
    for n in 0..60_u64 {
        let mut spec = shell("a; b");
        let name = format!("vb-drop-{}-{n}.service", std::process::id());
        spec.name = Some(name.clone());
        let id = InstanceId::from(name);
        if tokio::time::timeout(Duration::from_micros(n * 900), fixture.maker.create(&spec)).await.is_ok() {
            whole += 1;
            let _ = fixture.verbs.remove(&id, RemoveOptions::default()).await.unwrap();
        }
        let holder = InstanceId::from(holder::of(id.as_str()));
        within(async {
            while fixture.look(&id).await.is_some() || fixture.look(&holder).await.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    eprintln!("{whole} of 60 were done in time");
    fixture.end().await;
}

#[tokio::test]
async fn every_setting_is_accepted_and_read_back() {
    let Some(fixture) = fixture("keys").await else { return };
    let mut refused = Vec::new();
    let mut made = Vec::new();
    for (key, value) in native::samples() {
        let mut spec = spec(&["/bin/true"]);
        spec.native.insert(key.to_owned(), value.to_owned());
        match fixture.maker.create(&spec).await {
            Ok(id) => made.push((key, id)),
            Err(error) => refused.push(format!("{key}={value}: {error}")),
        }
    }
    fixture.tell("Reload").await;
    for (key, id) in made {
        if fixture.seen(&id).await.about.load_state.as_deref() != Some("loaded") {
            refused.push(format!("{key}: not read again"));
        }
        let _ = fixture.verbs.remove(&id, RemoveOptions::default()).await.unwrap();
    }
    assert_eq!(refused, Vec::<String>::new());
    fixture.end().await;
}
