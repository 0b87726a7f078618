//! Processes inside a container, on a real Podman.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use runtide_conformance::{report, testbed::Testbed};
use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, Result, RuntimeBackend,
    manager::{ExecOptions, ExecSession, LogLine, LogSource, LogStream, RemoveOptions, TtySize},
};
use tokio::io::AsyncWriteExt;

use crate::bench::Bench;

/// Longest time for anything here.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn argv(words: &[&str]) -> ExecOptions {
    ExecOptions::default().with_argv(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
}

pub(crate) fn size(columns: u16, rows: u16) -> TtySize {
    TtySize::new(NonZeroU16::new(columns).unwrap(), NonZeroU16::new(rows).unwrap())
}

/// All output, by its source.
pub(crate) async fn all(mut output: LogStream) -> Result<BTreeMap<String, String>> {
    let mut said = BTreeMap::<String, Vec<u8>>::new();
    while let Some(line) = tokio::time::timeout(LIMIT, output.next()).await.expect("the output ends") {
        let LogLine { source, bytes, .. } = line?;
        said.entry(format!("{source:?}")).or_default().extend_from_slice(&bytes);
    }
    Ok(said.into_iter().map(|(source, bytes)| (source, String::from_utf8_lossy(&bytes).into_owned())).collect())
}

pub(crate) async fn waited(session: &ExecSession) -> Option<ExitStatus> {
    tokio::time::timeout(LIMIT, session.control.wait()).await.expect("the process ends").unwrap()
}

/// Reads on until this text came.
async fn until(output: &mut LogStream, text: &str) -> String {
    let mut said = String::new();
    while !said.contains(text) {
        let line = tokio::time::timeout(LIMIT, output.next()).await.expect(text).expect("no end").unwrap();
        assert_eq!(line.source, LogSource::Console);
        said.push_str(&String::from_utf8_lossy(&line.bytes));
    }
    said
}

#[tokio::test]
async fn words_environment_user_and_folder_arrive_and_both_outputs_stay_apart() {
    let Some(bench) = Bench::new("exec").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let script = r#"echo "$1|$WORD|$(pwd)|$(id -u):$(id -g)"; echo oops >&2; exit 7"#;
    let odd = "$(id); `x` \"q\" 'é'\n\\ *";
    let options = argv(&["sh", "-c", script, "sh", odd])
        .with_env(BTreeMap::from([("WORD".to_owned(), "a=b\nc d".to_owned())]))
        .with_user("12:34".to_owned())
        .with_working_dir("/tmp".to_owned());
    let session = bench.exec().exec(&id, options).await.unwrap();
    assert!(session.stdin.is_none());
    let control = session.control.clone();
    let said = all(session.output).await.unwrap();
    assert_eq!(said["Stdout"], format!("{odd}|a=b\nc d|/tmp|12:34\n"));
    assert_eq!(said["Stderr"], "oops\n");
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(7)));
    assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(7)), "again");
}

#[tokio::test]
async fn the_end_of_the_input_is_no_end_of_the_output() {
    let Some(bench) = Bench::new("exec-stdin").await else { return };
    let id = bench.run("a", "sleep 600").await;
    for drops in [false, true] {
        let options = argv(&["sh", "-c", "cat; sleep 0.3; echo after; exit 3"]).with_stdin();
        let mut session = bench.exec().exec(&id, options).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"in\n").await.unwrap();
        if drops {
            drop(stdin);
        } else {
            stdin.shutdown().await.unwrap();
            assert!(stdin.write_all(b"late").await.is_err());
        }
        let control = session.control.clone();
        assert_eq!(all(session.output).await.unwrap()["Stdout"], "in\nafter\n");
        assert_eq!(control.wait().await.unwrap(), Some(ExitStatus::code(3)));
    }
}

