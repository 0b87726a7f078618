//! Every byte of the output, each on its side: M4.

use std::time::Duration;

use runtide_core::{
    ErrorKind, ExitCause,
    manager::{AttachOptions, ByteWriter, ExecControl, ExecManager, ExecOptions, LogOptions, LogSource, LogStream},
};
use tokio::io::AsyncWriteExt;

use super::{lifecycle, ok};
use crate::{
    Harness, Law, LawResult, Output, Verdict, Violation, Workload, ensure,
    laws::{backend, done, running},
};

/// Bytes of memory that may come on top while 100 MB pass through.
const BOUND: u64 = 48 << 20;

/// **M4 output.** Logs and exec keep stdout and stderr apart, lose no byte, and follow to the end. 100 MB arrive with the
/// right digest, and in bounded memory, which is measured where the runtime is not in this process. A command's input arrives
/// whole, with its end; a session that begins before the start misses nothing.
pub async fn m4_output(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    ok(Law::M4, "connect", backend.connect().await)?;
    let can = backend.capabilities();
    let Some(logs) = backend.logs() else { return Verdict::not_applicable("the backend has no logs") };
    let verbs = lifecycle(&*backend, Law::M4)?;
    let bytes = h.timing().output_bytes;
    let expected = [Digest::of(h.output(LogSource::Stdout, bytes)), Digest::of(h.output(LogSource::Stderr, bytes))];

    let work = Workload::Print { bytes };
    let Some(id) = done("print", h.create("printer", &work).await, &mut without)? else {
        return Verdict::not_applicable("no instance that prints can be made");
    };
    let before = if h.is_real() { resident_bytes() } else { None };
    let mut most = 0;
    let followed = if can.logs_follow.is_yes() {
        h.start(&id).await?;
        Some(ok(Law::M4, "logs", logs.logs(&id, LogOptions::default().with_follow()).await)?)
    } else {
        without.push("follow: not supported".to_owned());
        h.start(&id).await?;
        None
    };
    if let Some(stream) = followed {
        let read = read(h, stream, &mut most).await?;
        compare("following", &expected, &read)?;
    }
    ok(Law::M4, "wait", verbs.wait(&id).await)?;
    let stream = ok(Law::M4, "logs", logs.logs(&id, LogOptions::default()).await)?;
    compare("logs", &expected, &read(h, stream, &mut most).await?)?;
    if let Some(before) = before {
        let grown = most.saturating_sub(before);
        ensure!(grown < BOUND, M4, format!("at most {BOUND} bytes of memory for any output"), format!("{grown}"));
    }

    let one = LogOptions::default().with_sources([LogSource::Stderr]);
    if h.is_console() {
        let kind = logs.logs(&id, one).await.map_err(|error| error.kind());
        let refused = matches!(kind, Err(ErrorKind::Unsupported));
        ensure!(
            refused,
            M4,
            "stderr alone to be `unsupported` where the runtime does not keep it apart",
            format!("{kind:?}")
        );
    } else {
        let stream = ok(Law::M4, "logs of one source", logs.logs(&id, one).await)?;
        let read_one = read(h, stream, &mut most).await?;
        let [_, stderr] = expected;
        compare("stderr alone", &[Digest::of_bytes(b""), stderr], &read_one)?;
    }
    let tail = ok(Law::M4, "a tail", logs.logs(&id, LogOptions::default().with_tail(Some(0))).await)?;
    compare("an empty tail", &[Digest::of_bytes(b""), Digest::of_bytes(b"")], &read(h, tail, &mut most).await?)?;

    match backend.exec() {
        None => without.push("exec: not supported".to_owned()),
        Some(exec) => {
            if can.exec_run.is_yes() {
                commands(h, exec, bytes, &mut most).await?;
            }
            if can.exec_attach.is_yes() {
                greeting(h, exec, &mut most, &mut without).await?;
            }
        }
    }
    Verdict::kept_without(without)
}

/// Each command inside an idle instance: its input, its output on either side, its exit.
async fn commands(h: &dyn Harness, exec: &dyn ExecManager, bytes: u64, most: &mut u64) -> Result<(), Violation> {
    let host = running(h, "host").await?;
    for command in h.commands(bytes) {
        let what = format!("exec of {:?}", command.argv);
        let mut options = ExecOptions::default().with_argv(command.argv.clone());
        options.stdin = command.stdin.is_some();
        let mut session = ok(Law::M4, &what, exec.exec(&host, options.clone()).await)?;
        let fed = feed(session.stdin.take(), command.stdin);
        let (said, fed) = tokio::join!(read(h, session.output, most), fed);
        compare(&what, &[Digest::of(command.stdout), Digest::of(command.stderr)], &said?)?;
        if let Err(error) = fed {
            return Err(Violation::of(Law::M4, format!("the input of the {what} to be taken"), error.to_string()));
        }
        ends_with(h, &what, &*session.control, command.code).await?;
        if !options.stdin {
            let what = format!("detached {what}");
            let control = ok(Law::M4, &what, exec.exec_detached(&host, options).await)?;
            ends_with(h, &what, &*control, command.code).await?;
        }
    }
    Ok(())
}

