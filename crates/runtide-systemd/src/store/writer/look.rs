//! Adopts changes by other programs.

use std::collections::BTreeSet;

use bytes::Bytes;
use runtide_core::{
    Result,
    backend::lock,
    store::{Digest, Document, LocalStore, PlannedChange, Precondition, ResourceRef},
};

use super::{
    super::{LARGEST, folder::Found, name::UnitFileName},
    Foreign, Step, Writer, blocking,
};

const LOOK: &str = "store.look";

impl<S: LocalStore> Writer<S> {
    /// Adopts changes by other programs: each has its own revision.
    pub(super) async fn look(&mut self) -> Result<()> {
        self.check()?;
        let known = self.files.iter().map(|(file, held)| (file.clone(), held.stamp)).collect();
        let folder = self.folder.clone();
        let mut scan = blocking(LOOK, move || folder.scan(&known)).await?;
        let mut gone: BTreeSet<UnitFileName> = self.files.keys().cloned().collect();
        let mut steps = Vec::new();
        for (file, found) in std::mem::take(&mut scan.files) {
            let (text, stamp) = match found {
                Found::Same => {
                    gone.remove(&file);
                    continue;
                }
                Found::Read(text, stamp) => (text, stamp),
            };
            let digest = Digest::of(&text);
            if let Some(held) = self.files.get_mut(&file).filter(|held| held.digest == digest) {
                held.stamp = stamp;
                gone.remove(&file);
                continue;
            }
            match self.adopted(&file, &text) {
                Ok((reference, document)) => {
                    if self.files.get(&file).is_some_and(|held| held.reference == reference) {
                        gone.remove(&file);
                    }
                    steps.push((reference, Some((document, text)), file));
                }
                Err(why) => scan.skipped.push((file.to_string(), why)),
            }
        }
        *lock(&self.shared.skipped) = scan.skipped;
        if gone.is_empty() && steps.is_empty() {
            return Ok(());
        }
        let gone = gone.into_iter().filter_map(|file| Some((self.files.get(&file)?.reference.clone(), None, file)));
        let all: Vec<_> = gone.collect::<Vec<_>>().into_iter().chain(steps).collect();
        self.adopt(all).await
    }

    /// Reads a file that another program wrote.
    fn adopted(&self, file: &UnitFileName, text: &Bytes) -> std::result::Result<(ResourceRef, Document), &'static str> {
        let (reference, document) = self.shared.form.read(file, text).ok_or("it cannot be a resource")?;
        if document.bytes.len() > LARGEST {
            return Err("it is longer than a mebibyte");
        }
        match self.shared.form.file(&reference) {
            Ok(own) if own == *file => Ok((reference, document)),
            _ => Err("the resource in it belongs in another file"),
        }
    }

    async fn adopt(&mut self, all: Vec<Foreign>) -> Result<()> {
        let mut steps = Vec::new();
        for (reference, fresh, file) in all {
            let (document, text) = fresh.unzip();
            match self.shared.front.prepare(&reference, document, Precondition::None) {
                Ok(planned) if planned.change == PlannedChange::Nothing => {
                    if let (Some(held), Some(text)) = (self.files.get_mut(&file), text) {
                        held.digest = Digest::of(&text);
                    }
                }
                Ok(planned) => steps.push(Step { planned, file, text }),
                Err(error) => {
                    self.forget(steps);
                    return Err(error);
                }
            }
        }
        if steps.is_empty() {
            return Ok(());
        }
        let (state, revision) = self.after(&steps);
        let recorded = self.commit(&state, revision).await;
        if let Err(error) = recorded {
            self.forget(steps);
            return Err(error);
        }
        self.show(steps, state, revision);
        self.unread = true;
        Ok(())
    }
}
