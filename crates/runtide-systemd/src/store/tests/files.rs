//! Real files, and others who write them. No manager looks at them.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use runtide_core::{Document, Precondition, ResourceFormat, ResourceRef, StoreBackend};
use runtide_memory::MemoryStore;

use super::super::{OsNames, UnitStore, UnitStoreConfig, Units};
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

/// What no store would write, and others do.
const FOREIGN: [(&str, &[u8]); 2] =
    [("no-assignment", b"[Service]\nExecStart=/bin/a\nwhat is this\n"), ("latin-1", b"[Unit]\nDescription=caf\xe9\n")];

#[tokio::test]
async fn what_others_wrote_wrongly_does_no_harm() {
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
