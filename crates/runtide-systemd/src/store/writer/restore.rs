//! Replaces all resources, at once or not at all.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, Result,
    store::{Digest, LocalStore, Resource, Revision, StoreImage},
};

use super::{super::name::UnitFileName, Fresh, Held, State, Trouble, Writer};

impl<S: LocalStore> Writer<S> {
    /// Replaces all resources.
    pub(super) async fn restore(&mut self, fresh: Vec<Fresh>) -> Result<Revision> {
        self.look().await?;
        let revision = Revision(self.last.max(self.revision).0.saturating_add(1));
        self.last = revision;
        let mut wanted: BTreeMap<UnitFileName, Option<Bytes>> =
            self.files.keys().map(|file| (file.clone(), None)).collect();
        let (mut state, mut files) = (State::new(), BTreeMap::new());
        for one in fresh {
            let reference = &one.resource.reference;
            if !self.files.contains_key(&one.file) {
                self.free(&one.file, reference)?;
            }
            let held = Held { reference: reference.clone(), digest: Digest::of(&one.text), stamp: None };
            if files.insert(one.file.clone(), held).is_some() {
                let error = Error::new(ErrorKind::InvalidInput, "store.restore", "two resources have one file");
                return Err(error.with_context("resource", reference));
            }
            let resource = Resource::new(reference.clone(), one.resource.written().clone(), revision);
            state.insert(reference.clone(), Arc::new(resource));
            wanted.insert(one.file, Some(one.text));
        }
        let changes = match self.changes(wanted.into_iter().collect()).await {
            Ok(changes) => changes,
            Err(trouble) => return Err(error_of(trouble)),
        };
        self.change(&changes).await.map_err(error_of)?;
        self.commit(&state, revision).await?;
        let image = StoreImage::new(revision, state.values().cloned().collect());
        (self.state, self.files, self.revision) = (state, files, revision);
        self.shared.front.load(image);
        Ok(revision)
    }
}

/// Converts the failure to the error of a caller that requested all or nothing.
fn error_of(trouble: Trouble) -> Error {
    match trouble {
        Trouble::Failed(error) => error,
        Trouble::Foreign => {
            Error::new(ErrorKind::Conflict, "store.restore", "another program writes to the unit files")
        }
        Trouble::Refused(refused) => refused.into_iter().next().map_or_else(
            || Error::new(ErrorKind::Unexpected, "store.restore", "nothing was refused"),
            |(_, error)| error,
        ),
    }
}
