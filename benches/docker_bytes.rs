//! 100 MB through exec, logs, the export of a volume and the save of an image, on a real daemon, next to bollard alone and to the
//! `docker` command. `-- table:logs`: only one of them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an executable has no readers of its docs, and stops where a step fails"
)]

use std::{
    pin::{Pin, pin},
    process::Stdio,
};

use bollard::{
    Docker,
    container::LogOutput,
    exec::StartExecResults,
    models::{ContainerCreateBody, ExecConfig, HostConfig, Mount, MountType},
    query_parameters::{DownloadFromContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder},
};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use runtide_benches::{
    Clock, Contest, Figures, Round, Table, bytes, criterion, is_trial, met, nanos, real::Real, times,
};
use runtide_core::{
    ExitStatus, ImageRef, InstanceId, RuntimeBackend,
    manager::{ByteReader, ExecOptions, LogOptions, LogStream, VolumeId},
};
use runtide_docker::DockerBackend;
use tokio::{io::AsyncReadExt, runtime::Runtime};

/// Bytes of content. A tar archive has some more.
const SIZE: u64 = 100_000_000;
const TURNS: usize = 5;
const WORKS: [&str; 4] = ["exec", "logs", "volume", "image"];

/// The content that is sent, and its places on the daemon.
struct Content {
    size: u64,
    /// A running container with the volume at `/data`, which has `blob`.
    running: String,
    /// A container that wrote as many bytes to its log, and ended.
    logged: String,
    volume: String,
    image: String,
}

impl Content {
    fn make(real: &Real) -> Self {
        let size = if is_trial() { 1_000_000 } else { SIZE };
        let (volume, image) = (real.name("volume"), real.name("image"));
        real.docker(["volume", "create", "--label", real.label(), &volume]);
        let mount = format!("{volume}:/data");
        real.run_to_end(&["--volume", &mount], &format!("head -c {size} /dev/urandom > /data/blob"));
        let running = real.create(&["--volume", &mount, "--init"], &["sleep", "100000"]);
        real.docker(["start", &running]);
        let line = "0123456789abcdef".repeat(6);
        let logged = real.run_to_end(&["--log-driver", "json-file"], &format!("yes {line} | head -c {size}"));
        let changed = real.run_to_end(&[], &format!("head -c {size} /dev/urandom > /blob"));
        real.docker(["commit", "--change", &format!("LABEL {}", real.label()), &changed, &image]);
        real.docker(["rm", &changed]);
        Self { size, running, logged, volume, image }
    }
}

fn main() {
    let Some(real) = Real::from_env("docker_bytes") else { return };
    let content = Content::make(&real);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ours, theirs) = (real.runtide(), runtime.block_on(real.bollard()));
    let mut criterion = criterion();
    let mut table = Table::new(["100 MB of", "read by", "per second", "CPU per MB", "Runtide is", "goal"]);
    let given = std::env::args().find_map(|argument| argument.strip_prefix("table:").map(str::to_owned));
    for what in WORKS.into_iter().filter(|what| given.as_deref().is_none_or(|given| given == *what)) {
        // The first turn is not counted: all must have read the same.
        let (first, other) = (
            runtime.block_on(of_runtide(&ours, &content, what, true)),
            runtime.block_on(of_bollard(&theirs, &real, &content, what, true)),
        );
        assert!(first.size >= content.size, "{what}: {} bytes", first.size);
        if matches!(what, "exec" | "logs") {
            assert_eq!(first.size, content.size, "{what}");
        }
        // The archives of a volume differ in the name of its folder.
        assert!(what == "volume" || first.digest == other.digest, "{what}: other bytes");
        let figures = Contest::new(format!("docker_bytes/{what}"))
            .turns(TURNS)
            .with("Runtide", || turn(&runtime, of_runtide(&ours, &content, what, false)))
            .with("bollard", || turn(&runtime, of_bollard(&theirs, &real, &content, what, false)))
            .with("docker", || of_command(&real, &content, what))
            .run(&mut criterion);
        rows(&mut table, what, &figures);
    }
    criterion.final_summary();
    table.print();
}

fn rows(table: &mut Table, what: &str, figures: &Figures) {
    for name in figures.names() {
        let cpu = if name == "docker" { String::new() } else { nanos(figures.cpu_each(name) * 1e6) };
        let faster = figures.faster("Runtide", name);
        let (faster, goal) = match name {
            "Runtide" => (String::new(), String::new()),
            "bollard" => (times(faster), met("≥ 0.9×", faster >= 0.9)),
            _ => (times(faster), met("≥ 1×", faster >= 1.0)),
        };
        table.row([what.to_owned(), name.to_owned(), bytes(figures.rate(name)), cpu, faster, goal]);
    }
}

fn turn(runtime: &Runtime, read: impl Future<Output = Read>) -> Round {
    let clock = Clock::start();
    let read = runtime.block_on(read);
    clock.stop(read.size)
}

/// Size and digest of the content as read.
#[derive(Default)]
struct Read {
    size: u64,
    digest: Option<blake3::Hash>,
}

