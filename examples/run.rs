//! Runs an instance in the foreground: `cargo run --example run -- --help`.

use std::{
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    path::Path,
    process::ExitCode,
};

use clap::Parser;
use runtide_core::{
    ImageRef, InstanceId, Port, Protocol, RuntimeBackend, RuntimeBackendExt, RuntimeKind,
    manager::{
        AttachOptions, ImageProgress, InstanceSpec, LifecycleManager, Mount, MountSource, PullOptions, RemoveOptions,
        StopOptions,
    },
};
use runtide_examples::{Stop, Target, Terminal, choose, follow, note, run_undone, variable};
use tokio::sync::mpsc::Receiver;

/// Label by which an instance is found whose program was killed.
const OWNER: (&str, &str) = ("runtide.owner", "example-run");

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
    /// A variable for its environment; several: all of them
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A port to publish, as 8080:80, 127.0.0.1:8080:80/udp, or 80 for a port that the runtime picks; several: all of them
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT[/PROTOCOL]", value_parser = published)]
    publish: Vec<Port>,
    /// A folder or a volume to mount, as /srv/www:/www:ro or pages:/www; several: all of them
    #[arg(long, value_name = "SOURCE:PATH[:ro]", value_parser = mount)]
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
            let session = exec.start_attached(&id, attach).await?;
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
        let options = RemoveOptions::default().with_kill().with_anonymous_volumes();
        lifecycle.remove(&id, options).await?;
        end
    })
}

impl Args {
    fn spec(&self, kind: &RuntimeKind) -> InstanceSpec {
        let mut spec = InstanceSpec::of_image(self.image.as_str())
            .with_command(self.command.clone())
            .with_env(self.env.clone())
            .with_label(OWNER.0, OWNER.1)
            .with_ports(self.publish.clone())
            .with_mounts(self.volume.clone());
        spec.name.clone_from(&self.name);
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

fn published(text: &str) -> Result<Port, String> {
    let (addresses, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err("expected tcp, udp or sctp behind the slash".to_owned()),
    };
    let (host, number) = addresses.rsplit_once(':').unwrap_or(("0", addresses));
    let number: NonZeroU16 = number.parse().map_err(|_| "expected a port, as 80 or 8080:80".to_owned())?;
    let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let host = match host.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(anywhere, port)),
        Err(_) => host.parse().map_err(|_| "expected a port, or IP:PORT, before the last colon".to_owned()),
    };
    Ok(Port::new(number, protocol).published_at(host?))
}

fn mount(text: &str) -> Result<Mount, String> {
    let (mount, read_only) = text.strip_suffix(":ro").map_or((text, false), |mount| (mount, true));
    let (source, target) = mount.rsplit_once(':').ok_or("expected SOURCE:PATH")?;
    if source.is_empty() || !Path::new(target).is_absolute() {
        return Err("expected SOURCE:PATH, with an absolute path".to_owned());
    }
    let source = match Path::new(source) {
        path if path.is_absolute() => MountSource::Bind(path.to_owned()),
        _ => MountSource::Volume(source.into()),
    };
    let mount = Mount::new(source, target);
    Ok(if read_only { mount.read_only() } else { mount })
}
