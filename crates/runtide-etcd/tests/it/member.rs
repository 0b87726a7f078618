//! A store on one real member. A test has its own member or, if it leaves the member as it is, its own prefix on the
//! testbed's: `RUNTIDE_TEST_ETCD`.

mod reading;
mod watching;
mod writing;

use runtide_core::store::{Document, ResourceRef, StoreEvent, StoreStream};
use runtide_etcd::{Config, EtcdStore};

use crate::cluster;

/// A store below its own prefix, on the testbed's member.
fn shared() -> Option<EtcdStore> {
    EtcdStore::new(shared_config()?).ok()
}

fn shared_config() -> Option<Config> {
    let endpoints = cluster::testbed("RUNTIDE_TEST_ETCD")?;
    let prefix = format!("/test/{}/", uuid::Uuid::now_v7().simple());
    Some(cluster::patient(Config::default().with_endpoints(endpoints).with_prefix(prefix)))
}

fn named(name: &str) -> ResourceRef {
    ResourceRef::new("apps", "Deployment", "shop", name).unwrap()
}

fn json(text: &str) -> Document {
    Document::json(text.to_owned())
}

async fn next(stream: &mut StoreStream) -> StoreEvent {
    cluster::soon("an event", stream.next()).await.expect("it goes on").expect("an event")
}

/// The next event that is not a bookmark.
async fn next_change(stream: &mut StoreStream) -> StoreEvent {
    loop {
        match next(stream).await {
            StoreEvent::Bookmark { .. } => {}
            event => return event,
        }
    }
}