#[tokio::test]
async fn a_terminal_has_its_size_its_changes_and_a_typed_end() {
    let Some(bench) = Bench::new("exec-tty").await else { return };
    let id = bench.run("a", "sleep 600").await;
    // Output that begins with a byte that a frame may begin with (trap D20), and a prompt without a newline.
    let script = r"printf '\001ready> '; while read -r line; do echo $(stty size) $line; done; echo end; exit 5";
    let options = argv(&["sh", "-c", script]).with_tty(size(100, 30)).with_stdin();
    let mut session = bench.exec().exec(&id, options).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    assert!(until(&mut session.output, "ready> ").await.starts_with('\u{1}'));
    stdin.write_all(b"one\n").await.unwrap();
    until(&mut session.output, "30 100 one").await;
    session.control.resize(size(132, 43)).await.unwrap();
    // The size is set by another program, a moment later. The keys with which the podman command detaches are input like any other.
    loop {
        stdin.write_all(b"\x10\x11two\n").await.unwrap();
        // The terminal shows the first key as ^P, and takes the other one for itself; the program shows what it got.
        let said = until(&mut session.output, "\u{10}two\r\n").await;
        if said.contains("43 132 ") {
            break;
        }
    }
    stdin.shutdown().await.unwrap();
    until(&mut session.output, "end").await;
    assert_eq!(waited(&session).await, Some(ExitStatus::code(5)));
    let late = session.control.resize(size(1, 1)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "{late}");
    assert_eq!(all(session.output).await.unwrap().keys().filter(|source| *source != "Console").count(), 0);

    let plain = bench.exec().exec(&id, argv(&["true"])).await.unwrap();
    assert_eq!(plain.control.resize(size(1, 1)).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_program_that_cannot_run_is_an_exit_with_the_services_reason() {
    let Some(bench) = Bench::new("exec-missing").await else { return };
    let id = bench.run("a", "sleep 600").await;
    for options in [argv(&["no-such-program"]), argv(&["/tmp"]), argv(&["true"]).with_user("no-such-user".to_owned())] {
        for options in [options.clone(), options.clone().with_tty(size(80, 24)), options.with_stdin()] {
            let session = bench.exec().exec(&id, options.clone()).await.unwrap();
            assert_eq!(session.stdin.is_some(), options.stdin);
            let control = session.control.clone();
            let said = all(session.output).await.unwrap();
            let reason = said.values().next().unwrap();
            assert!(reason.starts_with("Error: "), "{options:?}: {said:?}");
            assert!(options.tty.is_some() || !reason.contains("unixpacket"), "{options:?}: {said:?}");
            let exit = control.wait().await.unwrap();
            assert!([126, 127].map(|code| Some(ExitStatus::code(code))).contains(&exit), "{options:?}: {exit:?}");
            if !options.stdin {
                let detached = bench.exec().exec_detached(&id, options).await.err().expect("no output has the reason");
                assert_eq!(detached.kind(), ErrorKind::Conflict, "{detached}");
            }
        }
    }
    let real = bench.exec().exec(&id, argv(&["sh", "-c", "echo Error: mine >&2; exit 127"])).await.unwrap();
    assert_eq!(waited(&real).await, Some(ExitStatus::code(127)), "a program's own code");
    let detached = bench.exec().exec_detached(&id, argv(&["sh", "-c", "exit 127"])).await.unwrap();
    assert_eq!(detached.wait().await.unwrap(), Some(ExitStatus::code(127)));
}

#[tokio::test]
async fn a_detached_process_goes_on_and_its_exit_is_known() {
    let Some(bench) = Bench::new("exec-detached").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let script = "i=0; while [ $i -lt 3000 ]; do echo 'no reader holds it back, whatever it writes: 64 bytes a line'; i=$((i+1)); done; touch /tmp/done; exit 9";
    let control = bench.exec().exec_detached(&id, argv(&["sh", "-c", script])).await.unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, control.wait()).await.unwrap().unwrap(), Some(ExitStatus::code(9)));
    let seen = bench.exec().exec(&id, argv(&["test", "-e", "/tmp/done"])).await.unwrap();
    assert_eq!(waited(&seen).await, Some(ExitStatus::code(0)));
    let input = bench.exec().exec_detached(&id, argv(&["cat"]).with_stdin()).await;
    assert_eq!(input.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput));
}

#[tokio::test]
async fn the_container_must_be_there_and_run() {
    let Some(bench) = Bench::new("exec-state").await else { return };
    let kind = async |id: &InstanceId| bench.exec().exec(id, argv(&["true"])).await.unwrap_err().kind();
    assert_eq!(kind(&"runtide-absent".into()).await, ErrorKind::NotFound);
    let id = bench.create("a", "sleep 600").await;
    assert_eq!(kind(&id).await, ErrorKind::Conflict, "it never ran");
    let _ = bench.lifecycle().start(&id).await.unwrap();
    let _ = bench.lifecycle().pause(&id).await.unwrap();
    assert_eq!(kind(&id).await, ErrorKind::Conflict, "it is paused");
    let _ = bench.lifecycle().unpause(&id).await.unwrap();
    let _ = bench.lifecycle().kill(&id, runtide_core::UnixSignal::KILL).await;
    let _ = bench.lifecycle().wait(&id).await.unwrap();
    assert_eq!(kind(&id).await, ErrorKind::Conflict, "it ended");
}

