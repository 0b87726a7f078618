//! Logs and exec, through the backend.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use runtide_core::{
    ErrorKind, ExitStatus, RuntimeBackend, UnixSignal,
    manager::{
        AttachOptions, ExecManager, ExecOptions, ExecSession, LogLine, LogManager, LogOptions, LogSource, LogStream,
        TtySize,
    },
};
use runtide_memory::{Blueprint, Config, Emission, MemoryBackend, MemoryRuntime, RuntimeOptions};
use tokio::io::AsyncWriteExt;

const HUNDRED_MB: u64 = 100_000_000;

fn backend() -> MemoryBackend {
    let options = RuntimeOptions::deterministic(0).with_log_bytes(64_usize << 10);
    MemoryBackend::new(Config::default(), MemoryRuntime::with_options(options)).unwrap()
}

fn logs(backend: &MemoryBackend) -> &dyn LogManager {
    backend.logs().unwrap()
}

fn exec(backend: &MemoryBackend) -> &dyn ExecManager {
    backend.exec().unwrap()
}

fn argv(words: &[&str]) -> ExecOptions {
    ExecOptions::default().with_argv(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
}

async fn all(mut stream: LogStream) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(line.unwrap());
    }
    lines
}

fn text(lines: &[LogLine]) -> Vec<(LogSource, String)> {
    lines.iter().map(|line| (line.source, String::from_utf8_lossy(&line.bytes).into_owned())).collect()
}

async fn digest(mut stream: LogStream, source: LogSource) -> (u64, blake3::Hash) {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    while let Some(line) = stream.next().await {
        let line = line.unwrap();
        assert_eq!(line.source, source);
        bytes += line.bytes.len() as u64;
        hasher.update(&line.bytes);
    }
    (bytes, hasher.finalize())
}

fn expected(emission: Emission) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for chunk in emission.chunks() {
        hasher.update(&chunk);
    }
    hasher.finalize()
}

