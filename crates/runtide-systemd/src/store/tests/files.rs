//! Real files, and other programs that write them. No manager reads them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use runtide_core::store::{Digest, Document, Precondition, ResourceFormat, ResourceRef, StoreBackend};
use runtide_memory::MemoryStore;

use super::super::{
    OsNames, UnitFileName, UnitStore, UnitStoreConfig, Units,
    folder::{Folder, Put},
};
use crate::config::Config;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.path("")).unwrap();
        files
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("units").join(file)
    }

    fn open(&self) -> UnitStore<MemoryStore> {
        let systemd = Config::system().with_root(self.0.path().to_owned());
        let config = UnitStoreConfig::new(systemd, "/units").with_poll(Duration::from_secs(3600));
        let disk = Arc::new(runtide_core::wal::fs::OsDisk::default());
        UnitStore::made(config, MemoryStore::new(), Arc::new(Units), None, disk, Arc::new(OsNames)).unwrap()
    }
}

fn service(name: &str) -> ResourceRef {
    ResourceRef::new("", "service", None, name).unwrap()
}

fn native(text: &[u8]) -> Document {
    Document::new(ResourceFormat::Native, text.to_owned())
}

/// Texts that no store would write, and other programs do.
const FOREIGN: [(&str, &[u8]); 2] =
    [("open", b"[Service\nExecStart=/bin/a\n"), ("latin-1", b"[Unit]\nDescription=caf\xe9\n")];

#[tokio::test]
async fn an_invalid_file_of_another_program_does_no_harm() {
    let files = Files::new();
    for (name, text) in FOREIGN {
        fs::write(files.path(&format!("{name}.service")), text).unwrap();
    }
    let first = files.open();
    let web = native(b"[Service]\nExecStart=/bin/web\n");
    first.apply(&service("web"), web.clone(), Precondition::Absent).await.unwrap();
    let mut revisions = Vec::new();
    for (name, text) in FOREIGN {
        let found = first.get(&service(name), None).await.unwrap().unwrap();
        assert_eq!(found.document, native(text));
        revisions.push(found.revision);
        let error = first.apply(&service("mine"), native(text), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), runtide_core::ErrorKind::InvalidInput);
    }
    drop(first);

    let again = files.open();
    for ((name, text), revision) in FOREIGN.into_iter().zip(revisions) {
        let found = again.get(&service(name), None).await.unwrap().unwrap();
        assert_eq!((&found.document, found.revision), (&native(text), revision));
    }
    let mut snapshot = Vec::new();
    again.snapshot(&mut snapshot).await.unwrap();
    again.restore(&mut snapshot.as_slice()).await.unwrap();
    for (name, _) in FOREIGN {
        again.delete(&service(name), Precondition::None).await.unwrap().unwrap();
        assert!(!files.path(&format!("{name}.service")).exists());
    }
    again.restore(&mut snapshot.as_slice()).await.unwrap();
    for (name, text) in FOREIGN {
        assert_eq!(fs::read(files.path(&format!("{name}.service"))).unwrap(), text);
        assert_eq!(again.get(&service(name), None).await.unwrap().unwrap().document, native(text));
    }
    assert_eq!(again.get(&service("web"), None).await.unwrap().unwrap().document, web);
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_its_mode_and_its_owner() {
    let files = Files::new();
    let path = files.path("secret.service");
    fs::write(&path, "[Service]\nEnvironment=PASSWORD=x\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // Only root may change the owner of a file.
    let given = std::os::unix::fs::chown(&path, Some(4242), Some(4243)).is_ok();
    let seen = |file: &str| {
        let found = fs::metadata(files.path(file)).unwrap();
        (found.mode() & 0o777, found.uid(), found.gid())
    };
    let before = seen("secret.service");
    assert!(before.0 == 0o600 && (!given || before.1 == 4242));
    let store = files.open();
    store.apply(&service("secret"), native(b"[Service]\nEnvironment=PASSWORD=y\n"), Precondition::None).await.unwrap();
    assert_eq!(seen("secret.service"), before);
    store.apply(&service("new"), native(b"[Service]\n"), Precondition::None).await.unwrap();
    assert_eq!(seen("new.service").0, 0o644);
}

#[test]
fn a_file_that_is_put_back_keeps_its_mode() {
    let files = Files::new();
    let path = files.path("web.service");
    let (disk, names) = (Arc::new(runtide_core::wal::fs::OsDisk::default()), Arc::new(OsNames));
    let folder = Folder { disk, names, path: files.path(""), prefix: String::new() };
    let web = UnitFileName::unit("web.service").unwrap();
    let (old, new) = (Bytes::from("[Unit]\n"), Bytes::from("[Service]\n"));
    fs::write(&path, &old).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let access = folder.access(&web).unwrap();
    let was = Some(Digest::of(&old));
    for after in [Some(&new), None] {
        assert_eq!(folder.put(&web, was, after, access).unwrap(), Put::Done);
        let became = after.map(|text| Digest::of(text));
        assert_eq!(folder.put(&web, became, Some(&old), access).unwrap(), Put::Done);
        assert_eq!(fs::read(&path).unwrap(), old);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }
}
