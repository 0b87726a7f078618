//! Applies decided writes: the files, the manager, the record; or leaves all as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::join_all;
use runtide_core::{
    Error, ErrorKind,
    store::{Digest, Document, LocalStore, ResourceFormat, Revision},
};

use super::{
    super::{folder::Put, manager::again, name::UnitFileName, record::Intent},
    APPLY, Change, State, Step, Trouble, Writer, blocking, of_disk,
};

type Tried<T = ()> = std::result::Result<T, Trouble>;

impl<S: LocalStore> Writer<S> {
    /// Changes the files, reloads the manager, and makes that durable; or leaves all as it was.
    pub(super) async fn carry_out(&mut self, steps: &[Step], state: &State, revision: Revision) -> Tried {
        let changes = steps.iter().map(|step| (step.file.clone(), step.text.clone())).collect();
        let changes = self.changes(changes).await?;
        self.change(&changes).await?;
        self.commit(state, revision).await.map_err(Trouble::Failed)?;
        let emptied = changes.into_iter().filter(|one| one.after.is_none() && one.file.drop_in_name().is_some());
        let (folder, emptied) = (self.folder.clone(), emptied.map(|one| one.file).collect::<Vec<_>>());
        if !emptied.is_empty() {
            let tidied = blocking(APPLY, move || {
                for file in &emptied {
                    folder.tidy(file);
                }
                Ok(())
            });
            // The write is done, even if an empty folder stays.
            let _ = tidied.await;
        }
        Ok(())
    }

    /// Returns the changes, with the present content of the files.
    pub(super) async fn changes(&self, files: Vec<(UnitFileName, Option<Bytes>)>) -> Tried<Vec<Change>> {
        let folder = self.folder.clone();
        let read = blocking(APPLY, move || {
            let mut changes = Vec::new();
            for (file, after) in files {
                let before = folder.read(&file)?.transpose().map_err(io::Error::other)?;
                let access = folder.access(&file)?;
                changes.push(Change { file, before, access, after });
            }
            Ok(changes)
        });
        let mut changes = read.await.map_err(Trouble::Failed)?;
        for change in &changes {
            let known = self.files.get(&change.file).map(|held| held.digest);
            if change.before.as_deref().map(Digest::of) != known {
                return Err(Trouble::Foreign);
            }
        }
        changes.retain(|change| change.before != change.after);
        Ok(changes)
    }

