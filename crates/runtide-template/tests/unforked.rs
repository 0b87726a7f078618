//! The template as it is: every law fails, and says what is to be written next. FORK: remove this file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod harness;

use std::{fs, path::Path, process::Command};

use harness::TemplateHarness;
use runtide_conformance::{
    Clock, Law,
    report::Outcome,
    run::{block_on, run},
};

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The text of every file below a folder.
fn texts(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { texts.extend(self::texts(&path)) } else { texts.push(fs::read_to_string(path).unwrap()) }
    }
    texts
}

#[test]
fn the_first_steps_of_the_guide_leave_a_crate_of_another_name() {
    let here = std::env::current_dir().unwrap(); // a test runs in the folder of its package
    let guide = fs::read_to_string(here.join("../../docs/add-a-backend.md")).unwrap();
    let steps: Vec<&str> = guide
        .lines()
        .skip_while(|line| *line != "```sh")
        .skip(1)
        .take_while(|line| !line.starts_with("cargo"))
        .collect();
    assert!(steps.len() > 3, "{steps:?}");

    let folder = tempfile::tempdir().unwrap();
    copy(&here, &folder.path().join("crates/runtide-template"));
    let status = Command::new("sh").arg("-ec").arg(steps.join("\n")).current_dir(folder.path()).status().unwrap();
    assert!(status.success(), "{steps:?}");

    let fork = folder.path().join("crates/runtide-mine");
    let texts = texts(&fork);
    assert!(texts.iter().all(|text| !text.to_lowercase().contains("template")), "every name is another");
    assert!(texts.iter().any(|text| text.contains("FORK:")), "the marks are there");
    assert!(!fork.join("tests/unforked.rs").exists());
    let manifest = fs::read_to_string(fork.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("name = \"runtide-mine\"") && !manifest.contains("test = false"), "{manifest}");
}

#[test]
fn each_law_fails_and_names_a_step_that_is_to_be_written() {
    for &law in Law::ALL {
        let start = || TemplateHarness::on("/run/there-is-no-runtime.sock".into());
        let line = block_on(Clock::Virtual, run(law, Clock::Virtual, start, |harness| harness)).unwrap().line;
        let reason = line.reason.unwrap_or_default();
        assert!(line.outcome == Outcome::Failed && reason.contains("FORK:"), "{law}: {:?}: {reason}", line.outcome);
    }
}
