//! The journal of a durable [`Plain`](super::plain::Plain) store: a log record for each write, before it is seen.

use std::{collections::BTreeMap, num::NonZeroU64, path::Path, sync::Arc};

use runtide_conformance::store::ModelDisk;
use runtide_core::{
    Error, ErrorKind, Result,
    store::{Document, Resource, ResourceRef, Revision},
    wal::{Durability, ReadFrom, RecordKind, Wal, WalOptions},
};
use serde::{Deserialize, Serialize};

use super::bugs::Bug;

pub(crate) type Resources = BTreeMap<ResourceRef, Arc<Resource>>;

const DIR: &str = "/plain";
const KIND: RecordKind = RecordKind(9);

pub(crate) struct Journal {
    wal: Wal,
    in_pieces: bool,
}

/// The state that a journal folds to.
#[derive(Default)]
pub(crate) struct Folded {
    pub(crate) revision: u64,
    pub(crate) resources: Resources,
}

#[derive(Serialize, Deserialize)]
enum Line {
    Write { revision: u64, reference: ResourceRef, document: Option<Document> },
    Replace { revision: u64, resources: Vec<Arc<Resource>> },
}

fn failed(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "plain.journal", "a line cannot be read").with_source(error)
}

impl Journal {
    pub(crate) fn open(disk: &ModelDisk, bug: Option<Bug>) -> Result<Self> {
        let durability = if bug == Some(Bug::AcknowledgedBeforeSync) { Durability::Os } else { Durability::Commit };
        let options = WalOptions::default()
            .with_segment_bytes(NonZeroU64::new(8 << 10))
            .with_durability(durability)
            .with_disk(Some(Arc::new(disk.clone()) as Arc<_>));
        Ok(Self { wal: Wal::open(Path::new(DIR), options)?, in_pieces: bug == Some(Bug::RestoreInPieces) })
    }

    fn line(&self, line: &Line) -> Result<()> {
        let bytes = serde_json::to_vec(line).map_err(failed)?;
        self.wal.append_blocking(KIND, &bytes).map(drop)
    }

    pub(crate) fn write(&self, revision: u64, reference: &ResourceRef, resource: Option<&Resource>) -> Result<()> {
        let document = resource.map(|resource| resource.document.clone());
        self.line(&Line::Write { revision, reference: reference.clone(), document })
    }

    pub(crate) fn replace(&self, revision: u64, resources: &Resources) -> Result<()> {
        if self.in_pieces {
            self.line(&Line::Replace { revision, resources: Vec::new() })?;
            return resources.values().try_for_each(|one| self.write(revision, &one.reference, Some(one)));
        }
        self.line(&Line::Replace { revision, resources: resources.values().cloned().collect() })
    }

    /// Folds the whole journal.
    pub(crate) fn fold(&self) -> Result<Folded> {
        let mut folded = Folded::default();
        for record in self.wal.reader(ReadFrom::Start)? {
            match serde_json::from_slice(&record?.bytes).map_err(failed)? {
                Line::Write { revision, reference, document } => {
                    folded.revision = revision;
                    let resource = document
                        .map(|document| Arc::new(Resource::new(reference.clone(), document, Revision(revision))));
                    match resource {
                        Some(resource) => drop(folded.resources.insert(reference, resource)),
                        None => drop(folded.resources.remove(&reference)),
                    }
                }
                Line::Replace { revision, resources } => {
                    folded.revision = revision;
                    folded.resources = resources.into_iter().map(|one| (one.reference.clone(), one)).collect();
                }
            }
        }
        Ok(folded)
    }
}
