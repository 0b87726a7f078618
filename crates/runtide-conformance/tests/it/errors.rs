//! Every kind of error that the core and the journals make, as users see it: nothing is shown twice.
//!
//! The backends have tables of their own, next to what gives their errors a meaning.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use runtide_conformance::errors::repetition;
use runtide_core::{
    Error, ErrorKind, Failure, Labels, RuntimeKind, UnixSignal,
    store::{Document, ResourceFormat, ResourceRef, YamlSchema},
    wal::{self, ReadFrom, RecordKind, Seq, Wal, WalKey, WalOptions, WalReader},
};
use runtide_journal::{JournalOptions, JournaledStore, OperationLog, OwnerId, RuntimeJournal};
use runtide_memory::MemoryStore;

struct Seen(Vec<ErrorKind>);

impl Seen {
    fn of<T>(&mut self, what: &str, result: Result<T, Error>) {
        let Err(error) = result else { panic!("{what} succeeded") };
        assert_eq!(repetition(&error), None, "{what}: {error:?}");
        let again = Error::from(Failure::from(&error));
        assert_eq!(repetition(&again), None, "{what}, as a failure: {again:?}");
        self.0.push(error.kind());
    }
}

/// An empty folder of this test.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("errors").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn log(name: &str) -> PathBuf {
    let dir = folder(name);
    let wal = Wal::open(&dir, WalOptions::default()).unwrap();
    wal.append_batch_blocking(&[(RecordKind(1), b"one"), (RecordKind(1), b"two")]).unwrap();
    wal.close().unwrap();
    dir
}

fn segment(dir: &Path) -> PathBuf {
    dir.join("00000000000000000001.wal")
}

fn of_the_log(seen: &mut Seen) {
    let options = WalOptions::default;
    let absent = folder("absent").join("x");
    seen.of("verify nothing", wal::verify(&absent, None, None));
    seen.of("read nothing", WalReader::open(&absent, ReadFrom::Start, options()));
    seen.of("salvage nothing", wal::salvage(&absent, &folder("out")));
    let file = folder("file").join("f");
    fs::write(&file, b"x").unwrap();
    seen.of("open a file", Wal::open(&file, options()));
    seen.of("open below a file", Wal::open(&file.join("x"), options()));
    let dir = log("open");
    let wal = Wal::open(&dir, options()).unwrap();
    seen.of("open twice", Wal::open(&dir, options()));
    seen.of("append too much", wal.append_blocking(RecordKind(1), &vec![0; Wal::MAX_RECORD + 1]));
    seen.of("append a reserved kind", wal.append_blocking(RecordKind(0xffff), b""));
    seen.of("read ahead", wal.reader(ReadFrom::Seq(Seq(9))).and_then(Iterator::collect::<Result<Vec<_>, _>>));
    wal.close().unwrap();
    seen.of("append to a closed log", wal.append_blocking(RecordKind(1), b""));
    seen.of("open with a key", Wal::open(&dir, options().with_key(Some(WalKey::new([1; 32])))));
    for (at, byte) in [(0, 0), (8, 9), (12, 0xf0), (5000, 1), (4100, 1)] {
        let dir = log("changed");
        let mut bytes = fs::read(segment(&dir)).unwrap();
        if let Some(changed) = bytes.get_mut(at) {
            *changed ^= byte | 1;
        }
        fs::write(segment(&dir), &bytes).unwrap();
        if Wal::open(&dir, options()).is_err() {
            seen.of("open a changed log", Wal::open(&dir, options()));
        }
    }
    let dir = log("gone");
    fs::write(dir.join("begin"), b"no begin").unwrap();
    seen.of("open without a beginning", Wal::open(&dir, options()));
    let dir = log("there");
    seen.of("salvage onto a log", wal::salvage(&dir, &dir));
}

fn of_documents(seen: &mut Seen) {
    let bodies = [
        Document::json("{"),
        Document::json("{\"a\":1,\"a\":2}"),
        Document::json("[18446744073709551616]"),
        Document::json("{}"),
        Document::json("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[1]}"),
        Document::cbor(&b"\xff"[..]),
        Document::cbor(&b"\xa1\x01\x02"[..]),
        Document::yaml("a: [\n"),
        Document::hcl("a = ["),
        Document::new(ResourceFormat::Native, "[Unit]"),
        Document::json(vec![0xff]),
        Document::json("[".repeat(200)),
    ];
    for body in bodies {
        seen.of("name a body", ResourceRef::from_document(&body));
        for format in [ResourceFormat::Json, ResourceFormat::Yaml, ResourceFormat::Cbor, ResourceFormat::Hcl] {
            if body.convert(format).is_err() {
                seen.of("convert a body", body.convert(format));
            }
        }
        if body.resources().is_err() {
            seen.of("split a body", body.resources());
        }
        if body.labels().is_err() {
            seen.of("label a body", body.labels());
        }
    }
    seen.of("name", ResourceRef::new("", "a/b", None, "x"));
    seen.of("parse a format", "toml".parse::<ResourceFormat>());
    seen.of("parse a schema", "1.1".parse::<YamlSchema>());
    seen.of("parse a kind", "dokcer".parse::<RuntimeKind>());
    seen.of("parse a signal", "SIGNOPE".parse::<UnixSignal>());
    let labels: Labels = [("n", "x")].into_iter().collect();
    seen.of("decode labels", labels.decode::<BTreeMap<String, u32>>(""));
}

fn owner() -> OwnerId {
    OwnerId::from("o")
}

fn of_journals(seen: &mut Seen) {
    let options = JournalOptions::default;
    let foreign = log("foreign");
    seen.of("open a foreign log as a journal", RuntimeJournal::open(&foreign, options()));
    seen.of("open a foreign log of operations", OperationLog::open(&foreign, owner(), options()));
    seen.of("open a foreign log as a store", JournaledStore::open(&foreign, MemoryStore::new(), options()));
    let file = folder("no-folder").join("f");
    fs::write(&file, b"").unwrap();
    seen.of("open a file as a journal", RuntimeJournal::open(&file, options()));
    let dir = folder("twice");
    let operations = OperationLog::open(&dir, owner(), options()).unwrap();
    seen.of("open a log of operations twice", OperationLog::open(&dir, owner(), options()));
    drop(operations);
}

#[test]
fn no_error_shows_anything_twice() {
    let mut seen = Seen(Vec::new());
    of_the_log(&mut seen);
    of_documents(&mut seen);
    of_journals(&mut seen);
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::InvalidInput,
        ErrorKind::Cancelled,
        ErrorKind::Corrupt,
    ];
    for kind in kinds {
        assert!(seen.0.contains(&kind), "no error of the kind {kind}: {:?}", seen.0);
    }
    assert!(seen.0.len() > 50, "{} errors", seen.0.len());
}
