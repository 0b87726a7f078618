//! Carrying out what was decided: the files, the manager, the record; or leaving all as it was.

use std::{collections::BTreeSet, io, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;
use runtide_core::{Digest, Document, Error, ErrorKind, LocalStore, ResourceFormat, Revision};

use super::{
    super::{folder::Put, manager::again, name::UnitFileName, record::Intent},
    APPLY, Change, Keeper, State, Step, Trouble, blocking,
};

type Tried<T = ()> = std::result::Result<T, Trouble>;

impl<S: LocalStore> Keeper<S> {
    /// Changes the files, has the manager take them, and makes that durable; or leaves all as it was.
    pub(super) async fn carry_out(&mut self, steps: &[Step], state: &State, revision: Revision) -> Tried {
        let changes = steps.iter().map(|step| (step.file.clone(), step.text.clone())).collect();
        let changes = self.changes(changes).await?;
        self.retire(&changes).await?;
        if let Err(trouble) = self.change(&changes).await {
            return Err(self.take_back(changes, trouble).await);
        }
        if let Err(trouble) = self.taken(&changes).await {
            return Err(self.take_back(changes, trouble).await);
        }
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
            // It is done, whatever becomes of an empty folder.
            let _ = tidied.await;
        }
        Ok(())
    }

    /// What is to be changed, with what is there now.
    pub(super) async fn changes(&self, files: Vec<(UnitFileName, Option<Bytes>)>) -> Tried<Vec<Change>> {
        let folder = self.folder.clone();
        let read = blocking(APPLY, move || {
            let mut changes = Vec::new();
            for (file, after) in files {
                let before = folder.read(&file)?.transpose().map_err(io::Error::other)?;
                changes.push(Change { file, before, after });
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

    /// Stops and disables the units that go.
    pub(super) async fn retire(&self, changes: &[Change]) -> Tried {
        let Some(manager) = &self.manager else { return Ok(()) };
        let gone = changes.iter().filter(|one| one.after.is_none() && one.file.drop_in_name().is_none());
        let retired = join_all(gone.map(|one| async {
            let unit = one.file.unit_name();
            manager.retire(unit, one.before.is_some()).await.map_err(|error| (unit.to_owned(), error))
        }));
        refusals(retired.await)
    }

    /// Writes the files. What it was about to do is durable before.
    pub(super) async fn change(&self, changes: &[Change]) -> Tried {
        if changes.is_empty() {
            return Ok(());
        }
        let (folder, record, base) = (self.folder.clone(), Arc::clone(&self.record), self.revision);
        let changes = changes.to_vec();
        let done = blocking(APPLY, move || {
            let told = |one: &Change| {
                let before = one.before.clone().map(|text| Document::new(ResourceFormat::Native, text));
                (one.file.to_string(), one.after.as_deref().map(Digest::of), before)
            };
            record.begin(&Intent { base, files: changes.iter().map(told).collect() })?;
            for one in &changes {
                if folder.put(&one.file, one.before.as_deref().map(Digest::of), one.after.as_ref())? == Put::Foreign {
                    return Ok(Put::Foreign);
                }
            }
            folder.sync(changes.iter().map(|one| &one.file))?;
            Ok(Put::Done)
        });
        match done.await {
            Ok(Put::Done) => Ok(()),
            Ok(Put::Foreign) => Err(Trouble::Foreign),
            Err(error) => Err(Trouble::Failed(error)),
        }
    }

    /// Whether the manager takes what was written.
    pub(super) async fn taken(&mut self, changes: &[Change]) -> Tried {
        let Some(manager) = self.manager.clone().filter(|_| !changes.is_empty() || self.stale) else { return Ok(()) };
        self.stale = true;
        manager.reload().await.map_err(Trouble::Failed)?;
        self.stale = false;
        let written = changes.iter().filter(|one| one.after.is_some());
        let units: BTreeSet<&str> = written.map(|one| one.file.unit_name()).collect();
        let checks = units.into_iter().map(|unit| {
            let manager = &manager;
            async move { manager.check(unit).await.map_err(|error| (unit.to_owned(), error)) }
        });
        refusals(join_all(checks).await)
    }

    /// Puts the files back as they were, where they are still what this store made of them.
    pub(super) async fn take_back(&mut self, changes: Vec<Change>, trouble: Trouble) -> Trouble {
        let (folder, record) = (self.folder.clone(), Arc::clone(&self.record));
        let back = blocking(APPLY, move || {
            for one in &changes {
                let (before, after) = (one.before.as_ref(), one.after.as_deref().map(Digest::of));
                if folder.is(&one.file, after)? {
                    folder.put(&one.file, after, before)?;
                }
            }
            folder.sync(changes.iter().map(|one| &one.file))?;
            record.done()?;
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
        self.reload_aside().await;
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