    /// Changes the files and reloads the manager, or puts the files back. The pending change is durable before.
    ///
    /// Removed units are stopped and disabled only after the manager accepted all else, since that cannot be taken
    /// back; and before their files are removed, which define how they are stopped and disabled.
    pub(super) async fn change(&mut self, changes: &[Change]) -> Tried {
        let unit = |one: &Change| one.file.unit_name().to_owned();
        let whole = |one: &&Change| one.after.is_none() && one.file.drop_in_name().is_none();
        let units: BTreeSet<String> = changes.iter().filter(whole).map(unit).collect();
        let goes = |one: &Change| one.after.is_none() && units.contains(one.file.unit_name());
        let (last, first): (Vec<_>, Vec<_>) = changes.iter().cloned().partition(goes);
        let mut put = Vec::new();
        match self.change_in_turn(&units, first, last, &mut put).await {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.take_back(put, trouble).await),
        }
    }

    async fn change_in_turn(
        &mut self,
        units: &BTreeSet<String>,
        first: Vec<Change>,
        last: Vec<Change>,
        put: &mut Vec<Change>,
    ) -> Tried {
        self.begin(first.iter().chain(&last)).await?;
        self.put(first.clone(), put).await?;
        self.taken(&first).await?;
        self.retire(units).await?;
        self.put(last.clone(), put).await?;
        self.taken(&last).await
    }

    /// Records the pending change.
    async fn begin(&self, changes: impl Iterator<Item = &Change> + Clone) -> Tried {
        let entry = |one: &Change| {
            let before = one.before.clone().map(|text| Document::new(ResourceFormat::Native, text));
            (one.file.to_string(), one.after.as_deref().map(Digest::of), before)
        };
        let access = changes.clone().filter_map(|one| Some((one.file.to_string(), one.access?)));
        let intent = Intent { base: self.revision, access: access.collect(), files: changes.map(entry).collect() };
        if intent.files.is_empty() {
            return Ok(());
        }
        let record = Arc::clone(&self.record);
        blocking(APPLY, move || record.begin(&intent)).await.map_err(Trouble::Failed)
    }

    /// Stops and disables units.
    async fn retire(&self, units: &BTreeSet<String>) -> Tried {
        let Some(manager) = &self.manager else { return Ok(()) };
        let retired = units.iter().map(|unit| async move {
            let retired = manager.retire(unit).await;
            retired.map_err(|error| (unit.clone(), error))
        });
        refusals(join_all(retired).await)
    }

    /// Writes the files, and returns the written ones: a change by another program is not this store's to take back.
    async fn put(&self, changes: Vec<Change>, put: &mut Vec<Change>) -> Tried {
        if changes.is_empty() {
            return Ok(());
        }
        let folder = self.folder.clone();
        let written = blocking(APPLY, move || {
            let mut put = Vec::new();
            for one in changes {
                let before = one.before.as_deref().map(Digest::of);
                match folder.put(&one.file, before, one.after.as_ref(), one.access) {
                    Ok(Put::Done) => put.push(one),
                    Ok(Put::Foreign) => return Ok((put, Ok(Put::Foreign))),
                    // It may have been done all the same.
                    Err(error) => {
                        put.push(one);
                        return Ok((put, Err(error)));
                    }
                }
            }
            let synced = folder.sync(put.iter().map(|one| &one.file));
            Ok((put, synced.map(|()| Put::Done)))
        });
        let (done, outcome) = written.await.map_err(Trouble::Failed)?;
        put.extend(done);
        match outcome {
            Ok(Put::Done) => Ok(()),
            Ok(Put::Foreign) => Err(Trouble::Foreign),
            Err(error) => Err(Trouble::Failed(of_disk(APPLY, error))),
        }
    }

    /// Reloads the manager and checks that it accepts the written files.
    async fn taken(&mut self, changes: &[Change]) -> Tried {
        let Some(manager) = self.manager.clone().filter(|_| !changes.is_empty() || self.stale) else { return Ok(()) };
        self.reload().await.map_err(Trouble::Failed)?;
        let written = changes.iter().filter(|one| one.after.is_some());
        let mut units: BTreeMap<&str, Vec<&UnitFileName>> = BTreeMap::new();
        for one in written {
            units.entry(one.file.unit_name()).or_default().push(&one.file);
        }
        let checks = units.into_iter().map(|(unit, files)| {
            let manager = &manager;
            async move { manager.check(unit, &files).await.map_err(|error| (unit.to_owned(), error)) }
        });
        refusals(join_all(checks).await)
    }

    /// Restores the changed files, as far as they still have the content that this store wrote.
    async fn take_back(&mut self, changes: Vec<Change>, trouble: Trouble) -> Trouble {
        let (folder, record) = (self.folder.clone(), Arc::clone(&self.record));
        let (nothing, base) = (changes.is_empty(), self.revision);
        let is_notified = nothing || self.manager.is_none();
        let back = blocking(APPLY, move || {
            for one in &changes {
                let (before, after) = (one.before.as_ref(), one.after.as_deref().map(Digest::of));
                if folder.is(&one.file, after)? {
                    folder.put(&one.file, after, before, one.access)?;
                }
            }
            folder.sync(changes.iter().map(|one| &one.file))?;
            if is_notified {
                record.done()?;
            } else {
                record.owe(base)?;
            }
            for one in changes.iter().filter(|one| one.file.drop_in_name().is_some()) {
                folder.tidy(&one.file);
            }
            Ok(())
        });
        if let Err(error) = back.await {
            let error = error.with_context("outcome", "unknown");
            self.broken = Some(again(&error));
            return Trouble::Failed(error);
        }
        if !nothing {
            self.owes = !is_notified;
            self.reload_aside().await;
        }
        trouble
    }
}

fn refusals(all: Vec<std::result::Result<(), (String, Error)>>) -> Tried {
    let (mut refused, mut failed) = (Vec::new(), None);
    for (unit, error) in all.into_iter().filter_map(std::result::Result::err) {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled) {
            failed.get_or_insert(error);
        } else {
            refused.push((unit, error));
        }
    }
    match failed {
        Some(error) => Err(Trouble::Failed(error)),
        None if refused.is_empty() => Ok(()),
        None => Err(Trouble::Refused(refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{
                Units,
                folder::{Folder, OsNames},
                record::Record,
            },
            Shared,
        },
        *,
    };
    use runtide_core::wal::fs::OsDisk;
    use runtide_memory::MemoryStore;
    use std::{fs, sync::Mutex};

    #[tokio::test]
    async fn a_file_that_another_program_removed_is_not_put_back() {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("units");
        fs::create_dir(&path).unwrap();
        for unit in ["a.service", "b.service", "c.service"] {
            fs::write(path.join(unit), "[Unit]\n").unwrap();
        }
        let disk = Arc::new(OsDisk::default());
        let names = Arc::new(OsNames);
        let folder = Folder { disk: disk.clone(), names, path: path.clone(), prefix: String::new() };
        let record = Record::open(disk, &files.path().join("record")).unwrap();
        let shared = Shared { front: MemoryStore::new(), form: Arc::new(Units), skipped: Mutex::default() };
        let mut writer = Writer::open(Arc::new(shared), folder, record, None).await.unwrap();
        let gone = writer.files.keys().map(|file| (file.clone(), None)).collect();
        let Ok(changes) = writer.changes(gone).await else { panic!("no other program wrote") };
        assert_eq!(changes.len(), 3);
        fs::remove_file(path.join("b.service")).unwrap();
        assert!(matches!(writer.change(&changes).await, Err(Trouble::Foreign)));
        assert_eq!(fs::read(path.join("a.service")).unwrap(), b"[Unit]\n", "it was removed, and put back");
        assert!(!path.join("b.service").exists(), "another program removed it");
        assert!(path.join("c.service").exists());
    }
}
