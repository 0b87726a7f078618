//! Declared resources: the traits of a store, and its resources.

mod backend;
mod convert;
mod document;
mod event;
mod format;
mod heading;
mod list;
mod local;
mod reference;
mod resource;
mod revision;
mod schema;
mod select;
mod snapshot;
mod write;

pub use self::{
    backend::{StoreBackend, StoreBackendExt, StoreSnapshotSeal, StoreStats},
    document::{Document, ResourceFormat},
    event::{Since, StoreEvent, StoreFeed, StoreStream, StoreWatchOptions},
    local::{LocalStore, Planned, PlannedChange, StoreImage},
    reference::ResourceRef,
    resource::Resource,
    revision::{Digest, Revision},
    schema::YamlSchema,
    select::{Page, PageOptions, PageToken, Selector},
    snapshot::{StoreSnapshotReader, StoreSnapshotWriter},
    write::{Applied, ApplyOutcome, Precondition},
};
