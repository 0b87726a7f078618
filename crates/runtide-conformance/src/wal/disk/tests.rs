use std::{collections::BTreeSet, path::Path};

use runtide_core::wal::fs::{Disk, File};

use super::{Fault, ModelDisk};

const A: &str = "/a";
const B: &str = "/b";

/// Every state that power cuts may leave, at the end of the history.
fn states(disk: &ModelDisk) -> BTreeSet<Vec<(String, Vec<u8>)>> {
    let mut states = BTreeSet::new();
    let end = disk.operations();
    let visit = |crash: &super::Crash<'_>| {
        let files = crash.disk.files();
        states.insert(files.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)).collect());
        Ok::<(), ()>(())
    };
    disk.crashes(end..end + 1, 1 << 12, 1, visit).unwrap();
    states
}

fn durable(disk: &ModelDisk, path: &str, bytes: &[u8]) -> Box<dyn File> {
    let file = disk.create(Path::new(path)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file
}

fn file(path: &str, bytes: Vec<u8>) -> (String, Vec<u8>) {
    (path.to_owned(), bytes)
}

#[test]
fn sectors_are_lost_independently_and_sizes_apart_from_them() {
    let disk = ModelDisk::new();
    let open = durable(&disk, A, &[1; 1024]);
    open.write_at(&[2; 1024], 0).unwrap();
    let halves = |first: u8, second: u8| [[first; 512], [second; 512]].concat();
    let expected = [halves(1, 1), halves(2, 1), halves(1, 2), halves(2, 2)];
    assert_eq!(states(&disk), expected.into_iter().map(|bytes| vec![file(A, bytes)]).collect());

    open.sync().unwrap();
    assert_eq!(states(&disk).len(), 1);
    open.write_at(&[3; 4], 1024).unwrap();
    let grown = |tail: &[u8]| [halves(2, 2), tail.to_vec()].concat();
    let expected = [grown(&[]), grown(&[0; 4]), grown(&[3; 4])];
    assert_eq!(states(&disk), expected.into_iter().map(|bytes| vec![file(A, bytes)]).collect());
}

#[test]
fn a_sector_never_has_a_later_write_without_an_earlier_one() {
    let disk = ModelDisk::new();
    let open = durable(&disk, A, &[0; 2]);
    open.write_at(&[1], 0).unwrap();
    open.write_at(&[1], 1).unwrap();
    let expected = [vec![0, 0], vec![1, 0], vec![1, 1]];
    assert_eq!(states(&disk), expected.into_iter().map(|bytes| vec![file(A, bytes)]).collect());
}

#[test]
fn truncated_bytes_are_kept_or_lost_and_read_as_zeros_when_the_file_grows_again() {
    let disk = ModelDisk::new();
    let open = durable(&disk, A, &[1; 600]);
    open.truncate(512).unwrap();
    open.allocate(600).unwrap();
    let with = |tail: &[u8]| vec![file(A, [&[1; 512], tail].concat())];
    assert_eq!(states(&disk), [with(&[1; 88]), with(&[0; 88]), with(&[])].into());
    open.sync().unwrap();
    assert_eq!(states(&disk), [with(&[0; 88])].into());
}

#[test]
fn names_are_lost_independently_and_a_rename_is_atomic() {
    let disk = ModelDisk::new();
    drop(durable(&disk, A, b"old"));
    let new = disk.create(Path::new(B)).unwrap();
    new.write_at(b"new", 0).unwrap();
    new.sync().unwrap();
    disk.rename(Path::new(B), Path::new(A)).unwrap();
    let expected = [
        vec![file(A, b"old".to_vec())],
        vec![file(A, b"old".to_vec()), file(B, b"new".to_vec())],
        vec![file(A, b"new".to_vec())],
    ];
    assert_eq!(states(&disk), expected.into());
    disk.sync_dir(Path::new("/")).unwrap();
    disk.remove(Path::new(A)).unwrap();
    assert_eq!(states(&disk), [vec![], vec![file(A, b"new".to_vec())]].into(), "a removed file may be back");
}

#[test]
fn a_folder_whose_name_is_lost_takes_its_files_with_it() {
    let disk = ModelDisk::new();
    disk.create_dir(Path::new("/log")).unwrap();
    drop(disk.create(Path::new("/log/a")).unwrap());
    disk.sync_dir(Path::new("/log")).unwrap();
    assert_eq!(states(&disk), [vec![], vec![file("/log/a", vec![])]].into());
    assert!(disk.crash().list(Path::new("/log")).is_err());
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.crash().list(Path::new("/log")).unwrap().len(), 1);
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_writes_nothing() {
    let disk = ModelDisk::new();
    let open = durable(&disk, A, b"1");
    open.write_at(b"2", 0).unwrap();
    disk.fail(Fault::Sync, 0, false);
    open.sync().unwrap_err();
    open.sync().unwrap();
    assert_eq!(disk.load().syncs_tried_again, 1);
    assert_eq!(disk.read(Path::new(A)).unwrap(), b"2", "programs see it");
    assert_eq!(disk.crash().read(Path::new(A)).unwrap(), b"1", "and it is not there");
    open.write_at(b"2", 0).unwrap();
    open.sync().unwrap();
    assert_eq!(disk.crash().read(Path::new(A)).unwrap(), b"2", "written again, it is");
    assert!(disk.heal());
}

#[test]
fn a_failed_write_is_half_there_and_a_full_disk_takes_writes_within_a_file() {
    let disk = ModelDisk::new();
    let open = durable(&disk, A, b"....");
    disk.fail(Fault::Write, 0, false);
    open.write_at(b"abcd", 0).unwrap_err();
    assert_eq!(disk.read(Path::new(A)).unwrap(), b"ab..");
    disk.fail(Fault::Full, 0, true);
    open.write_at(b"ABCD", 0).unwrap();
    assert_eq!(open.write_at(b"more", 4).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(open.allocate(100).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert!(disk.create(Path::new(B)).is_err());
}

#[test]
fn crashes_carry_the_last_mark_and_no_state_comes_twice() {
    let disk = ModelDisk::new();
    let open = durable(&disk, A, b"1");
    disk.mark(1);
    open.write_at(b"2", 0).unwrap();
    open.sync().unwrap();
    disk.mark(2);
    let mut shown = Vec::new();
    let count = disk.crashes(0..usize::MAX, 64, 1, |crash| {
        shown.push((crash.mark, crash.disk.read(Path::new(A))));
        Ok::<(), ()>(())
    });
    assert_eq!(count, Ok(shown.len() as u64));
    assert!(shown.contains(&(Some(1), Some(b"1".to_vec()))) && shown.contains(&(Some(2), Some(b"2".to_vec()))));
    assert!(!shown.contains(&(Some(2), Some(b"1".to_vec()))));
    let once: BTreeSet<_> = shown.iter().collect();
    assert_eq!(once.len(), shown.len());
}

#[test]
fn a_lock_is_held_once_and_goes_with_the_power() {
    let disk = ModelDisk::new();
    let held = disk.lock(Path::new("/lock")).unwrap();
    assert_eq!(disk.lock(Path::new("/lock")).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(disk.crash().lock(Path::new("/lock")).is_ok() && disk.copy().lock(Path::new("/lock")).is_ok());
    drop(held);
    assert!(disk.lock(Path::new("/lock")).is_ok());
}
