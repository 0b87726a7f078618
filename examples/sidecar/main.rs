//! Starts a sidecar in a private network, works with it, and undoes all: `cargo run --example sidecar -- --help`.

mod service;
mod undoing;
mod work;

use std::{
    fmt::Display,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use runtide_core::{
    ErrorKind, ImageRef, Instance, RuntimeBackend, RuntimeBackendExt,
    manager::{NetworkSpec, Readiness, Sidecar, SidecarManager, SidecarSpec},
};
use runtide_examples::{Stop, Target, choose, duration, find, note, run_undone};
use runtide_journal::Sidecars;
use tokio::sync::mpsc::Receiver;

use self::{
    service::{Service, readiness},
    undoing::Undoing,
    work::Work,
};

/// Image of a sidecar where the runtime has none that is named like it.
const BUSYBOX: &str = "docker.io/library/busybox:latest";

/// Exit code after Ctrl-C, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Start a sidecar in a private network, wait until it answers, work with it, and undo everything.
///
/// The sidecar is a web server of busybox, and the work is to fetch its page. With an image of BuildKit the work is to build an
/// image. All is undone at the end, after a failure, and on Ctrl-C; the next start undoes what a run left that was killed.
#[derive(Debug, Parser)]
#[command(name = "sidecar")]
struct Args {
    #[command(flatten)]
    target: Target,
    /// The sidecar's image, with busybox or, as moby/buildkit, BuildKit in it; it is pulled where the runtime does not have it.
    /// Else a busybox that is there, or docker.io/library/busybox:latest
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Name of the network; the sidecar is NAME-sidecar, and the main instance NAME-main
    #[arg(long, value_name = "NAME", default_value = "runtide-example", value_parser = name)]
    name: String,
    /// Work in this running instance, which joins the network for the time, instead of in a new one
    #[arg(long, value_name = "INSTANCE")]
    beside: Option<String>,
    /// The sidecar is ready when it is running, healthy, tcp:PORT, http:PORT/PATH or log:TEXT; else, when a command in it succeeds
    #[arg(long, value_name = "WHEN", value_parser = readiness)]
    ready: Option<Readiness>,
    /// It must be ready within this time, as 500ms, 10s or 5m, the pull of its image included
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    within: Duration,
    /// Keep everything after the work, until Ctrl-C
    #[arg(long)]
    hold: bool,
    /// Only undo what an earlier run left that was killed
    #[arg(long, conflicts_with_all = ["beside", "ready", "hold"])]
    undo: bool,
    /// The folder of the operation log; else runtide/example-sidecar in the user's folder for state
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    run_undone(async |args: Args, mut interrupts| {
        let folder = args.folder()?;
        let backend = tokio::select! {
            backend = choose(&args.target) => backend?,
            Some(()) = interrupts.recv() => return Err(Stop::Exit(INTERRUPTED)),
        };
        let undoing = tokio::select! {
            opened = Undoing::open(&folder, Arc::clone(&backend)) => opened?,
            // The log has all that is left.
            Some(()) = interrupts.recv() => return Err(Stop::Exit(INTERRUPTED)),
        };
        if args.undo {
            return Ok(());
        }
        // All that can be refused is refused before anything is made.
        let beside = args.check(&*backend).await?;
        let sidecars = Sidecars::over(backend, undoing.log().clone())?;
        let end = args.with_sidecar(&sidecars, beside.as_deref(), &mut interrupts).await;
        let finished = tokio::select! {
            finished = undoing.finish() => finished,
            Some(()) = interrupts.recv() => {
                note("not all is undone: the next start undoes the rest");
                return Err(Stop::Exit(INTERRUPTED));
            }
        };
        match (end, finished) {
            (Ok(()), finished) => finished.map(drop),
            (Err(Stop::Refused(line)), Ok(_)) => Err(Stop::refused(format_args!("{line}; all is undone"))),
            (Err(end), Ok(_)) => {
                if let Stop::Exit(INTERRUPTED) = end {
                    note("all is undone");
                }
                Err(end)
            }
            (Err(end), Err(unfinished)) => {
                note(format_args!("not all is undone, the next start tries again: {}", describe(&unfinished)));
                Err(end)
            }
        }
    })
}

fn describe(stop: &Stop) -> &str {
    if let Stop::Refused(line) = stop { line } else { "" }
}

impl Args {
    fn folder(&self) -> Result<PathBuf, Stop> {
        let state = || {
            let set = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            Some(set.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?.join("runtide/example-sidecar"))
        };
        self.dir.clone().or_else(state).ok_or_else(|| Stop::refused("there is no home folder: name one with --dir"))
    }

    /// Checks the network, and returns the instance to work beside. A network of that name is used as it is; one that reaches
    /// further than this machine is not what was asked for.
    async fn check(&self, backend: &dyn RuntimeBackend) -> Result<Option<Arc<Instance>>, Stop> {
        let beside = match &self.beside {
            Some(name) => Some(find(backend, name).await??),
            None => None,
        };
        let networks = backend.networks().ok_or_else(|| backend.unsupported("networks_manage"))?;
        let there = networks.list().await?.into_iter().find(|network| network.name == self.name);
        if let Some(network) = there {
            if network.internal != Some(true) {
                let taken = "is the name of a network that is not private: choose another with --name";
                return Err(Stop::refused(format_args!("{} {taken}", self.name)));
            }
            note(format_args!("the network {} is there already: it is used, and stays", self.name));
        }
        Ok(beside)
    }

    /// Starts the sidecar, works with it, and stops it.
    async fn with_sidecar(
        &self,
        sidecars: &Sidecars,
        beside: Option<&Instance>,
        interrupts: &mut Receiver<()>,
    ) -> Result<(), Stop> {
        let backend = sidecars.inner();
        let manager = sidecars.sidecars().ok_or_else(|| backend.unsupported("sidecars_start"))?;
        let (image, absent) = self.image(&**backend).await?;
        let service = Service::of(&image);

        say(format_args!("network   {}: private", self.name))?;
        let first = if absent { ", which is pulled first" } else { "" };
        say(format_args!("sidecar   {}: of {image}{first}", self.sidecar()))?;
        let begun = Instant::now();
        let spec = self.spec(&image);
        let sidecar = tokio::select! {
            started = manager.start_sidecar(&spec) => started.map_err(|error| match error.kind() {
                _ if absent => Stop::refused(format_args!("{image} was not here: {error:#}; --image names another")),
                ErrorKind::Timeout | ErrorKind::Conflict if self.ready.is_none() => {
                    Stop::refused(format_args!("{error:#}; the image must have {}", service.needs()))
                }
                _ => error.into(),
            })?,
            // The start is given up, and undoes what it has made.
            Some(()) = interrupts.recv() => return interrupted(),
        };
        let took = begun.elapsed().as_secs_f64();
        let said = say(format_args!("ready     {}: after {took:.1} s", self.sidecar()));
        let worked = match said {
            Ok(()) => self.work(sidecars, &sidecar, &image, beside, interrupts).await,
            unread => unread,
        };
        tokio::select! {
            stopped = manager.stop(&sidecar) => stopped?,
            // It is removed without the time to end by itself.
            Some(()) = interrupts.recv() => return interrupted(),
        };
        let said = say(format_args!("undone    {}, {}", self.sidecar(), self.name));
        worked.and(said)
    }

    /// The image, and `true` if the runtime lacks it.
    async fn image(&self, backend: &dyn RuntimeBackend) -> Result<(ImageRef, bool), Stop> {
        let images = backend.images().ok_or_else(|| backend.unsupported("images_manage"))?;
        if let Some(image) = &self.image {
            let image = ImageRef::from(image.as_str());
            let absent = !images.exists(&image).await?;
            return Ok((image, absent));
        }
        let is_busybox =
            |tag: &ImageRef| tag.as_str().rsplit('/').next().is_some_and(|name| name.starts_with("busybox:"));
        let there = images.list().await?.into_iter().flat_map(|image| image.tags).find(is_busybox);
        let absent = there.is_none();
        Ok((there.unwrap_or_else(|| BUSYBOX.into()), absent))
    }

    fn sidecar(&self) -> String {
        format!("{}-sidecar", self.name)
    }

    fn spec(&self, image: &ImageRef) -> SidecarSpec {
        let service = Service::of(image);
        let ready = self.ready.clone().unwrap_or_else(|| service.ready());
        SidecarSpec::new(service.instance(image).with_name(self.sidecar()), ready, self.within)
            .with_network(NetworkSpec::named(&self.name).with_internal())
    }

    /// Works with a sidecar that is ready.
    async fn work(
        &self,
        sidecars: &Sidecars,
        sidecar: &Sidecar,
        image: &ImageRef,
        beside: Option<&Instance>,
        interrupts: &mut Receiver<()>,
    ) -> Result<(), Stop> {
        let service = Service::of(image);
        let instance = SidecarManager::inspect(sidecars, sidecar).await?;
        let addresses = instance.addresses.iter().flatten().map(|address| address.ip);
        let Some(ip) = addresses.min_by_key(IpAddr::is_ipv6) else {
            return Err(Stop::refused(format_args!("{} shows no address of the sidecar", sidecars.kind())));
        };
        let at = SocketAddr::new(ip, service.port().get());
        let mut work = Work::begin(sidecars, sidecar, service.work(at)).await?;
        let done = match beside {
            Some(instance) => work.beside(instance, interrupts).await,
            None => work.in_new(&format!("{}-main", self.name), image, interrupts).await,
        };
        if let Err(Stop::Exit(code)) = &done
            && *code != INTERRUPTED
        {
            note(format_args!("the work ended with code {code}"));
        }
        if done.is_ok() && self.hold {
            say("holding   until Ctrl-C")?;
            interrupts.recv().await;
        }
        work.undo().await?;
        done
    }
}

fn interrupted() -> Result<(), Stop> {
    note("undoing what was made; Ctrl-C once more leaves it to the next start");
    Err(Stop::Exit(INTERRUPTED))
}

/// One step, on stdout.
fn say(line: impl Display) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A name that any runtime takes, also with a suffix.
fn name(text: &str) -> Result<String, String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && text.len() <= 100 && text.bytes().all(word) {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits, -, _ and ., a letter or digit first, at most 100".to_owned())
    }
}