/// Bytes that an instance writes as soon as it is started.
const GREETING: u64 = 64 << 10;

/// None of the first output is missed by a session that begins before the start.
async fn greeting(
    h: &dyn Harness,
    exec: &dyn ExecManager,
    most: &mut u64,
    without: &mut Vec<String>,
) -> Result<(), Violation> {
    let work = Workload::Greet { bytes: GREETING };
    let Some(id) = done("an attach before the start", h.create("greeter", &work).await, without)? else {
        return Ok(());
    };
    let what = "start_attached";
    let session = ok(Law::M4, what, exec.start_attached(&id, AttachOptions::default()).await)?;
    let expected = [Digest::of(h.output(LogSource::Stdout, GREETING)), Digest::of_bytes(b"")];
    compare(what, &expected, &read(h, session.output, most).await?)?;
    ends_with(h, what, &*session.control, 0).await
}

async fn ends_with(h: &dyn Harness, what: &str, control: &dyn ExecControl, code: i32) -> Result<(), Violation> {
    let Ok(exit) = tokio::time::timeout(h.timing().timeout, control.wait()).await else {
        return Err(Violation::of(Law::M4, format!("an end of the {what}"), "none"));
    };
    let exit = ok(Law::M4, "the end of a process", exit)?;
    let right = exit.is_some_and(|exit| exit.end == ExitCause::Code(code));
    ensure!(right, M4, format!("code {code} of the {what}"), format!("{exit:?}"));
    Ok(())
}

/// Writes the input, and ends it.
async fn feed(stdin: Option<ByteWriter>, input: Option<Output>) -> std::io::Result<()> {
    let (Some(mut stdin), Some(input)) = (stdin, input) else { return Ok(()) };
    for piece in input {
        stdin.write_all(&piece).await?;
    }
    stdin.shutdown().await
}

/// Number of bytes, and their BLAKE3 hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digest {
    bytes: u64,
    hash: blake3::Hash,
}

impl Digest {
    fn of(output: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for piece in output {
            hasher.update(&piece);
        }
        Self { bytes: hasher.count(), hash: hasher.finalize() }
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        Self { bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX), hash: blake3::hash(bytes) }
    }
}

/// Reads to the end: stdout, then stderr.
async fn read(h: &dyn Harness, mut stream: LogStream, most: &mut u64) -> Result<[Digest; 2], Violation> {
    let mut sides = [(blake3::Hasher::new(), 0_u64), (blake3::Hasher::new(), 0_u64)];
    let mut lines = 0_u64;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(120), stream.next()).await;
        let next = next.map_err(|_| Violation::of(Law::M4, "the end of the output", "silence for two minutes"))?;
        let Some(line) = next else { break };
        let line = ok(Law::M4, "reading", line)?;
        let side = match line.source {
            LogSource::Stdout => 0,
            LogSource::Stderr => 1,
            LogSource::Console if h.is_console() => usize::from(line.bytes.starts_with(b"e")),
            _ => return Err(Violation::of(Law::M4, "stdout and stderr apart", "output of a console")),
        };
        if let Some((hasher, bytes)) = sides.get_mut(side) {
            hasher.update(&line.bytes);
            *bytes = bytes.saturating_add(u64::try_from(line.bytes.len()).unwrap_or(u64::MAX));
        }
        lines += 1;
        if lines.is_multiple_of(4096) {
            *most = resident_bytes().unwrap_or_default().max(*most);
        }
    }
    Ok(sides.map(|(hasher, bytes)| Digest { bytes, hash: hasher.finalize() }))
}

fn compare(what: &str, expected: &[Digest; 2], read: &[Digest; 2]) -> Result<(), Violation> {
    for (side, (expected, read)) in ["stdout", "stderr"].iter().zip(expected.iter().zip(read)) {
        ensure!(
            expected.bytes == read.bytes,
            M4,
            format!("{} bytes of {side} ({what})", expected.bytes),
            format!("{}", read.bytes)
        );
        ensure!(
            expected.hash == read.hash,
            M4,
            format!("the digest of {side} ({what})"),
            "another one: bytes were changed or mixed"
        );
    }
    Ok(())
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(4096)
}
