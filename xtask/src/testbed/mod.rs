//! Real daemons on this machine, for tests: started in a private folder, taken down without a trace.

mod before;
mod cache;
mod cgroup;
mod docker;
mod etcd;
mod folder;
mod guest;
mod home;
mod http;
mod https;
mod image;
mod k8s;
mod log;
mod mounts;
mod network;
mod packages;
mod places;
mod podman;
mod ports;
mod procfs;
mod registry;
mod service;
mod sshd;
mod suite;
mod systemd;
mod systemd_user;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};

use self::docker::Docker;
use self::etcd::Etcd;
use self::k8s::{Apilib, FakeNode, K8s, KubeNode};
use self::podman::Podman;
use self::registry::Registry;
use self::service::Service;
use self::sshd::Sshd;
use self::systemd::Machine;
use self::systemd_user::SystemdUser;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, TICK};
use crate::terminal::say;
use crate::workspace;

/// The daemons that the testbed can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Daemon {
    Docker,
    Podman,
    Registry,
    Sshd,
    Etcd,
    Systemd,
    Systemd2,
    SystemdUser,
    K8s,
    K8sNode,
    K8sFake,
    Systemd257,
    Docker26,
    Podman5,
    K8sLibs,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Registry => "registry",
            Self::Sshd => "sshd",
            Self::Etcd => "etcd",
            Self::Systemd => "systemd",
            Self::Systemd2 => "systemd2",
            Self::SystemdUser => "systemd-user",
            Self::K8s => "k8s",
            Self::K8sNode => "k8s-node",
            Self::K8sFake => "k8s-fake",
            Self::Systemd257 => "systemd257",
            Self::Docker26 => "docker26",
            Self::Podman5 => "podman5",
            Self::K8sLibs => "k8s-libs",
        }
    }

    /// The part of its work that needs root; `None` if it runs as any user.
    fn needs_root(self) -> Option<&'static str> {
        match self {
            Self::Docker | Self::Podman | Self::Docker26 | Self::Podman5 => {
                Some("it starts daemons, bridges and mounts")
            }
            Self::Sshd => Some("its user is root"),
            Self::Registry | Self::Etcd => None,
            _ => Some("it makes namespaces, control groups and mounts"),
        }
    }

    fn service(self) -> Box<dyn Service> {
        let testbed = workspace::target("testbed");
        match self {
            Self::Docker => Box::new(Docker::below(&testbed)),
            Self::Podman => Box::new(Podman::below(&testbed)),
            Self::Registry => Box::new(Registry::below(&testbed)),
            Self::Sshd => Box::new(Sshd::below(&testbed)),
            Self::Etcd => Box::new(Etcd::below(&testbed)),
            Self::Systemd => Box::new(Machine::first(&testbed)),
            Self::Systemd2 => Box::new(Machine::second(&testbed)),
            Self::SystemdUser => Box::new(SystemdUser::below(&testbed)),
            Self::K8s => Box::new(K8s::below(&testbed)),
            Self::K8sNode => Box::new(KubeNode::below(&testbed)),
            Self::K8sFake => Box::new(FakeNode::below(&testbed)),
            Self::Systemd257 => Box::new(Machine::newer(&testbed)),
            Self::Docker26 => Box::new(Docker::newer(&testbed)),
            Self::Podman5 => Box::new(Podman::newer(&testbed)),
            Self::K8sLibs => Box::new(Apilib::below(&testbed)),
        }
    }
}

/// The same, by name.
pub(crate) const KNOWN: [&str; 15] = [
    "docker",
    "podman",
    "registry",
    "sshd",
    "etcd",
    "systemd",
    "systemd2",
    "systemd-user",
    "k8s",
    "k8s-node",
    "k8s-fake",
    "systemd257",
    "docker26",
    "podman5",
    "k8s-libs",
];

/// The slow ones, which are started only by name and for the support matrix.
pub(crate) const LATER: [&str; 4] = ["systemd257", "docker26", "podman5", "k8s-libs"];

/// The ones that are built from source, once per machine.
pub(crate) const BUILT: [&str; 1] = ["k8s"];

