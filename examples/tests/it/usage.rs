//! Every example with too few, half and wrong arguments, at 80 columns, and into a pipe that nothing reads.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Stdio},
};

use runtide_core::wal::{RecordKind, Wal, WalOptions};

use crate::cli::{example, refused, run, text};

/// Every program and command, as words before `--help`.
const COMMANDS: [&[&str]; 24] = [
    &["changes"],
    &["watch"],
    &["ps"],
    &["logs"],
    &["exec"],
    &["run"],
    &["sidecar"],
    &["journal"],
    &["custom_backend"],
    &["wal"],
    &["wal", "dump"],
    &["wal", "tail"],
    &["wal", "verify"],
    &["wal", "stats"],
    &["wal", "salvage"],
    &["store"],
    &["store", "apply"],
    &["store", "get"],
    &["store", "list"],
    &["store", "delete"],
    &["store", "watch"],
    &["store", "snapshot"],
    &["store", "restore"],
    &["store", "demo"],
];

fn split<'a>(words: &[&'a str]) -> (&'a str, Vec<&'a str>) {
    (words[0], words[1..].to_vec())
}

#[test]
fn each_missing_argument_is_named() {
    for (words, missing) in [
        (&["logs"][..], "missing: <NAME>"),
        (&["exec"], "missing: <NAME>, <COMMAND>..."),
        (&["exec", "web"], "missing: <COMMAND>..."),
        (&["journal"], "missing: --dir <FOLDER>"),
        (&["wal", "dump"], "missing: <DIR>"),
        (&["wal", "tail"], "missing: <DIR>"),
        (&["wal", "verify"], "missing: <DIR>"),
        (&["wal", "stats"], "missing: <DIR>"),
        (&["wal", "salvage"], "missing: <DIR>, <OUT>"),
        (&["wal", "salvage", "a"], "missing: <OUT>"),
        (&["store", "apply"], "missing: <FILE>"),
        (&["store", "get"], "missing: <REFERENCE>"),
        (&["store", "delete"], "missing: <REFERENCE>"),
        (&["store", "snapshot"], "missing: <FILE>"),
        (&["store", "restore"], "missing: <FILE>"),
        (&["wal"], "a command is missing: expected one of dump, tail, verify, stats, salvage"),
        (&["wal", "--key", "k"], "a command is missing: expected one of dump, tail, verify, stats, salvage"),
    ] {
        let (name, args) = split(words);
        let line = refused(name, &args);
        assert!(line.contains(missing) && !line.contains("Inspect a"), "{words:?}: {line}");
    }
    // The same in a session.
    let folder = tempfile::tempdir().unwrap();
    let mut command = example("store");
    let mut child = command.current_dir(folder.path()).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"get\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(2), "error: missing: <REFERENCE>\n"));
}

#[test]
fn an_option_without_its_value_is_named() {
    for words in [
        &["changes", "--for"][..],
        &["watch", "--backend"],
        &["watch", "--host"],
        &["watch", "--name"],
        &["ps", "--filter"],
        &["ps", "--bus"],
        &["logs", "x", "--since"],
        &["logs", "x", "--tail"],
        &["exec", "--env"],
        &["exec", "--user"],
        &["exec", "--workdir"],
        &["journal", "--dir"],
        &["journal", "--dir", "x", "--verify"],
        &["custom_backend", "--folder"],
        &["wal", "tail", "x", "-n"],
        &["wal", "--key"],
        &["store", "--store"],
        &["store", "list", "--label"],
        &["store", "watch", "--since"],
        &["store", "apply", "x", "--as"],
    ] {
        let (name, args) = split(words);
        let line = refused(name, &args);
        assert!(line.contains(words.last().unwrap()) && line.contains('<'), "{words:?}: {line}");
    }
}

#[test]
fn help_fits_into_80_columns_and_breaks_between_words() {
    for words in COMMANDS {
        let (name, args) = split(words);
        let long = text(&run(name, &[&args[..], &["--help"]].concat()).stdout);
        // The same words, however long the lines are.
        let flat = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for columns in ["60", "80"] {
            let output = example(name).args(&args).arg("--help").env("COLUMNS", columns).output().unwrap();
            let help = text(&output.stdout);
            let most: usize = columns.parse().unwrap();
            let wide: Vec<&str> =
                help.lines().filter(|line| line.chars().count() > most && line.contains("  ")).collect();
            assert_eq!(wide, [""; 0], "{words:?} at {columns}");
            assert_eq!(flat(&help), flat(&long), "{words:?} at {columns}: no word is broken");
        }
        assert!(long.lines().all(|line| line.chars().count() <= 80), "{words:?}: {long}");
    }
}