#[tokio::test]
async fn a_wait_is_over_when_the_container_dies_or_is_removed() {
    let Some(bench) = Bench::new("exec-dies").await else { return };
    for removes in [false, true] {
        let id = bench.run(if removes { "removed" } else { "killed" }, "sleep 600").await;
        let session = bench.exec().exec(&id, argv(&["sh", "-c", "echo ready; sleep 600"])).await.unwrap();
        let (control, mut output) = (session.control, session.output);
        assert_eq!(output.next().await.unwrap().unwrap().bytes, "ready\n");
        let (exit, ended) = tokio::join!(tokio::time::timeout(LIMIT, control.wait()), async {
            if removes {
                let _ = bench.lifecycle().remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
            } else {
                bench.lifecycle().kill(&id, runtide_core::UnixSignal::KILL).await.unwrap();
            }
            all(output).await
        });
        let exit = exit.expect("the wait ends with the container").unwrap();
        // Docker reports the exit, or forgets the process with its container first; it is never another one.
        assert!(exit.is_none_or(|exit| exit == ExitStatus::code(137)), "{exit:?}");
        ended.expect("the output is whole: the process ended");
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_process_back_and_gets_everything_in_the_end() {
    const BYTES: u64 = 64 << 20;
    let Some(bench) = Bench::new("exec-slow").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let script = format!("dd if=/dev/zero bs=65536 count={} 2>/dev/null; echo end >&2; exit 4", BYTES / 65536);
    let mut session = bench.exec().exec(&id, argv(&["sh", "-c", &script])).await.unwrap();
    let first = session.output.next().await.unwrap().unwrap();
    let early = tokio::time::timeout(Duration::from_secs(3), session.control.wait()).await;
    assert!(early.is_err(), "it cannot end while its output is not read");
    let (mut bytes, mut errors) = (first.bytes.len() as u64, Vec::new());
    while let Some(line) = session.output.next().await {
        let line = line.unwrap();
        match line.source {
            LogSource::Stdout => bytes += line.bytes.len() as u64,
            _ => errors.extend_from_slice(&line.bytes),
        }
    }
    assert_eq!((bytes, &errors[..]), (BYTES, &b"end\n"[..]));
    assert_eq!(waited(&session).await, Some(ExitStatus::code(4)));
}

#[tokio::test]
async fn a_dropped_session_leaves_no_connection_and_does_not_block_the_process() {
    let Some(bench) = Bench::new("exec-dropped").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let script = "cat; i=0; while [ $i -lt 20000 ]; do echo more than the pipes hold, so that it would block; i=$((i+1)); done; touch /tmp/done";
    let mut session = bench.exec().exec(&id, argv(&["sh", "-c", script]).with_stdin()).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"x\n").await.unwrap();
    let line = session.output.next().await.unwrap().unwrap();
    assert_eq!(line.bytes, "x\n");
    drop(session);
    for _ in 0..600 {
        let seen = bench.exec().exec(&id, argv(&["test", "-e", "/tmp/done"])).await.unwrap();
        if waited(&seen).await == Some(ExitStatus::code(0)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the process is blocked");
}

#[tokio::test]
async fn a_service_that_is_killed_under_a_session_gives_no_exit_that_it_did_not_see() {
    let Some(testbed) = Testbed::of("podman") else {
        return report::skip("managers", "podman", "RUNTIDE_TESTBED is not set");
    };
    let Some(bench) = Bench::alone("exec-killed").await else { return };
    let id = bench.run("a", "sleep 600").await;
    // Both end with code 3: one as its input ends with the service, the other one when it is let to.
    let options = argv(&["sh", "-c", "echo ready; cat; exit 3"]).with_stdin();
    let ExecSession { mut output, control, stdin } = bench.exec().exec(&id, options).await.unwrap();
    assert_eq!(output.next().await.unwrap().unwrap().bytes, "ready\n");
    let script = "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 3";
    let detached = bench.exec().exec_detached(&id, argv(&["sh", "-c", script])).await.unwrap();
    let waited = tokio::spawn(async move { control.wait().await });
    testbed.run(&["kill"]).await.unwrap();
    let end = tokio::time::timeout(LIMIT, output.next()).await.expect("it does not hang").unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::Unavailable, "the bytes ended, the output did not: {end}");
    testbed.run(&["start"]).await.unwrap();
    let exit = tokio::time::timeout(LIMIT, waited).await.expect("it does not hang").unwrap().unwrap();
    assert!(exit.is_none() || exit == Some(ExitStatus::code(3)), "{exit:?}");
    drop(stdin);
    let early = tokio::time::timeout(Duration::from_secs(2), detached.wait()).await;
    assert!(early.is_err(), "it goes on: {early:?}");
    let go = bench.exec().exec(&id, argv(&["touch", "/tmp/go"])).await.unwrap();
    assert_eq!(self::waited(&go).await, Some(ExitStatus::code(0)), "the container lives on");
    let exit = tokio::time::timeout(LIMIT, detached.wait()).await.expect("it does not hang").unwrap();
    assert!(exit.is_none() || exit == Some(ExitStatus::code(3)), "{exit:?}");
}

#[tokio::test]
async fn a_connection_that_is_cut_is_an_error_and_no_end() {
    let Some(bench) = Bench::new("exec-cut").await else { return };
    let (proxy, backend) = bench.behind_a_proxy().await;
    let id = bench.run("a", "sleep 600").await;
    let script = "while [ ! -e /tmp/go ]; do echo line; sleep 0.1; done; exit 6";
    let session = backend.exec().unwrap().exec(&id, argv(&["sh", "-c", script])).await.unwrap();
    let ExecSession { mut output, control, .. } = session;
    // One read may have several of the lines.
    assert!(output.next().await.unwrap().unwrap().bytes.starts_with(b"line\n"));
    proxy.sever();
    let end = loop {
        match tokio::time::timeout(LIMIT, output.next()).await.expect("it does not hang") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the process goes on, so its output did not end"),
        }
    };
    assert_eq!(end.kind(), ErrorKind::Unavailable, "{end}");
    assert!(output.next().await.is_none());
    // Podman itself stops following the process, and writes down an exit of -1.
    let exit = tokio::time::timeout(LIMIT, control.wait()).await.expect("it does not hang").unwrap();
    assert_eq!(exit, None);
}

#[tokio::test]
async fn an_input_that_is_not_read_is_never_an_exit_or_an_output_that_is_invented() {
    let Some(bench) = Bench::new("exec-unread").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let options = argv(&["sh", "-c", "head -c 1 > /dev/null; echo done; exit 3"]).with_stdin();
    let mut session = bench.exec().exec(&id, options).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let control = session.control.clone();
    let feed = async move {
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..64 {
            if stdin.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = stdin.shutdown().await;
    };
    let (said, ()) = tokio::join!(
        async {
            let mut said = Vec::new();
            while let Some(line) = tokio::time::timeout(LIMIT, session.output.next()).await.expect("an end") {
                match line {
                    Ok(line) => {
                        assert_eq!(line.source, LogSource::Stdout, "the service's own words are no output: {line:?}");
                        said.extend_from_slice(&line.bytes);
                    }
                    Err(error) => return (said, Some(error)),
                }
            }
            (said, None)
        },
        feed
    );
    match said {
        (said, None) => assert_eq!(said, b"done\n"),
        (_, Some(error)) => assert!(matches!(error.kind(), ErrorKind::Unexpected | ErrorKind::Unavailable), "{error}"),
    }
    let exit = tokio::time::timeout(LIMIT, control.wait()).await.expect("it ends").unwrap();
    assert!(exit.is_none() || exit == Some(ExitStatus::code(3)), "{exit:?}");
}

#[tokio::test]
async fn keys_that_detach_are_input_like_any_other_also_without_a_terminal() {
    let Some(bench) = Bench::new("exec-keys").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let mut session = bench.exec().exec(&id, argv(&["cat"]).with_stdin()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    for key in [b"\x10", b"\x11"] {
        stdin.write_all(key).await.unwrap();
        assert_eq!(session.output.next().await.unwrap().unwrap().bytes, &key[..]);
    }
    stdin.shutdown().await.unwrap();
    assert_eq!(waited(&session).await, Some(ExitStatus::code(0)));
}

#[tokio::test]
async fn closing_the_backend_ends_a_session() {
    let Some(bench) = Bench::new("exec-closed").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let ExecSession { mut output, control, .. } = bench.exec().exec(&id, argv(&["sleep", "600"])).await.unwrap();
    let (read, exit, closed) = tokio::join!(output.next(), control.wait(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.backend.close().await
    });
    closed.unwrap();
    assert_eq!(read.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(exit.unwrap_err().kind(), ErrorKind::Cancelled);
}
