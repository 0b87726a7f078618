//! Runs an instance in the foreground: `cargo run --example run -- --help`.

use std::{
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    ops::RangeInclusive,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use runtide_core::{
    Error, ErrorKind, ImageRef, InstanceId, Port, Protocol, RuntimeBackend, RuntimeBackendExt, RuntimeKind,
    manager::{
        AttachOptions, ImageProgress, InstanceSpec, LifecycleManager, Mount, MountSource, PullOptions, RemoveOptions,
        StopOptions,
    },
};
use runtide_examples::{Stop, Target, Terminal, choose, follow, note, run_undone, variable};
use tokio::sync::mpsc::Receiver;

/// Label by which an instance is found whose program was killed.
const OWNER: (&str, &str) = ("runtide.owner", "example-run");

/// Time for which a runtime may be away before its instance is left to it.
const RESTART: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(250);

/// Exit code where the instance could not be removed.
const REMAINS: u8 = 2;

/// Exit code after a second Ctrl-C, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Run an instance of an image, show its output, and remove it at the end.
///
/// Ctrl-C stops it; once more, and it is killed. The exit code is that of its main process.
#[derive(Debug, Parser)]
#[command(name = "run")]
struct Args {
    #[command(flatten)]
    target: Target,
    /// The instance's name; the runtime picks one
    #[arg(long)]
    name: Option<String>,
    /// A variable for its environment, KEY alone for the value that it has here; several: all of them
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A port to publish, as 8080:80, 127.0.0.1:8080:80/udp, 8000-8005:8000-8005, or 80 for a port that the runtime picks;
    /// several: all of them
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT[/PROTOCOL]", value_parser = published)]
    publish: Vec<Published>,
    /// A folder or a volume to mount, as /srv/www:/www:ro or pages:/www; several: all of them
    #[arg(long, value_name = "SOURCE:PATH[:ro|:rw]", value_parser = mount)]
    volume: Vec<Mount>,
    /// The user to run it as, and optionally the group, as USER:GROUP
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The folder to run it in
    #[arg(short, long, value_name = "FOLDER")]
    workdir: Option<String>,
    /// Pass stdin on to it
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run it with a terminal, of the size of this one
    #[arg(short, long)]
    tty: bool,
    /// A program in place of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// It is removed at the end, with this option and without
    #[arg(long)]
    rm: bool,
    /// The image; it is pulled where the runtime does not have it
    image: String,
    /// The main process's arguments, as they are: no shell reads them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    run_undone(async |args: Args, mut interrupts| {
        let size = Terminal::size().filter(|_| args.tty);
        if args.tty && (size.is_none() || args.stdin && !io::stdin().is_terminal()) {
            return Err(Stop::refused("-t takes the size of a terminal, and with -i its keys, and there is none"));
        }
        let backend = choose(&args.target).await?;
        let provision = backend.provision().ok_or_else(|| backend.unsupported("provision_create"))?;
        let lifecycle = backend.lifecycle().ok_or_else(|| backend.unsupported("lifecycle_remove"))?;
        let exec = backend.exec().ok_or_else(|| backend.unsupported("exec_attach"))?;
        let spec = args.spec(&backend.kind());
        let image = ImageRef::from(args.image.as_str());
        tokio::select! {
            there = fetch(&*backend, &image) => there?,
            Some(()) = interrupts.recv() => return Ok(()),
        }

        let id = provision.create(&spec).await?;
        let shown = async {
            let mut attach = AttachOptions::default();
            attach.stdin = args.stdin;
            let session = exec.start_attached(&id, attach).await.map_err(not_started)?;
            let terminal = if args.tty && args.stdin { Some(Terminal::raw()?) } else { None };
            if let Some(size) = size {
                // It may have ended already, which its output shows.
                let _ = exec.resize(&id, size).await;
            }
            tokio::select! {
                end = follow(session, terminal) => end,
                () = stop_on(&mut interrupts, lifecycle, &id) => Err(Stop::Exit(INTERRUPTED)),
            }
        };
        let end = shown.await;
        // Also after a failure: it has been made here.
        if let Err(error) = remove(lifecycle, &id, &mut interrupts).await {
            note(format_args!("the instance {id} stays, with the label {}={}: {error:#}", OWNER.0, OWNER.1));
            return end.and(Err(Stop::Exit(REMAINS)));
        }
        end
    })
}

