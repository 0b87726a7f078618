//! Retention.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use super::{KIND, assert_records, log_of, payload, segments, small};
use crate::{
    error::ErrorKind,
    wal::{
        OnCorruption, ReadFrom, Retention, Seq, Wal, WalOptions, WalReader,
        fs::{Disk, File, OsDisk},
        verify,
    },
};

#[test]
fn segments_are_dropped_by_number_and_no_newer_record_is() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 300);
    let wal = Wal::open(dir.path(), small()).unwrap();
    let mut before = segments(dir.path()).len();
    for keep in [1, 2, 100, 150, 299, 10_000] {
        let retained = wal.retain(Retention::default().with_keep_from(Seq(keep))).unwrap();
        let left = segments(dir.path()).len();
        assert_eq!(retained.segments, (before - left) as u64);
        before = left;
        assert!(retained.first.0 <= keep && left >= 1);
        assert_eq!(assert_records(&wal.tail(1000).unwrap(), retained.first.0), 301);
        let verified = verify(dir.path(), Some(&wal.anchor()), None).unwrap();
        assert!(verified.corruption.is_none() && verified.anchored);
        assert_eq!(verified.first, retained.first);
        if retained.first.0 > 1 {
            let error = wal.reader(ReadFrom::Seq(Seq(retained.first.0 - 1))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Expired);
        }
    }
    assert_eq!(before, 1, "the segment that is being written stays");
    assert_eq!(wal.append_blocking(KIND, &payload(301)).unwrap(), Seq(301), "numbers go on");
    drop(wal);
    assert_eq!(Wal::open(dir.path(), small()).unwrap().append_blocking(KIND, b"").unwrap(), Seq(302));
}

#[test]
fn segments_are_dropped_by_size_and_age_but_not_past_keep_from() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 300);
    let wal = Wal::open(dir.path(), small()).unwrap();
    let total = |dir| segments(dir).iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let all = total(dir.path());
    assert_eq!(wal.retain(Retention::default().with_max_bytes(all)).unwrap().segments, 0);
    assert_eq!(wal.retain(Retention::default()).unwrap().segments, 0, "an empty policy drops nothing");
    let retained = wal.retain(Retention::default().with_max_bytes(all - 1)).unwrap();
    assert_eq!((retained.segments, total(dir.path())), (1, all - retained.bytes));
    let year = Duration::from_secs(366 * 86_400);
    assert_eq!(wal.retain(Retention::default().with_max_age(year)).unwrap().segments, 0);
    let retained = wal.retain(Retention::default().with_max_age(Duration::ZERO).with_keep_from(Seq(200))).unwrap();
    assert!(retained.segments > 0 && retained.first <= Seq(200));
    let retained = wal.retain(Retention::default().with_max_bytes(0).with_max_age(year)).unwrap();
    assert!(retained.first > Seq(200));
    assert_eq!(segments(dir.path()).len(), 1);
}

#[test]
fn a_corrupt_begin_file_is_reported_as_corruption() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 300);
    let first =
        Wal::open(dir.path(), small()).unwrap().retain(Retention::default().with_keep_from(Seq(200))).unwrap().first;
    let begin = dir.path().join("begin");
    std::fs::write(&begin, [0; 20]).unwrap();

    assert_eq!(verify(dir.path(), None, None).unwrap().corruption.unwrap().segment, begin);
    for refused in [Wal::open(dir.path(), small()).err(), WalReader::open(dir.path(), ReadFrom::Start, small()).err()] {
        assert_eq!(refused.unwrap().kind(), ErrorKind::Corrupt);
    }
    let go_on = small().with_on_corruption(OnCorruption::Continue);
    let mut reader = WalReader::open(dir.path(), ReadFrom::Start, go_on.clone()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(reader.next().unwrap().unwrap().seq, first);
    // Retention writes the file again.
    let wal = Wal::open(dir.path(), go_on).unwrap();
    assert_eq!(wal.corruption().unwrap().segment, begin);
    wal.retain(Retention::default().with_max_bytes(0)).unwrap();
    drop(wal);
    assert!(verify(dir.path(), None, None).unwrap().corruption.is_none());

    // Without any segment, the last number that was given out is unknown.
    std::fs::write(&begin, [0; 20]).unwrap();
    for path in segments(dir.path()) {
        std::fs::remove_file(path).unwrap();
    }
    let refused = Wal::open(dir.path(), small().with_on_corruption(OnCorruption::Continue)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_closed_log_drops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 300);
    let wal = Wal::open(dir.path(), small()).unwrap();
    wal.close().unwrap();
    let before = segments(dir.path());
    let error = wal.retain(Retention::default().with_max_bytes(0)).unwrap_err();
    assert_eq!((error.kind(), segments(dir.path())), (ErrorKind::Cancelled, before));
}

/// A disk whose first removal tells that it began, and waits a while for the log to be closed; then it tells if it was.
#[derive(Debug)]
struct Slow {
    disk: OsDisk,
    turn: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
    was_closed: Mutex<Option<bool>>,
}

impl Disk for Slow {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if let Some((begun, closed)) = self.turn.lock().unwrap().take() {
            begun.send(()).unwrap();
            let was_closed = closed.recv_timeout(Duration::from_millis(300)).is_ok();
            *self.was_closed.lock().unwrap() = Some(was_closed);
        }
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.lock(path)
    }
}

#[test]
fn closing_waits_for_the_retention_under_way() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 300);
    let ((begun, begins), (released, waits)) = (mpsc::channel(), mpsc::channel());
    let disk = Arc::new(Slow { disk: OsDisk, turn: Mutex::new(Some((begun, waits))), was_closed: Mutex::new(None) });
    let wal = Wal::open(dir.path(), WalOptions { disk: Some(Arc::clone(&disk) as Arc<dyn Disk>), ..small() }).unwrap();
    std::thread::scope(|scope| {
        let retained = scope.spawn(|| wal.retain(Retention::default().with_max_bytes(0)));
        begins.recv().unwrap();
        wal.close().unwrap();
        // The removal may have waited its while already.
        let _ = released.send(());
        assert!(retained.join().unwrap().unwrap().segments > 0);
    });
    assert_eq!(*disk.was_closed.lock().unwrap(), Some(false), "the lock was free before the end of the retention");
    assert_eq!(segments(dir.path()).len(), 1);
}
