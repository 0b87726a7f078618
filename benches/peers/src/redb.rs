//! The peer `redb`.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use runtide_benches::log::{Records, Seen};

use crate::Store;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// A database of the crate's, with one table.
#[derive(Debug)]
pub struct Redb {
    database: Database,
    next: AtomicU64,
}

impl Store for Redb {
    const NAME: &'static str = "redb";
    const NOTE: &'static str = "a transaction for each append. Reading checks no checksum.";

    fn open(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let database = Database::create(dir.join("log.redb")).expect("a database");
        let writes = database.begin_write().expect("a transaction");
        let table = writes.open_table(LOG).expect("a table");
        let next = table.last().expect("a read").map_or(0, |(number, _)| number.value() + 1);
        drop(table);
        if next == 0 {
            writes.commit().expect("a commit");
        } else {
            writes.abort().expect("an end");
        }
        Self { database, next: AtomicU64::new(next) }
    }

    fn append(&self, record: &[u8]) {
        let writes = self.database.begin_write().expect("a transaction");
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        writes.open_table(LOG).expect("a table").insert(number, record).expect("an append");
        writes.commit().expect("a commit");
    }

    fn append_all(&self, records: &Records, count: usize) {
        let writes = self.database.begin_write().expect("a transaction");
        let mut table = writes.open_table(LOG).expect("a table");
        for record in records.take(count) {
            table.insert(self.next.fetch_add(1, Ordering::Relaxed), record).expect("an append");
        }
        drop(table);
        writes.commit().expect("a commit");
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let store = Self::open(dir);
        Box::new(move |seen| {
            let table = store.database.begin_read().expect("a check").open_table(LOG).expect("a table");
            for row in table.iter().expect("rows") {
                seen.record(row.expect("a row").1.value());
            }
        })
    }

    fn tail(&self, count: usize) -> usize {
        let table = self.database.begin_read().expect("a check").open_table(LOG).expect("a table");
        let last = table.iter().expect("rows").rev().take(count);
        last.map(|row| row.expect("a row")).count()
    }
}
