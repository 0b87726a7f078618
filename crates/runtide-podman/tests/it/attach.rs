//! The main process of a container, attached to, on a real Podman.

use runtide_core::{
    ErrorKind, ExitStatus,
    manager::{AttachOptions, LogSource, RestartPolicy},
};
use tokio::io::AsyncWriteExt;

use crate::{
    bench::Bench,
    exec::{LIMIT, all, argv, size, waited},
};

fn output() -> AttachOptions {
    AttachOptions::default()
}

#[tokio::test]
async fn an_attach_shows_what_comes_and_ends_with_the_run() {
    let Some(bench) = Bench::new("attach").await else { return };
    let script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo out; echo err >&2; exit 6";
    let id = bench.run("a", script).await;
    bench.says(&id, "before").await;
    let session = bench.exec().attach(&id, output()).await.unwrap();
    let _go = bench.exec().exec(&id, argv(&["touch", "/tmp/go"])).await.unwrap();
    let control = session.control.clone();
    let said = all(session.output).await.unwrap();
    assert_eq!((said.len(), &*said["Stdout"], &*said["Stderr"]), (2, "out\n", "err\n"), "{said:?}");
    assert_eq!(control.wait().await.unwrap().map(|exit| exit.end), Some(ExitStatus::code(6).end));
    assert_eq!(bench.exec().attach(&id, output()).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_session_that_begins_before_the_start_misses_nothing_and_has_the_exit() {
    let Some(bench) = Bench::new("attach-start").await else { return };
    let mut spec = bench.spec("a", "echo first; echo second >&2; exit 4");
    spec.native.insert("auto_remove".to_owned(), "true".to_owned());
    for round in 0..5 {
        spec.name = Some(format!("{}-{round}", bench.prefix));
        let id = bench.provision().create(&spec).await.unwrap();
        let session = bench.exec().start_attached(&id, output()).await.unwrap();
        let control = session.control.clone();
        let said = all(session.output).await.unwrap();
        assert_eq!((&*said["Stdout"], &*said["Stderr"]), ("first\n", "second\n"));
        let exit = tokio::time::timeout(LIMIT, control.wait()).await.unwrap().unwrap();
        assert_eq!(exit.map(|exit| exit.end), Some(ExitStatus::code(4).end), "it removed itself");
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_session_and_one_that_is_superfluous_is_refused() {
    let Some(bench) = Bench::new("attach-fails").await else { return };
    let mut spec = bench.spec("a", "");
    spec.command = vec!["no-such-program".to_owned()];
    let id = bench.provision().create(&spec).await.unwrap();
    let error = bench.exec().start_attached(&id, output()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let id = bench.run("b", "sleep 600").await;
    let error = bench.exec().start_attached(&id, output()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let absent = bench.exec().start_attached(&"runtide-absent".into(), output()).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    let closed = bench.exec().attach(&id, output().with_stdin()).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::InvalidInput, "its input is not open: {closed}");
    let _ = bench.lifecycle().pause(&id).await.unwrap();
    let paused = bench.exec().attach(&id, output()).await.unwrap_err();
    assert_eq!(paused.kind(), ErrorKind::Conflict, "{paused}");
}

#[tokio::test]
async fn the_input_of_the_main_process_ends_where_it_is_ended_or_left() {
    let Some(bench) = Bench::new("attach-stdin").await else { return };
    for is_left in [false, true] {
        let name = if is_left { "left" } else { "ended" };
        let mut spec = bench.spec(name, "while read -r line; do echo got $line; done; exit 8");
        spec.native.insert("open_stdin".to_owned(), "true".to_owned());
        let id = bench.provision().create(&spec).await.unwrap();
        let mut session = bench.exec().start_attached(&id, output().with_stdin()).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"a\n").await.unwrap();
        assert_eq!(session.output.next().await.unwrap().unwrap().bytes, "got a\n");
        if is_left {
            drop((session, stdin));
            let exit = tokio::time::timeout(LIMIT, bench.lifecycle().wait(&id)).await.unwrap().unwrap();
            assert_eq!(exit.map(|exit| exit.end), Some(ExitStatus::code(8).end));
        } else {
            stdin.shutdown().await.unwrap();
            assert_eq!(waited(&session).await.map(|exit| exit.end), Some(ExitStatus::code(8).end));
            assert!(all(session.output).await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_container_that_ran_before_is_started_with_a_session_and_each_has_its_own_exit() {
    let Some(bench) = Bench::new("attach-again").await else { return };
    let script = "n=$(cat /tmp/n 2>/dev/null || echo 0); echo $((n+1)) > /tmp/n; echo run $n; exit $((n+3))";
    let id = bench.provision().create(&bench.spec("a", script)).await.unwrap();
    for n in 0..3 {
        let session = bench.exec().start_attached(&id, output()).await.unwrap();
        let control = session.control.clone();
        assert_eq!(all(session.output).await.unwrap()["Stdout"], format!("run {n}\n"));
        let exit = tokio::time::timeout(LIMIT, control.wait()).await.unwrap().unwrap();
        assert_eq!(exit.map(|exit| exit.end), Some(ExitStatus::code(n + 3).end));
    }
}

#[tokio::test]
async fn the_terminal_of_the_main_process_is_resized() {
    let Some(bench) = Bench::new("attach-tty").await else { return };
    let mut spec = bench.spec("a", "while read -r line; do stty size; done; exit 2");
    for key in ["open_stdin", "tty"] {
        spec.native.insert(key.to_owned(), "true".to_owned());
    }
    let id = bench.provision().create(&spec).await.unwrap();
    let early = bench.exec().resize(&id, size(9, 9)).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Conflict, "it does not run");
    let mut session = bench.exec().start_attached(&id, output().with_stdin()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    for (how, columns) in [("by the session", 101), ("by its id", 102)] {
        if columns == 101 {
            session.control.resize(size(columns, 31)).await.unwrap();
        } else {
            bench.exec().resize(&id, size(columns, 31)).await.unwrap();
        }
        stdin.write_all(b"\n").await.unwrap();
        let mut said = String::new();
        while !said.contains(&format!("31 {columns}")) {
            let line = tokio::time::timeout(LIMIT, session.output.next()).await.expect(how).unwrap().unwrap();
            assert_eq!(line.source, LogSource::Console);
            said.push_str(&String::from_utf8_lossy(&line.bytes));
        }
    }
    stdin.shutdown().await.unwrap();
    assert_eq!(waited(&session).await.map(|exit| exit.end), Some(ExitStatus::code(2).end));
    let plain = bench.run("plain", "sleep 600").await;
    assert_eq!(bench.exec().resize(&plain, size(9, 9)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        bench.exec().resize(&"runtide-absent".into(), size(9, 9)).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn under_a_restart_policy_a_session_is_of_one_run() {
    let Some(bench) = Bench::new("attach-policy").await else { return };
    let mut spec = bench.spec("a", "echo run; exit 3");
    spec.restart = RestartPolicy::Always;
    let id = bench.provision().create(&spec).await.unwrap();
    let session = bench.exec().start_attached(&id, output()).await.unwrap();
    let control = session.control.clone();
    assert_eq!(all(session.output).await.unwrap()["Stdout"], "run\n");
    let exit = tokio::time::timeout(LIMIT, control.wait()).await.unwrap().unwrap();
    assert!(exit.is_none_or(|exit| exit.end == ExitStatus::code(3).end), "{exit:?}");
}
