//! The daemons of a run: started where they are not up, and taken down at its end.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::terminal::{complain, say};

/// With the installation of packages, and on a machine's first run with a build.
const UP: Duration = Duration::from_secs(45 * 60);
const DOWN: Duration = Duration::from_secs(5 * 60);

/// Options for the daemons.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Start no daemons, and use none
    #[arg(long)]
    pub(crate) no_real: bool,
    /// Install the packages that the testbed needs (implied by CI=true)
    #[arg(long)]
    pub(crate) install: bool,
}

/// How the variables begin that name daemons to the tests.
const OF_DAEMONS: [&str; 4] = ["RUNTIDE_TEST", "RUNTIDE_TEST_PODMAN", "RUNTIDE_TEST_REGISTRY", "RUNTIDE_TEST_SSH"];

/// The backend whose tests need this daemon: that of its name, unless it is a further daemon of another.
pub(crate) fn backend(daemon: &str) -> &str {
    ["systemd", "docker", "podman", "k8s"].into_iter().find(|name| daemon.starts_with(name)).unwrap_or(daemon)
}

/// The variable with a daemon's address.
pub(crate) fn variable(daemon: &str) -> String {
    let name = if daemon == "sshd" { "ssh" } else { daemon };
    format!("RUNTIDE_TEST_{}", name.to_uppercase().replace('-', "_"))
}