/// Removes the instance. A runtime that is away may be restarted at this very moment; Ctrl-C ends the wait for it.
async fn remove(lifecycle: &dyn LifecycleManager, id: &InstanceId, interrupts: &mut Receiver<()>) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let options = RemoveOptions::default().with_kill().with_anonymous_volumes();
        match lifecycle.remove(id, options).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Unavailable && begun.elapsed() < RESTART => {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    Some(()) = interrupts.recv() => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl Args {
    fn spec(&self, kind: &RuntimeKind) -> InstanceSpec {
        let mut spec = InstanceSpec::of_image(self.image.as_str())
            .with_command(self.command.clone())
            .with_env(self.env.clone())
            .with_label(OWNER.0, OWNER.1)
            .with_ports(self.publish.iter().flat_map(|published| published.0.clone()).collect::<Vec<_>>())
            .with_mounts(self.volume.clone());
        spec.name.clone_from(&self.name);
        spec.entrypoint = self.entrypoint.clone().map(|program| vec![program]);
        spec.user.clone_from(&self.user);
        spec.working_dir.clone_from(&self.workdir);
        // Docker alone keeps the input open behind the session that fed it, unless it is told not to.
        let once = self.stdin && *kind == RuntimeKind::Docker;
        let options = [("open_stdin", self.stdin), ("stdin_once", once), ("tty", self.tty)];
        for (key, _) in options.into_iter().filter(|(_, is_set)| *is_set) {
            spec.native.insert(key.to_owned(), "true".to_owned());
        }
        spec
    }
}

/// Pulls the image if the runtime does not have it.
async fn fetch(backend: &dyn RuntimeBackend, image: &ImageRef) -> Result<(), Stop> {
    // A runtime without images of its own has its own way with their names.
    let Some(images) = backend.images() else { return Ok(()) };
    if images.exists(image).await? {
        return Ok(());
    }
    note(format_args!("{image} is not here: pulling it"));
    let mut progress = images.pull(image, PullOptions::default()).await?;
    while let Some(item) = progress.next().await {
        if let ImageProgress::Done(image) = item? {
            note(format_args!("pulled {image}"));
        }
    }
    Ok(())
}

/// A program that cannot be run has the codes of a shell. The engines say so in words only, and their own tools read those.
fn not_started(error: Error) -> Stop {
    let line = format!("{error:#}");
    let code = match () {
        () if line.contains("executable file not found") || line.contains("no such file or directory") => 127,
        () if line.contains("permission denied") || line.contains("is a directory") => 126,
        () => return error.into(),
    };
    note(&line);
    Stop::Exit(code)
}

/// Stops the instance at the first Ctrl-C, and returns at the second.
async fn stop_on(interrupts: &mut Receiver<()>, lifecycle: &dyn LifecycleManager, id: &InstanceId) {
    let _ = interrupts.recv().await;
    let stop = async {
        if let Err(error) = lifecycle.stop(id, StopOptions::default()).await {
            note(format_args!("it is not stopped: {error:#}"));
        }
        // The output shows its end.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop => {}
        _ = interrupts.recv() => {}
    }
}

/// One option `-p`: a range is several ports.
#[derive(Clone, Debug)]
struct Published(Vec<Port>);

fn published(text: &str) -> Result<Published, String> {
    let (addresses, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err("expected tcp, udp or sctp behind the slash".to_owned()),
    };
    let (host, number) = addresses.rsplit_once(':').unwrap_or(("0", addresses));
    let numbers = range(number).ok_or("expected a port, as 80 or 8080:80, or a range, as 80-85")?;
    let wrong = "expected a port, or IP:PORT, before the last colon";
    let (ip, host) = match host.rsplit_once(':') {
        Some((ip, host)) => (ip.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| wrong)?, host),
        None => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), host),
    };
    if let Ok(0) = host.parse::<u16>() {
        let at = SocketAddr::new(ip, 0);
        return Ok(Published(Port::range(numbers, protocol).into_iter().map(|port| port.published_at(at)).collect()));
    }
    let hosts = range(host).ok_or(wrong)?;
    if hosts.end().get() - hosts.start().get() != numbers.end().get() - numbers.start().get() {
        return Err("expected as many ports before the colon as behind it".to_owned());
    }
    let at = SocketAddr::new(ip, hosts.start().get());
    Port::range_published_at(numbers, protocol, at).map(Published).ok_or_else(|| wrong.to_owned())
}

/// A port, or a range as 80-85; `None` also for one that ends before it begins.
fn range(text: &str) -> Option<RangeInclusive<NonZeroU16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (NonZeroU16, NonZeroU16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn mount(text: &str) -> Result<Mount, String> {
    let (mount, read_only) = match text.strip_suffix(":ro") {
        Some(mount) => (mount, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let (source, target) = mount.rsplit_once(':').ok_or("expected SOURCE:PATH")?;
    if source.is_empty() || !Path::new(target).is_absolute() {
        return Err("expected SOURCE:PATH, with an absolute path".to_owned());
    }
    let source = match Path::new(source) {
        path if path.is_absolute() => MountSource::Bind(path.to_owned()),
        _ if source.contains('/') => {
            return Err("expected an absolute path, or the name of a volume, as the source".to_owned());
        }
        _ => MountSource::Volume(source.into()),
    };
    let mount = Mount::new(source, target);
    Ok(if read_only { mount.read_only() } else { mount })
}
