//! `cargo xtask lint`: everything that can be said without running a test.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::budget;
use crate::failure::{Failure, Outcome};
use crate::links;
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::workspace;

const DENY: &str = "0.20.2";
const LIMIT: Duration = Duration::from_secs(25 * 60);
const SHORT: Duration = Duration::from_secs(120);

type Step = fn() -> Outcome<()>;

/// Does everything, also after something failed: who repairs wants to see all of it.
pub(crate) fn run() -> Outcome<()> {
    process::catch_interrupts()?;
    let steps: [(&str, Step); 6] = [
        ("fmt", fmt),
        ("links", page_links),
        ("clippy", clippy),
        ("doc", doc),
        ("deny", deny),
        ("budget", core_budget),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        say!("lint: {name}");
        let begin = Instant::now();
        match step() {
            Ok(()) => say!("lint: {name}: ok, {} s", begin.elapsed().as_secs()),
            Err(_) if process::interrupted() => return Err(Failure::interrupted()),
            Err(failure) => {
                say!("lint: {name}: {failure}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::failed(format_args!("lint: {} failed", failed.join(", ")))) }
}

fn checked(command: &mut Command) -> Outcome<()> {
    let status = process::pass_through(command, LIMIT)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format_args!("{}: {status}", workspace::shown(command))))
}

fn fmt() -> Outcome<()> {
    checked(workspace::cargo().args(["fmt", "--all", "--", "--check"]))
}

fn page_links() -> Outcome<()> {
    let followed = links::check()?;
    say!("lint: {followed} links from page to page");
    Ok(())
}

fn clippy() -> Outcome<()> {
    let mut command = workspace::cargo();
    command.arg("clippy").args(workspace::ALL).args(["--all-targets", "--quiet", "--", "-D", "warnings"]);
    checked(&mut command)
}

fn doc() -> Outcome<()> {
    let mut command = workspace::cargo();
    command.arg("doc").args(workspace::ALL).args(["--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    checked(&mut command)
}

fn deny() -> Outcome<()> {
    let program = cargo_deny()?;
    // The first word tells it that it was called through cargo.
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).args(["--all-features", "check", "licenses", "bans", "sources"]);
    checked(&mut command)
}

/// cargo-deny of the pinned version: from target/tools, from the PATH, or else built into target/tools.
fn cargo_deny() -> Outcome<OsString> {
    let tools = workspace::target("tools");
    let own = tools.join("bin").join(format!("cargo-deny{}", env::consts::EXE_SUFFIX));
    for candidate in [own.clone(), PathBuf::from("cargo-deny")] {
        if has_version(&candidate) {
            return Ok(candidate.into_os_string());
        }
    }
    say!("lint: building cargo-deny {DENY} into {}", workspace::relative(&tools));
    let mut command = workspace::cargo();
    command.args(["install", "cargo-deny", "--locked", "--quiet", "--version", DENY, "--root"]).arg(&tools);
    // It runs for seconds: build it fast rather than well.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    checked(&mut command)?;
    Ok(own.into_os_string())
}

fn has_version(program: &PathBuf) -> bool {
    let said = process::capture(Command::new(program).arg("--version"), SHORT, Interrupt::Ends);
    said.is_ok_and(|said| said.status.success() && said.stdout.split_whitespace().any(|word| word == DENY))
}

fn core_budget() -> Outcome<()> {
    let arguments = ["tree", "--package", "runtide-core", "--edges", "normal", "--prefix", "none"];
    for (features, flags, most) in
        [("no", &[][..], budget::MOST), ("all", &["--all-features"][..], budget::MOST_WITH_FEATURES)]
    {
        let said = process::capture(workspace::cargo().args(arguments).args(flags), SHORT, Interrupt::Ends)?;
        if !said.status.success() {
            return Err(Failure::failed(said.complaint()));
        }
        let crates = budget::judge(&said.stdout, most)
            .map_err(|why| Failure::failed(format_args!("runtide-core with {features} features: {why}")))?;
        say!("lint: runtide-core with {features} features pulls in {crates} crates, itself among them");
    }
    Ok(())
}
