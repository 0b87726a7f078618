//! The `docker` command itself, against which this crate's reading of logs and addresses is compared.

use std::{
    path::Path,
    process::{Command, Output},
};

use runtide_conformance::report;

/// The command, with no variable of `docker`'s own set. `None`: it is not installed, with a line in the report.
pub(crate) fn docker(test: &str) -> Option<Command> {
    // The package's own, which is of the daemon's version, before any other one on the path.
    let program = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
    let command = command(program);
    if command.is_none() {
        report::skip(test, "docker", "there is no docker command to compare with");
    }
    command
}

/// The command that a shell would run, which may be newer than the package's.
#[allow(dead_code, reason = "the unit tests compare with the package's alone")]
pub(crate) fn docker_on_path() -> Option<Command> {
    command("docker")
}

fn command(program: &str) -> Option<Command> {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        return None;
    }
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("DOCKER_")) {
            command.env_remove(name);
        }
    }
    Some(command)
}

/// Runs it with these arguments; stdout and stderr.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}