/// Counts what is read, and makes its digest if asked to.
struct Reading {
    size: u64,
    hasher: Option<blake3::Hasher>,
}

impl Reading {
    fn new(digests: bool) -> Self {
        Self { size: 0, hasher: digests.then(blake3::Hasher::new) }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    fn done(self) -> Read {
        Read { size: self.size, digest: self.hasher.map(|hasher| hasher.finalize()) }
    }

    async fn lines(mut self, mut stream: LogStream) -> Self {
        while let Some(line) = stream.next().await {
            self.take(&line.unwrap().bytes);
        }
        self
    }

    async fn archive(mut self, mut reader: ByteReader) -> Self {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        while reader.read_buf(&mut buffer).await.unwrap() > 0 {
            self.take(&buffer);
            buffer.clear();
        }
        self
    }

    async fn outputs(mut self, stream: impl Stream<Item = Result<LogOutput, bollard::errors::Error>>) -> Self {
        let mut stream = pin!(stream);
        while let Some(output) = next(stream.as_mut()).await {
            self.take(&output.unwrap().into_bytes());
        }
        self
    }

    async fn pieces(mut self, stream: impl Stream<Item = Result<Bytes, bollard::errors::Error>>) -> Self {
        let mut stream = pin!(stream);
        while let Some(bytes) = next(stream.as_mut()).await {
            self.take(&bytes.unwrap());
        }
        self
    }
}

async fn next<S: Stream>(mut stream: Pin<&mut S>) -> Option<S::Item> {
    std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

const CAT: [&str; 2] = ["cat", "/data/blob"];

async fn of_runtide(backend: &DockerBackend, content: &Content, what: &str, digests: bool) -> Read {
    let reading = Reading::new(digests);
    let id = |id: &str| InstanceId::from(id);
    let reading = match what {
        "exec" => {
            let options = ExecOptions::default().with_argv(CAT.map(str::to_owned));
            let session = backend.exec().unwrap().exec(&id(&content.running), options).await.unwrap();
            let reading = reading.lines(session.output).await;
            assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::code(0)));
            reading
        }
        "logs" => {
            let logs = backend.logs().unwrap().logs(&id(&content.logged), LogOptions::default()).await;
            reading.lines(logs.unwrap()).await
        }
        "volume" => {
            let volume = VolumeId::from(content.volume.as_str());
            reading.archive(backend.volumes().unwrap().export(&volume).await.unwrap()).await
        }
        _ => {
            let image = ImageRef::from(content.image.as_str());
            reading.archive(backend.images().unwrap().save(&[image]).await.unwrap()).await
        }
    };
    reading.done()
}

async fn of_bollard(docker: &Docker, real: &Real, content: &Content, what: &str, digests: bool) -> Read {
    let reading = Reading::new(digests);
    let reading = match what {
        "exec" => {
            let config = ExecConfig {
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                cmd: Some(CAT.map(str::to_owned).to_vec()),
                ..ExecConfig::default()
            };
            let exec = docker.create_exec(&content.running, config).await.unwrap();
            let StartExecResults::Attached { output, .. } = docker.start_exec(&exec.id, None).await.unwrap() else {
                panic!("a detached exec was not asked for")
            };
            let reading = reading.outputs(output).await;
            assert_eq!(docker.inspect_exec(&exec.id).await.unwrap().exit_code, Some(0));
            reading
        }
        "logs" => {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
            reading.outputs(docker.logs(&content.logged, Some(options))).await
        }
        "volume" => {
            let config = ContainerCreateBody {
                image: Some(real.image().to_owned()),
                host_config: Some(HostConfig {
                    mounts: Some(vec![Mount {
                        typ: Some(MountType::VOLUME),
                        source: Some(content.volume.clone()),
                        target: Some("/volume".to_owned()),
                        ..Mount::default()
                    }]),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            };
            let helper = docker.create_container(None, config).await.unwrap().id;
            let options = DownloadFromContainerOptionsBuilder::new().path("/volume/.").build();
            let reading = reading.pieces(docker.download_from_container(&helper, Some(options))).await;
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            docker.remove_container(&helper, Some(options)).await.unwrap();
            reading
        }
        _ => reading.pieces(docker.export_image(&content.image)).await,
    };
    reading.done()
}

/// The command writes into nothing, which costs it least.
fn of_command(real: &Real, content: &Content, what: &str) -> Round {
    let clock = Clock::start();
    let run = |arguments: &[&str]| {
        let mut command = real.command(arguments.iter().copied());
        assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
    };
    match what {
        "exec" => run(&["exec", &content.running, CAT[0], CAT[1]]),
        "logs" => run(&["logs", &content.logged]),
        "volume" => {
            let helper = real.create(&["--volume", &format!("{}:/volume", content.volume)], &["true"]);
            run(&["cp", &format!("{helper}:/volume/."), "-"]);
            run(&["rm", "--force", &helper]);
        }
        _ => run(&["save", &content.image]),
    }
    clock.stop(content.size)
}