/// The ones that are started if none is named.
const USUAL: [Daemon; 11] = [
    Daemon::Docker,
    Daemon::Podman,
    Daemon::Registry,
    Daemon::Sshd,
    Daemon::Etcd,
    Daemon::Systemd,
    Daemon::Systemd2,
    Daemon::SystemdUser,
    Daemon::K8s,
    Daemon::K8sNode,
    Daemon::K8sFake,
];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the daemons that no package has, into a cache outside of the checkout; `up` does it as well
    Build {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
        /// Install the Debian packages that this needs (implied by CI=true)
        #[arg(long)]
        install: bool,
    },
    /// Start daemons, make their images, and write target/testbed/env
    Up {
        /// The daemons (default: all but systemd257, docker26, podman5 and k8s-libs)
        daemons: Vec<Daemon>,
        /// Install the Debian packages first (implied by CI=true)
        #[arg(long)]
        install: bool,
    },
    /// Stop daemons and everything in them, and restore the machine
    Down {
        /// The daemons (default: all)
        daemons: Vec<Daemon>,
    },
    /// Print which daemons are up; exit code 1 if one of them is not
    Status {
        /// The daemons (default: all but systemd257, docker26, podman5 and k8s-libs)
        daemons: Vec<Daemon>,
    },
    /// For tests: start a daemon of a testbed that is up, if it does not run
    Start {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
    /// For tests: SIGTERM, and wait; containers stay, and so does what etcd keeps. Of systemd: power off
    Stop {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
    /// For tests: SIGKILL, and wait; containers stay, and so does what etcd keeps. Of systemd: cut the power
    Kill {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
    /// For tests: stop and start; containers stay, and so does what etcd keeps
    Restart {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
    /// For tests: SIGSTOP; it is there, and does not answer. Of k8s and its nodes
    Pause {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
    /// For tests: SIGCONT, after a pause
    Continue {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
    /// The process of k8s-fake
    #[command(hide = true)]
    Fakelet(k8s::FakeletArguments),
    /// For tests: drop the history of the API server's etcd. Of k8s
    Compact {
        /// The daemons
        #[arg(required = true)]
        daemons: Vec<Daemon>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    if let Verb::Status { .. } = &arguments.verb {
        return status(arguments.verb.daemons());
    }
    if let Verb::Fakelet(arguments) = &arguments.verb {
        return k8s::run_fakelet(arguments);
    }
    // Without the lock of the verbs: it takes minutes, and the cache has its own.
    if let Verb::Build { daemons, install } = &arguments.verb {
        process::catch_interrupts()?;
        return each(daemons, |service| service.build(*install || in_ci()));
    }
    if !rustix::process::geteuid().is_root()
        && let Some((daemon, why)) =
            arguments.verb.daemons().iter().find_map(|daemon| Some((daemon, daemon.needs_root()?)))
    {
        return Err(Failure::refused(format_args!("the testbed of {} needs root: {why}", daemon.name())));
    }
    let folder = workspace::target("testbed");
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    let _lock = lock(&folder)?;
    match &arguments.verb {
        Verb::Up { install, .. } => up(&folder, arguments.verb.daemons(), *install || in_ci()),
        Verb::Down { .. } => down(&folder, arguments.verb.daemons()),
        Verb::Build { .. } | Verb::Status { .. } | Verb::Fakelet(_) => Ok(()),
        Verb::Start { daemons } => each(daemons, |service| service.start()),
        Verb::Stop { daemons } => each(daemons, |service| service.stop()),
        Verb::Kill { daemons } => each(daemons, |service| service.kill()),
        Verb::Restart { daemons } => each(daemons, |service| service.stop().and_then(|()| service.start())),
        Verb::Pause { daemons } => each(daemons, |service| service.pause()),
        Verb::Continue { daemons } => each(daemons, |service| service.proceed()),
        Verb::Compact { daemons } => each(daemons, |service| service.compact()),
    }
}

impl Verb {
    /// The named daemons; by default the usual ones, and for `down` all.
    fn daemons(&self) -> &[Daemon] {
        let (Self::Build { daemons, .. }
        | Self::Up { daemons, .. }
        | Self::Down { daemons }
        | Self::Status { daemons }
        | Self::Start { daemons }
        | Self::Stop { daemons }
        | Self::Kill { daemons }
        | Self::Restart { daemons }
        | Self::Pause { daemons }
        | Self::Continue { daemons }
        | Self::Compact { daemons }) = self
        else {
            return &[];
        };
        match self {
            _ if !daemons.is_empty() => daemons,
            Self::Down { .. } => Daemon::value_variants(),
            _ => &USUAL,
        }
    }
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

fn each(daemons: &[Daemon], verb: impl Fn(&dyn Service) -> Outcome<()>) -> Outcome<()> {
    daemons.iter().try_for_each(|daemon| verb(&*daemon.service()))
}

fn up(folder: &Path, daemons: &[Daemon], install: bool) -> Outcome<()> {
    for daemon in daemons {
        let service = daemon.service();
        service.up(install)?;
        say!("{}: up, {}", daemon.name(), service.summary()?);
    }
    let tool = keep_this_tool(folder)?;
    let environment = write_environment(folder, Some(&tool))?;
    say!("{}", environment.trim_end());
    Ok(())
}

fn down(folder: &Path, daemons: &[Daemon]) -> Outcome<()> {
    let mut outcome = Ok(());
    for daemon in daemons {
        match daemon.service().down() {
            Ok(true) => say!("{}: down", daemon.name()),
            Ok(false) => say!("{}: was not up", daemon.name()),
            Err(failure) => outcome = Err(failure),
        }
    }
    write_environment(folder, None)?;
    outcome
}

fn status(daemons: &[Daemon]) -> Outcome<()> {
    let mut missing = false;
    for daemon in daemons {
        match daemon.service().summary() {
            Ok(line) => say!("{}: up, {line}", daemon.name()),
            Err(failure) => {
                say!("{}: not up ({failure})", daemon.name());
                missing = true;
            }
        }
    }
    if missing { Err(Failure::silent()) } else { Ok(()) }
}

/// Writes the environment of the running daemons as shell lines to `target/testbed/env`, and returns them; removes the file if
/// none is up.
fn write_environment(folder: &Path, tool: Option<&Path>) -> Outcome<String> {
    let path = folder.join("env");
    let mut environment = BTreeMap::new();
    for daemon in Daemon::value_variants() {
        environment.extend(daemon.service().environment());
    }
    if environment.is_empty() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::failed(format_args!("cannot remove {}: {error}", path.display())));
            }
            _ => return Ok(String::new()),
        }
    }
    let tool = tool.map_or_else(|| folder.join("xtask"), Path::to_path_buf);
    environment.insert("RUNTIDE_TESTBED", tool.display().to_string());
    let lines = shell_lines(&environment);
    fs::write(&path, &lines).doing(format_args!("cannot write {}", path.display()))?;
    Ok(lines)
}

fn shell_lines(environment: &BTreeMap<&'static str, String>) -> String {
    use std::fmt::Write as _;
    let mut lines = String::new();
    for (name, value) in environment {
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "/:._-+@,=".contains(c));
        let value = if plain { value.clone() } else { format!("'{}'", value.replace('\'', r"'\''")) };
        let _ = writeln!(lines, "export {name}={value}");
    }
    lines
}

/// A copy of this program that stays where it is: `cargo test` may build `target/debug/xtask` again while tests call it.
fn keep_this_tool(folder: &Path) -> Outcome<PathBuf> {
    let kept = folder.join("xtask");
    let this = std::env::current_exe().doing("cannot find this program")?;
    if this != kept {
        // Written next to it and renamed: the old copy may be running, and cannot be written to.
        let new = folder.join("xtask.new");
        fs::copy(&this, &new)
            .and_then(|_| fs::rename(&new, &kept))
            .doing(format_args!("cannot copy this program to {}", kept.display()))?;
    }
    Ok(kept)
}

/// Held in a checkout's `target/testbed` while a verb is under way.
const LOCK: &str = "lock";

/// One verb at a time: tests that run at once may each want the daemon restarted.
fn lock(folder: &Path) -> Outcome<File> {
    const LIMIT: Duration = Duration::from_secs(300);
    let path = folder.join(LOCK);
    let file = File::create(&path).doing(format_args!("cannot write {}", path.display()))?;
    let end = Instant::now() + LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(TICK),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::failed("another `testbed` command has been running for five minutes"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::failed(format_args!("cannot lock {}: {error}", path.display())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_command_line() {
        let names: Vec<_> = Daemon::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        assert!(names.iter().map(clap::builder::PossibleValue::get_name).eq(KNOWN));
        assert!(Daemon::value_variants().iter().map(|daemon| daemon.name()).eq(KNOWN));
        let usual = USUAL.iter().map(|daemon| daemon.name());
        assert!(usual.chain(LATER).eq(KNOWN));
    }

    #[test]
    fn the_environment_is_safe_to_source() {
        let environment = BTreeMap::from([("A", "unix:///a/b.sock".to_owned()), ("B", "it's $HOME".to_owned())]);
        assert_eq!(shell_lines(&environment), "export A=unix:///a/b.sock\nexport B='it'\\''s $HOME'\n");
    }
}