/// The daemons of a run: those that the tests use, and those to take down afterwards.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    tool: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    options: Options,
    /// Each known daemon, with its state in words.
    pub(crate) daemons: Vec<(&'static str, String)>,
    /// The daemons that could not be started, with the reasons.
    pub(crate) missing: Vec<(&'static str, String)>,
    started: Vec<&'static str>,
    builds: Vec<Child>,
}

impl Stage {
    /// No daemon yet.
    pub(crate) fn empty(options: Options) -> Outcome<Self> {
        let tool = env::current_exe().doing("cannot find this program")?;
        let mut stage = Self::default();
        (stage.tool, stage.options) = (tool, options);
        Ok(stage)
    }

    /// Begins to build what no package has, in the background: the first `up` waits for it, and later runs find it.
    pub(crate) fn build(&mut self, daemon: &'static str) {
        if self.options.no_real || env::var_os(variable(daemon)).is_some() {
            return;
        }
        let mut command = Command::new(&self.tool);
        command.args(["testbed", "build", daemon]).args(self.options.install.then_some("--install"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its own process group: Ctrl-C at the terminal reaches this tool alone, which then ends it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        // If it does not start or fails, `up` says why.
        self.builds.extend(command.spawn());
    }

    /// Gets one daemon if it can be had, and says its state.
    pub(crate) fn add(&mut self, daemon: &'static str) -> Outcome<()> {
        let stands = self.daemon(daemon)?;
        say!("{daemon}: {stands}");
        self.daemons.push((daemon, stands));
        Ok(())
    }

    /// Gets one daemon if it can be had, and returns its state in words.
    fn daemon(&mut self, daemon: &'static str) -> Outcome<String> {
        if self.options.no_real {
            return Ok("not used (--no-real)".to_owned());
        }
        let variable = variable(daemon);
        // With the testbed's own variables set, the daemon may be the testbed's, which is managed here.
        if let Ok(address) = env::var(&variable)
            && env::var_os("RUNTIDE_TESTBED").is_none()
        {
            let state = format!("as {variable} says: {address}");
            self.environment.insert(variable, address);
            return Ok(state);
        }
        // With a caller's own systemd, only the daemons that the caller names are used.
        let main = self::variable(backend(daemon));
        if main != variable && env::var_os(&main).is_some() && env::var_os("RUNTIDE_TESTBED").is_none() {
            return Ok(format!("not used: {main} is set, and {variable} is not"));
        }
        let was_up = self.testbed(&["status", daemon], DOWN)?.status.success();
        let mut up = vec!["up", daemon];
        if self.options.install {
            up.push("--install");
        }
        if !was_up {
            // From here on it may be half up, also after a failure or Ctrl-C.
            self.started.push(daemon);
        }
        let said = self.testbed(&up, UP)?;
        if !said.status.success() {
            let complaint = said.complaint();
            let why = format!("not there: {}", complaint.strip_prefix("xtask: ").unwrap_or(&complaint));
            self.missing.push((daemon, why.clone()));
            return Ok(why);
        }
        self.environment.extend(said.stdout.lines().filter_map(exported));
        let line = said.stdout.lines().find_map(|line| line.strip_prefix(daemon)?.strip_prefix(": up, "));
        Ok(format!("{}, {}", line.unwrap_or("up"), if was_up { "was up and stays up" } else { "started for this run" }))
    }

    /// In a separate process, so that the daemons' parent is not this one, which would have to reap them.
    fn testbed(&self, words: &[&str], limit: Duration) -> Outcome<process::Said> {
        process::capture(Command::new(&self.tool).arg("testbed").args(words), limit, Interrupt::Waits)
    }

    pub(crate) fn apply(&self, command: &mut Command) {
        if self.options.no_real {
            for (name, _) in env::vars_os() {
                if name.to_str().is_some_and(|name| OF_DAEMONS.iter().any(|begin| name.starts_with(begin))) {
                    command.env_remove(name);
                }
            }
        }
        command.envs(&self.environment);
    }

    /// The environment that points a backend's suite at this further daemon; `None` if the daemon is not there.
    pub(crate) fn again_on(&self, daemon: &str) -> Option<BTreeMap<String, String>> {
        let (main, variable) = (variable(backend(daemon)), variable(daemon));
        self.environment.get(&variable)?;
        let own = self.environment.iter().filter_map(|(name, value)| Some((name.strip_prefix(&variable)?, value)));
        let mut again: BTreeMap<_, _> = own.map(|(suffix, value)| (format!("{main}{suffix}"), value.clone())).collect();
        again.insert(format!("{main}_IS"), daemon.to_owned());
        Some(again)
    }

    pub(crate) fn clear(&mut self) -> Outcome<()> {
        let mut outcome = Ok(());
        for mut build in std::mem::take(&mut self.builds) {
            process::end(&mut build);
        }
        for daemon in std::mem::take(&mut self.started) {
            let kept = self.environment.get("RUNTIDE_TESTBED").map(PathBuf::from);
            self.tool = kept.filter(|tool| tool.exists()).unwrap_or_else(|| self.tool.clone());
            let down = self.testbed(&["down", daemon], DOWN).and_then(|said| match said.status.code() {
                // 2: not root, so nothing was started, either.
                Some(0 | 2) => Ok(()),
                _ => Err(Failure::failed(said.complaint())),
            });
            outcome = outcome.and(down);
        }
        outcome
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(failure) = self.clear() {
            complain!("xtask: {failure}");
        }
    }
}

/// `export NAME=value`, as `testbed up` prints it.
fn exported(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
    Some((name.to_owned(), quoted.map_or_else(|| value.to_owned(), |value| value.replace(r"'\''", "'"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_daemon_replaces_the_usual_one() {
        let mut stage = Stage::default();
        assert_eq!(stage.again_on("systemd257"), None, "it is not there");
        for (name, value) in [
            ("RUNTIDE_TEST_SYSTEMD", "unix:path=/a"),
            ("RUNTIDE_TEST_SYSTEMD_ROOT", "/a"),
            ("RUNTIDE_TEST_SYSTEMD257", "unix:path=/b"),
            ("RUNTIDE_TEST_SYSTEMD257_ROOT", "/b"),
        ] {
            stage.environment.insert(name.to_owned(), value.to_owned());
        }
        let again = [
            ("RUNTIDE_TEST_SYSTEMD", "unix:path=/b"),
            ("RUNTIDE_TEST_SYSTEMD_IS", "systemd257"),
            ("RUNTIDE_TEST_SYSTEMD_ROOT", "/b"),
        ];
        let again = again.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(stage.again_on("systemd257"), Some(BTreeMap::from(again)));
    }

    #[test]
    fn the_testbeds_exports_are_read_back() {
        assert_eq!(exported("export A=unix:///x=y"), Some(("A".to_owned(), "unix:///x=y".to_owned())));
        assert_eq!(exported(r"export B='it'\''s'"), Some(("B".to_owned(), "it's".to_owned())));
        assert_eq!(exported("docker: up"), None);
    }
}