#[tokio::test(start_paused = true)]
async fn lines_keep_their_source_their_bytes_and_their_order() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    runtime.write_log(&id, LogSource::Stdout, "one\ntwo\n").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    runtime.write_log(&id, LogSource::Stderr, &b"\xff\0no newline"[..]).unwrap();
    let lines = all(logs(&backend).logs(&id, LogOptions::default().with_timestamps()).await.unwrap()).await;
    let bytes: Vec<&[u8]> = lines.iter().map(|line| &*line.bytes).collect();
    assert_eq!(bytes, [&b"one\n"[..], b"two\n", b"\xff\0no newline"]);
    let (first, last) = (lines[0].at.unwrap(), lines[2].at.unwrap());
    assert_eq!(last.duration_since(first).unwrap(), Duration::from_secs(1));

    let only = async |options: LogOptions| text(&all(logs(&backend).logs(&id, options).await.unwrap()).await).len();
    assert_eq!(only(LogOptions::default().with_tail(2)).await, 2);
    assert_eq!(only(LogOptions::default().with_tail(0)).await, 0);
    assert_eq!(only(LogOptions::default().with_since(last)).await, 1);
    assert_eq!(only(LogOptions::default().with_until(last)).await, 2);
    assert_eq!(only(LogOptions::default().with_sources([LogSource::Stderr])).await, 1);
    assert_eq!(only(LogOptions::default().with_sources([LogSource::Stdout]).with_tail(1)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn following_goes_on_to_the_end_of_the_output() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.create("web").unwrap();
    let stream = logs(&backend).logs(&id, LogOptions::default().with_follow()).await.unwrap();
    let (lines, ()) = tokio::join!(all(stream), async {
        for run in 0..2 {
            tokio::time::sleep(Duration::from_secs(600)).await;
            runtime.start(&id).unwrap();
            runtime.write_log(&id, LogSource::Stdout, format!("run {run}\n")).unwrap();
            tokio::time::sleep(Duration::from_secs(600)).await;
            if run == 1 {
                runtime.write_log(&id, LogSource::Stdout, "last words\n").unwrap();
                runtime.remove(&id).unwrap();
            } else {
                runtime.restart(&id).unwrap();
            }
        }
    });
    let text: Vec<_> = text(&lines).into_iter().map(|(_, text)| text).collect();
    assert_eq!(text, ["run 0\n", "run 1\n", "last words\n"]);
}

#[tokio::test(start_paused = true)]
async fn output_that_was_dropped_before_it_was_read_is_an_error() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    runtime.write_log(&id, LogSource::Stdout, "first\n").unwrap();
    let mut stream = logs(&backend).logs(&id, LogOptions::default().with_follow()).await.unwrap();
    for _ in 0..20 {
        runtime.write_log(&id, LogSource::Stdout, vec![b'x'; 10_000]).unwrap();
    }
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Expired);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_output_breaks_with_its_connection() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    let mut severed = logs(&backend).logs(&id, LogOptions::default().with_follow()).await.unwrap();
    assert_eq!(runtime.open_calls(), 1);
    runtime.sever();
    assert_eq!(severed.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(runtime.open_calls(), 0);
    let mut closed = logs(&backend).logs(&id, LogOptions::default().with_follow()).await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(closed.next().await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_megabytes_of_log_arrive_whole() {
    let backend = backend();
    let emission = Emission::new(HUNDRED_MB, 7);
    let id = backend.runtime().run("web").unwrap();
    backend.runtime().emit_log(&id, LogSource::Stderr, emission).unwrap();
    let stream = logs(&backend).logs(&id, LogOptions::default()).await.unwrap();
    assert_eq!(digest(stream, LogSource::Stderr).await, (HUNDRED_MB, expected(emission)));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_megabytes_of_exec_arrive_whole() {
    let backend = backend();
    let id = backend.runtime().run("web").unwrap();
    let options = argv(&["emit", &HUNDRED_MB.to_string(), "8", "stderr"]);
    let session = exec(&backend).exec(&id, options).await.unwrap();
    let got = digest(session.output, LogSource::Stderr).await;
    assert_eq!(got, (HUNDRED_MB, expected(Emission::new(HUNDRED_MB, 8))));
    assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::code(0)));
}

#[tokio::test(start_paused = true)]
async fn a_process_gets_its_words_and_surroundings_as_they_are() {
    let backend = backend();
    let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let id = backend.runtime().run(Blueprint::named("web").with_env(env(&[("A", "1"), ("B", "2")]))).unwrap();
    for (options, code, output) in [
        (argv(&["echo", "$HOME;", "`id`", "ünï"]), 0, "$HOME; `id` ünï\n"),
        (argv(&["env"]).with_env(env(&[("B", "3 \n4")])), 0, "A=1\nB=3 \n4\n"),
        (argv(&["whoami"]).with_user("web".to_owned()), 0, "web\n"),
        (argv(&["pwd"]).with_working_dir("/srv".to_owned()), 0, "/srv\n"),
        (argv(&["false"]), 1, ""),
        (argv(&["exit", "42"]), 42, ""),
        (argv(&["nothing-of-the-kind"]), 127, "nothing-of-the-kind: not found\n"),
    ] {
        let session = exec(&backend).exec(&id, options).await.unwrap();
        assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::code(code)), "before anything is read");
        let lines = text(&all(session.output).await);
        assert_eq!(lines.into_iter().map(|(_, text)| text).collect::<String>(), output);
    }
    assert_eq!(backend.runtime().open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn input_comes_back_until_it_is_closed() {
    let backend = backend();
    let id = backend.runtime().run("web").unwrap();
    let mut session = exec(&backend).exec(&id, argv(&["cat"]).with_stdin()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (written, lines) = tokio::join!(
        async {
            stdin.write_all(&data).await?;
            stdin.shutdown().await
        },
        all(session.output)
    );
    written.unwrap();
    assert_eq!(lines.iter().flat_map(|line| line.bytes.clone()).collect::<Vec<_>>(), data);
    assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::code(0)));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_run_is_refused() {
    let backend = backend();
    let id = backend.runtime().run("web").unwrap();
    for options in [
        ExecOptions::default(),
        argv(&["a\0b"]),
        argv(&["true"]).with_env(BTreeMap::from([("A=B".to_owned(), String::new())])),
        argv(&["true"]).with_working_dir("here".to_owned()),
        argv(&["true"]).with_user("\0".to_owned()),
        argv(&["true"]).with_user(String::new()),
    ] {
        assert_eq!(exec(&backend).exec(&id, options).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    backend.runtime().pause(&id).unwrap();
    assert_eq!(exec(&backend).exec(&id, argv(&["true"])).await.unwrap_err().kind(), ErrorKind::Conflict);
    backend.runtime().kill(&id, UnixSignal::KILL).unwrap();
    assert_eq!(exec(&backend).exec(&id, argv(&["true"])).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(exec(&backend).attach(&id, AttachOptions::default()).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_process_ends_with_its_instance_and_with_its_session() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    let session = exec(&backend).exec(&id, argv(&["sleep", "3600"])).await.unwrap();
    runtime.stop(&id).unwrap();
    assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::signal(UnixSignal::KILL)));
    drop(session);

    runtime.start(&id).unwrap();
    let mut session = exec(&backend).exec(&id, argv(&["cat"]).with_stdin()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    drop(session);
    assert_eq!(runtime.open_calls(), 0);
    tokio::task::yield_now().await;
    assert!(stdin.write_all(b"hello?").await.is_err());

    let session = exec(&backend).exec(&id, argv(&["sleep", "3600"])).await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(session.control.wait().await.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn attaching_before_the_start_misses_nothing() {
    let backend = backend();
    let runtime = backend.runtime();
    let words = ["echo", "hello"].map(str::to_owned);
    let id = runtime.create(Blueprint::named("job").with_command(words)).unwrap();
    for _ in 0..2 {
        let session = exec(&backend).start_attached(&id, AttachOptions::default()).await.unwrap();
        assert_eq!(text(&all(session.output).await), [(LogSource::Stdout, "hello\n".to_owned())]);
        assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::code(0)));
    }
    let service = runtime.run("web").unwrap();
    runtime.write_log(&service, LogSource::Stdout, "before\n").unwrap();
    let session = exec(&backend).attach(&service, AttachOptions::default()).await.unwrap();
    runtime.write_log(&service, LogSource::Stdout, "after\n").unwrap();
    runtime.restart(&service).unwrap();
    runtime.write_log(&service, LogSource::Stdout, "next run\n").unwrap();
    assert_eq!(text(&all(session.output).await), [(LogSource::Stdout, "after\n".to_owned())]);
    assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::signal(UnixSignal::TERM)));
}

#[tokio::test(start_paused = true)]
async fn an_attach_needs_the_right_state_and_an_open_input() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    let kind = |result: runtide_core::Result<ExecSession>| result.unwrap_err().kind();
    let input = AttachOptions::default().with_stdin();
    assert_eq!(kind(exec(&backend).attach(&id, input).await), ErrorKind::InvalidInput);
    assert_eq!(kind(exec(&backend).start_attached(&id, AttachOptions::default()).await), ErrorKind::Conflict);
    runtime.pause(&id).unwrap();
    assert_eq!(kind(exec(&backend).attach(&id, AttachOptions::default()).await), ErrorKind::Conflict);
    assert_eq!(runtime.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_detached_process_goes_on_without_its_control() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    let input = exec(&backend).exec_detached(&id, argv(&["cat"]).with_stdin()).await;
    assert_eq!(input.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput));
    let control = exec(&backend).exec_detached(&id, argv(&["emit", "1000000", "7"])).await.unwrap();
    assert_eq!(
        control.wait().await.unwrap(),
        Some(ExitStatus::code(0)),
        "its output is not read, and does not block it"
    );
    drop(control);
    drop(exec(&backend).exec_detached(&id, argv(&["sleep", "3600"])).await.unwrap());
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(runtime.open_calls(), 1, "it still runs");
    runtime.stop(&id).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(runtime.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_terminal_merges_output_and_has_a_size() {
    let backend = backend();
    let size = |columns, rows| TtySize::new(NonZeroU16::new(columns).unwrap(), NonZeroU16::new(rows).unwrap());
    let runtime = backend.runtime();
    let id = runtime.run(Blueprint::named("shell").with_tty()).unwrap();
    runtime.write_log(&id, LogSource::Stderr, "oops\n").unwrap();
    let lines = all(logs(&backend).logs(&id, LogOptions::default()).await.unwrap()).await;
    assert_eq!(lines[0].source, LogSource::Console);
    exec(&backend).resize(&id, size(100, 30)).await.unwrap();
    assert_eq!(runtime.tty_size(&id), Some(size(100, 30)));

    let mut session = exec(&backend).exec(&id, argv(&["size"]).with_stdin().with_tty(size(80, 24))).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    assert_eq!(session.output.next().await.unwrap().unwrap().bytes, "80 24\n");
    session.control.resize(size(132, 43)).await.unwrap();
    stdin.write_all(b"\n").await.unwrap();
    let line = session.output.next().await.unwrap().unwrap();
    assert_eq!((line.source, &*line.bytes), (LogSource::Console, &b"132 43\n"[..]));

    let plain = runtime.run("plain").unwrap();
    assert_eq!(exec(&backend).resize(&plain, size(1, 1)).await.unwrap_err().kind(), ErrorKind::Conflict);
    let session = exec(&backend).exec(&plain, argv(&["cat"])).await.unwrap();
    assert_eq!(session.control.resize(size(1, 1)).await.unwrap_err().kind(), ErrorKind::Conflict);
}
