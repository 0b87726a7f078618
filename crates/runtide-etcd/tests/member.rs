//! A store on one real member, each test with a member of its own or, where it leaves the member as it is, with a prefix of its
//! own on the testbed's: `RUNTIDE_TEST_ETCD`.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod cluster;
#[path = "member/reading.rs"]
mod reading;
#[path = "member/watching.rs"]
mod watching;
#[path = "member/writing.rs"]
mod writing;

use runtide_core::store::{Document, ResourceRef, StoreEvent, StoreStream};
use runtide_etcd::{Config, EtcdStore};

/// A store below a prefix that nobody else has, on the testbed's member.
fn shared() -> Option<EtcdStore> {
    EtcdStore::new(shared_config()?).ok()
}

fn shared_config() -> Option<Config> {
    let endpoints = cluster::testbed("RUNTIDE_TEST_ETCD")?;
    let prefix = format!("/test/{}/", uuid::Uuid::now_v7().simple());
    Some(Config::default().with_endpoints(endpoints).with_prefix(prefix))
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

/// What comes next, bookmarks aside.
async fn next_change(stream: &mut StoreStream) -> StoreEvent {
    loop {
        match next(stream).await {
            StoreEvent::Bookmark { .. } => {}
            event => return event,
        }
    }
}
