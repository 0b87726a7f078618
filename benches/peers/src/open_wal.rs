//! The peer `open-wal`.

use std::{path::Path, sync::Mutex};

use open_wal::{Lsn, Wal, WalConfig};
use runtide_benches::log::{Records, Seen};

use crate::Store;

/// A log of the crate's.
pub struct OpenWal(Mutex<Wal>);

impl std::fmt::Debug for OpenWal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OpenWal").finish()
    }
}

fn open(dir: &Path, config: WalConfig) -> Wal {
    std::fs::create_dir_all(dir).expect("a folder");
    Wal::open(dir, config).expect("a log").0
}

/// Room for a million records, since each segment is synced by itself.
fn large() -> WalConfig {
    WalConfig { segment_size: 384 << 20, ..WalConfig::default() }
}

impl Store for OpenWal {
    const NAME: &'static str = "open-wal";
    const NOTE: &'static str = "it has one writer, so that threads take turns, with a sync for each append. A million records \
                                are one segment, so that one sync is enough; it holds all of them in memory until then. It \
                                reads the whole log when it is opened, and from the front to reach the last hundred.";

    fn open(dir: &Path) -> Self {
        Self(Mutex::new(open(dir, WalConfig::default())))
    }

    fn open_large(dir: &Path) -> Self {
        Self(Mutex::new(open(dir, large())))
    }

    fn append(&self, record: &[u8]) {
        let mut wal = self.0.lock().expect("no panic");
        wal.append(record).expect("an append");
        wal.commit().expect("a sync");
    }

    fn append_all(&self, records: &Records, count: usize) {
        let mut wal = self.0.lock().expect("no panic");
        for record in records.take(count) {
            wal.append(record).expect("an append");
        }
        wal.commit().expect("a sync");
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let wal = open(dir, large());
        Box::new(move |seen| {
            let mut reader = wal.reader_from(Lsn(0)).expect("a reader");
            while let Some(record) = reader.next() {
                seen.record(record.expect("a record").1);
            }
        })
    }

    fn tail(&self, count: usize) -> usize {
        let wal = self.0.lock().expect("no panic");
        let mut reader = wal.reader_from(Lsn(wal.last_lsn().0 + 1 - count as u64)).expect("a reader");
        let mut read = 0;
        while let Some(record) = reader.next() {
            record.expect("a record");
            read += 1;
        }
        read
    }
}
