//! From the start of a container to its event, on a real daemon, next to `docker events` and to bollard alone.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "an executable has no readers of its docs, and stops where a step fails"
)]

use std::{
    io::{BufRead, BufReader},
    pin::Pin,
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, SystemTime},
};

use bollard::{
    Docker,
    models::EventMessage,
    query_parameters::{EventsOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures_core::Stream;
use runtide_benches::{Table, is_trial, real::Real, span, times};
use runtide_core::{EventStream, RuntimeBackend, RuntimeEventKind, WatchOptions};
use runtide_docker::DockerBackend;
use serde::Deserialize;
use tokio::runtime::Runtime;

/// Starts that each of them sees in a row.
const BLOCK: usize = 10;
const BLOCKS: usize = 3;

/// One start: when it was asked for, when the daemon says that it was, and when the reader had its event.
struct Start {
    from_call: Duration,
    from_stamp: Duration,
}

/// A reader of the daemon's events.
trait Observer {
    /// The daemon's time of the next start, and the time at which it was read.
    fn next(&mut self, runtime: &Runtime) -> (SystemTime, SystemTime);
}

/// The history, of which it is not known how long it is, is sent at once: after such a silence what comes is live.
const SILENCE: Duration = Duration::from_millis(300);

fn main() {
    let Some(real) = Real::from_env("docker_start") else { return };
    let (block, blocks) = if is_trial() { (1, 1) } else { (BLOCK, BLOCKS) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (backend, docker) = (real.runtide(), runtime.block_on(real.bollard()));
    let container = real.create(&[], &["true"]);
    let start = || {
        let before = SystemTime::now();
        runtime.block_on(docker.start_container(&container, None)).unwrap();
        before
    };
    let ended = || {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut waiting = Box::pin(docker.wait_container(&container, Some(options)));
        runtime.block_on(std::future::poll_fn(|cx| waiting.as_mut().poll_next(cx))).unwrap().unwrap();
    };
    // The history has a start, with which a reader can prove that it is subscribed.
    start();
    ended();
    let names = ["Runtide", "bollard", "docker events"];
    let mut starts: [Vec<Start>; 3] = Default::default();
    for _ in 0..blocks {
        for (name, starts) in names.iter().zip(&mut starts) {
            let mut observer: Box<dyn Observer> = match *name {
                "Runtide" => Box::new(Watched::open(&runtime, &backend, &container)),
                "bollard" => Box::new(Bare::open(&runtime, &docker, &container)),
                _ => Box::new(Printed::open(&real, &container)),
            };
            for _ in 0..block {
                let (asked, (stamped, seen_at)) = std::thread::scope(|scope| {
                    let starting = scope.spawn(start);
                    let seen = observer.next(&runtime);
                    (starting.join().unwrap(), seen)
                });
                let since = |begin: SystemTime| seen_at.duration_since(begin).unwrap_or_default();
                starts.push(Start { from_call: since(asked), from_stamp: since(stamped) });
                ended();
            }
        }
    }
    let mut table = Table::new(["from", "", "Runtide", "bollard", "docker events", "Runtide is"]);
    for (from, of) in [
        ("the daemon's stamp", (|start| start.from_stamp) as fn(&Start) -> Duration),
        ("the call", |start| start.from_call),
    ] {
        for (name, per_cent) in [("p50", 50), ("p99", 99)] {
            let figures: Vec<f64> = starts
                .iter()
                .map(|starts| {
                    let mut sorted: Vec<Duration> = starts.iter().map(of).collect();
                    sorted.sort_unstable();
                    sorted[(sorted.len() - 1) * per_cent / 100].as_secs_f64()
                })
                .collect();
            let ratio = format!("{} of `docker events`", times(figures[0] / figures[2]));
            table.row(
                [from.to_owned(), name.to_owned()]
                    .into_iter()
                    .chain(figures.iter().map(|one| span(*one)))
                    .chain([ratio]),
            );
        }
    }
    table.print();
}

fn time(nanoseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds.unsigned_abs())
}

/// Runtide's watch, behind its resync.
struct Watched {
    stream: EventStream,
    container: String,
}

impl Watched {
    fn open(runtime: &Runtime, backend: &DockerBackend, container: &str) -> Self {
        let mut stream = runtime.block_on(backend.watch(WatchOptions::default())).unwrap();
        while !matches!(runtime.block_on(stream.next()).unwrap().unwrap().kind, RuntimeEventKind::ResyncEnd(_)) {}
        Self { stream, container: container.to_owned() }
    }
}

impl Observer for Watched {
    fn next(&mut self, runtime: &Runtime) -> (SystemTime, SystemTime) {
        loop {
            let event = runtime.block_on(self.stream.next()).unwrap().unwrap();
            if let RuntimeEventKind::Started(instance) = &event.kind
                && instance.id.as_str() == self.container
            {
                return (event.native_at.unwrap(), SystemTime::now());
            }
        }
    }
}

/// bollard's stream.
struct Bare(Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>>>>);

impl Bare {
    fn open(runtime: &Runtime, docker: &Docker, container: &str) -> Self {
        let options = EventsOptionsBuilder::new().since("1").filters(&filters(container)).build();
        let mut bare = Self(Box::pin(docker.events(Some(options))));
        runtime.block_on(async { while tokio::time::timeout(SILENCE, bare.message()).await.is_ok() {} });
        bare
    }

    async fn message(&mut self) -> SystemTime {
        let message = std::future::poll_fn(|cx| self.0.as_mut().poll_next(cx)).await.unwrap().unwrap();
        time(message.time_nano.unwrap())
    }
}

fn filters(container: &str) -> std::collections::HashMap<&'static str, Vec<String>> {
    [
        ("type", vec!["container".to_owned()]),
        ("event", vec!["start".to_owned()]),
        ("container", vec![container.to_owned()]),
    ]
    .into()
}

impl Observer for Bare {
    fn next(&mut self, runtime: &Runtime) -> (SystemTime, SystemTime) {
        (runtime.block_on(self.message()), SystemTime::now())
    }
}

/// The lines of `docker events`, read by a thread.
struct Printed {
    child: Child,
    times: Receiver<(SystemTime, SystemTime)>,
}

impl Printed {
    fn open(real: &Real, container: &str) -> Self {
        let of = format!("container={container}");
        let filters = ["--filter", "type=container", "--filter", "event=start", "--filter", &of];
        let mut command = real.command(["events", "--since", "1", "--format", "{{json .}}"].into_iter().chain(filters));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (send, times) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                let now = SystemTime::now();
                if send.send((stamp(&line), now)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        times.recv().expect("the history has a start");
        while times.recv_timeout(SILENCE).is_ok() {}
        Self { child, times }
    }
}

fn stamp(line: &str) -> SystemTime {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "timeNano")]
        time_nano: i64,
    }
    time(serde_json::from_str::<Line>(line).unwrap().time_nano)
}

impl Observer for Printed {
    fn next(&mut self, _runtime: &Runtime) -> (SystemTime, SystemTime) {
        self.times.recv().expect("the command runs")
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
