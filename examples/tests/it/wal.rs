//! `wal`, run as a user runs it, on a log that this test makes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use runtide_core::wal::{RecordKind, Wal, WalKey, WalOptions};

fn wal(args: &[&str]) -> Output {
    let mut folder: PathBuf = env::current_exe().unwrap();
    folder.pop();
    folder.set_file_name("examples");
    Command::new(folder.join(format!("wal{}", env::consts::EXE_SUFFIX))).args(args).output().unwrap()
}

fn said(args: &[&str]) -> String {
    let output = wal(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(args: &[&str]) -> String {
    let output = wal(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}

/// A log with this number of records.
fn log(dir: &Path, records: u64, options: WalOptions) -> Wal {
    let wal = Wal::open(dir, options).unwrap();
    for n in 1..=records {
        wal.append_blocking(RecordKind(7), format!("record {n}").as_bytes()).unwrap();
    }
    wal
}

#[test]
fn a_log_is_shown_also_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let writer = log(folder.path(), 30, WalOptions::default());
    let dumped = said(&["dump", dir]);
    assert_eq!(dumped.lines().count(), 30);
    assert!(dumped.lines().next().unwrap().ends_with(r#""kind":7,"text":"record 1"}"#), "{dumped}");
    assert_eq!(said(&["dump", dir, "--from", "29"]).lines().count(), 2);
    assert!(said(&["tail", dir, "-n", "3"]).starts_with(r#"{"seq":28,"#));
    assert_eq!(said(&["tail", dir, "-n", "300"]), dumped);
    let stats = said(&["stats", dir]);
    assert!(stats.contains("30 (from 1)") && stats.contains(&writer.anchor().to_string()), "{stats}");
}

#[test]
fn a_tail_that_was_cut_off_is_detected_by_the_anchor_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let writer = log(&whole, 10, WalOptions::default());
    fs::create_dir(&cut).unwrap();
    for file in fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, cut.join(file.file_name().unwrap())).unwrap();
    }
    writer.append_blocking(RecordKind(7), b"one more").unwrap();
    let anchor = writer.anchor().to_string();
    let (whole, cut) = (whole.to_str().unwrap(), cut.to_str().unwrap());
    assert!(said(&["verify", whole, "--anchor", &anchor]).contains("the anchor is in it"));
    assert!(said(&["verify", cut]).contains("only an anchor reveals"));
    assert!(refused(&["verify", cut, "--anchor", &anchor]).contains("cut off or rewritten"));
}

#[test]
fn corruption_is_named_and_the_rest_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, out) = (folder.path().join("log"), folder.path().join("new"));
    log(&dir, 20, WalOptions::default()).close().unwrap();
    let segment = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| path.extension().is_some_and(|end| end == "wal")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|window| window == b"record 5").unwrap();
    *bytes.get_mut(at).unwrap() ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (dir, out) = (dir.to_str().unwrap(), out.to_str().unwrap());
    assert!(refused(&["verify", dir]).contains("records 5 to 5"));
    assert!(said(&["salvage", dir, out]).starts_with("19 records"));
    assert!(said(&["verify", out]).contains("sound"));
    assert!(refused(&["salvage", dir, out]).contains("log"), "it is there already");
}

#[test]
fn an_unreadable_log_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let keyed = folder.path().join("keyed");
    log(&keyed, 1, WalOptions::default().with_key(WalKey::new([7; 32])));
    let (keyed, key) = (keyed.to_str().unwrap(), folder.path().join("key"));
    fs::write(&key, [7; 32]).unwrap();
    assert!(said(&["verify", keyed, "--key", key.to_str().unwrap()]).contains("sound"));
    fs::write(&key, [8; 32]).unwrap();
    assert!(refused(&["verify", keyed, "--key", key.to_str().unwrap()]).contains("key"));
    fs::write(&key, [7; 31]).unwrap();
    assert!(refused(&["verify", keyed, "--key", key.to_str().unwrap()]).contains("31 bytes, not 32"));
    assert!(refused(&["verify", keyed]).contains("key"));
    assert!(refused(&["dump", folder.path().to_str().unwrap()]).contains("no log"));
    assert!(refused(&["verify", keyed, "--anchor", "nonsense"]).contains("an anchor reads"));
}
