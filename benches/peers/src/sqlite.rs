//! SQLite, by way of `rusqlite`.

use std::{path::Path, sync::Mutex};

use runtide_benches::log::{Records, Seen};
use rusqlite::Connection;

use crate::Store;

const INSERT: &str = "INSERT INTO log (record) VALUES (?1)";

/// A database with one table.
#[derive(Debug)]
pub struct Sqlite(Mutex<Connection>);

impl Store for Sqlite {
    const NAME: &'static str = "SQLite";
    const NOTE: &'static str =
        "journal_mode = WAL, synchronous = FULL, a transaction for each append. Reading checks no checksum.";

    fn open(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let connection = Connection::open(dir.join("log.sqlite")).expect("a database");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, record BLOB NOT NULL)",
            )
            .expect("a table");
        Self(Mutex::new(connection))
    }

    fn append(&self, record: &[u8]) {
        let connection = self.0.lock().expect("no panic");
        connection.prepare_cached(INSERT).expect("a statement").execute([record]).expect("an append");
    }

    fn append_all(&self, records: &Records, count: usize) {
        let mut connection = self.0.lock().expect("no panic");
        let all = connection.transaction().expect("a transaction");
        let mut insert = all.prepare_cached(INSERT).expect("a statement");
        for record in records.take(count) {
            insert.execute([record]).expect("an append");
        }
        drop(insert);
        all.commit().expect("a commit");
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let store = Self::open(dir);
        Box::new(move |seen| {
            let connection = store.0.lock().expect("no panic");
            let mut look = connection.prepare_cached("SELECT record FROM log ORDER BY number").expect("a statement");
            let mut rows = look.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                seen.record(row.get_ref(0).expect("a column").as_blob().expect("bytes"));
            }
        })
    }

    fn tail(&self, count: usize) -> usize {
        let connection = self.0.lock().expect("no panic");
        let mut look =
            connection.prepare_cached("SELECT record FROM log ORDER BY number DESC LIMIT ?1").expect("a statement");
        let count = i64::try_from(count).expect("a hundred");
        let mut rows = look.query([count]).expect("rows");
        let mut read = 0;
        while let Some(row) = rows.next().expect("a row") {
            read += usize::from(row.get_ref(0).is_ok());
        }
        read
    }
}
