//! The peer `runtimo-core` 0.1.0.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use runtide_benches::log::{Records, Seen, million};
use runtimo_core::{WalEvent, WalEventType, WalReader, WalWriter};
use serde_json::Value;

use crate::Store;

/// The crate's log: lines of JSON.
pub struct Runtimo {
    path: PathBuf,
    writer: Mutex<WalWriter>,
}

impl std::fmt::Debug for Runtimo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtimo").finish_non_exhaustive()
    }
}

fn path(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).expect("a folder");
    dir.join("log.wal")
}

/// 256 bytes of text, as the format requires.
fn event(seq: u64, record: &[u8]) -> WalEvent {
    let text = record.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let output = Some(Value::String(text));
    WalEvent {
        seq,
        ts: 0,
        event_type: WalEventType::JobCompleted,
        job_id: String::new(),
        capability: None,
        output,
        error: None,
    }
}

impl Store for Runtimo {
    const NAME: &'static str = "runtimo-core 0.1.0";
    const NOTE: &'static str = "lines of JSON without checksums; a sync for each append, with no way around it; everything is \
                                read to open it, and all of it into memory to replay.";
    const ONE_SYNC: bool = false;

    fn open(dir: &Path) -> Self {
        let path = path(dir);
        let writer = Mutex::new(WalWriter::create(&path).expect("a log"));
        Self { path, writer }
    }

    fn append(&self, record: &[u8]) {
        let mut writer = self.writer.lock().expect("no panic");
        let event = event(writer.seq(), record);
        writer.append(event).expect("an append");
    }

    fn append_all(&self, _: &Records, _: usize) {
        unreachable!("it syncs each")
    }

    /// The lines that it would write, without a sync for each.
    fn make(dir: &Path) {
        let mut out = BufWriter::new(File::create(path(dir)).expect("a file"));
        for (n, record) in Records::default().take(million()).enumerate() {
            serde_json::to_writer(&mut out, &event(n as u64, record)).expect("a line");
            out.write_all(b"\n").expect("a line");
        }
        out.into_inner().expect("all lines").sync_all().expect("a sync");
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let path = path(dir);
        Box::new(move |seen| {
            let reader = WalReader::load(&path).expect("a log");
            reader.events().iter().for_each(|event| seen.number(event.seq));
        })
    }

    fn tail(&self, count: usize) -> usize {
        WalReader::tail(&self.path, count).expect("a log").events().len()
    }
}