#[test]
fn what_this_build_lacks_is_not_offered() {
    let help = text(&run("store", &["--help"]).stdout);
    let unknown = refused("store", &["--store", "nonsense", "stats"]);
    assert_eq!(help.contains("etcd:"), unknown.contains("etcd:"), "{unknown}");
    if !help.contains("etcd:") {
        assert!(refused("store", &["--store", "etcd:localhost:1", "stats"]).contains("needs the feature"));
    }
}

#[test]
fn lines_fit_into_80_columns() {
    for (words, columns) in [
        (&["watch", "--backend", "memory", "--for", "5s"][..], Some("80")),
        (&["changes", "--backend", "memory", "--for", "3s"], None),
        (&["ps", "--backend", "memory", "--all"], Some("80")),
        (&["ps", "--backend", "memory", "--all", "--full"], Some("60")),
        (&["custom_backend", "--for", "3s"], Some("80")),
    ] {
        let (name, args) = split(words);
        let mut command = example(name);
        columns.map(|columns| command.env("COLUMNS", columns));
        let said = text(&command.args(args).output().unwrap().stdout);
        let most: usize = columns.unwrap_or("80").parse().unwrap();
        assert!(said.lines().count() > 2, "{words:?}: {said}");
        for line in said.lines() {
            assert!(line.chars().count() <= most, "{words:?}: {line}");
        }
    }
    // Into a pipe nothing is cut, and most lines fit all the same.
    let said = text(&run("watch", &["--backend", "memory", "--for", "5s"]).stdout);
    let wide = said.lines().filter(|line| line.chars().count() > 80).count();
    assert!(wide * 4 <= said.lines().count(), "{wide} of {}: {said}", said.lines().count());
}

/// Starts the program with a stdout that nothing reads.
fn unread(words: &[&str], folder: &Path) -> Child {
    let (name, args) = split(words);
    let mut child = example(name).current_dir(folder).args(args).spawn().unwrap();
    drop(child.stdout.take());
    child
}

#[test]
fn a_pipe_that_nothing_reads_is_an_end_for_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let wal = Wal::open(&folder.path().join("log"), WalOptions::default()).unwrap();
    for _ in 0..1_000 {
        wal.append_blocking(RecordKind(7), &[b'x'; 500]).unwrap();
    }
    drop(wal);
    fs::write(folder.path().join("n.json"), r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}"#).unwrap();
    assert!(
        example("store")
            .current_dir(folder.path())
            .args(["--store", "dir:S", "apply", "n.json"])
            .status()
            .unwrap()
            .success()
    );
    for words in [
        &["changes", "--backend", "memory", "--for", "60s"][..],
        &["watch", "--backend", "memory", "--for", "60s"],
        &["ps", "--backend", "memory", "--all"],
        &["ps", "--backend", "memory", "--json"],
        &["logs", "--backend", "memory", "shop-web-1"],
        &["exec", "--backend", "memory", "shop-web-1", "emit", "1000000", "7"],
        &["journal", "--backend", "memory", "--dir", "J", "--for", "60s"],
        &["custom_backend", "--for", "60s"],
        &["wal", "dump", "log"],
        &["wal", "tail", "log"],
        &["wal", "verify", "log"],
        &["wal", "stats", "log"],
        &["store", "--store", "dir:S", "list"],
        &["store", "--store", "dir:S", "get", "/Node//n"],
        &["store", "--store", "dir:S", "stats"],
        &["store", "--store", "dir:S", "watch", "--since", "start", "--for", "60s"],
        &["store", "demo"],
        &["watch", "--help"],
        &["store", "apply", "--help"],
    ] {
        let output = unread(words, folder.path()).wait_with_output().unwrap();
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {complaint}");
        assert!(!complaint.contains("error:") && !complaint.contains("panicked"), "{words:?}: {complaint}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_whose_name_is_no_text_makes_the_listing_partial_and_is_named() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("web"), "running").unwrap();
    fs::write(folder.path().join(OsStr::from_bytes(b"caf\xe9")), "running").unwrap();
    let folder = folder.path().to_str().unwrap();
    let output = run("custom_backend", &["--folder", folder, "--for", "5s"]);
    let (said, notes) = (text(&output.stdout), text(&output.stderr));
    assert!(said.contains("web"), "{said}");
    assert!(notes.contains("not shown: caf"), "it is not left out in silence: {notes}");
}
