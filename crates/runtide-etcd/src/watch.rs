//! Opens watches: finds the position where one begins, and starts a watcher there.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Gap, Result,
    store::{Revision, Selector, Since, StoreStream, StoreWatchOptions},
};

use crate::{
    call::Call,
    error::{Fault, Recovery},
    feed::{SubscriberGuard, feed},
    shared::Shared,
    view::{View, signed},
    watcher::{Position, Start, Watcher},
    wire::{RangeRequest, TxnRequest},
};

const OPERATION: &str = "etcd.watch";

pub(crate) async fn open(shared: &Arc<Shared>, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
    let mut call = Call::new(OPERATION, shared.request_timeout);
    let (position, start) = match options.since {
        Since::Now => (shared.position(&mut call).await.map_err(|fault| fault.error)?, Start::Bookmark),
        Since::Start => (shared.position(&mut call).await.map_err(|fault| fault.error)?, Start::Resync(Gap::Initial)),
        Since::After(after) => (shared.after(&mut call, after).await?, Start::Resume),
        other => {
            let message = format!("a watch cannot begin at {other:?} here");
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, message));
        }
    };
    let (sender, feed) = feed(SubscriberGuard::new(&shared.subscribers));
    let watcher = Watcher::new(Arc::clone(shared), selector.clone(), options, sender, position);
    let task = tokio::spawn(watcher.run(start));
    Ok(StoreStream::from_feed(feed.fed_by(task.abort_handle())))
}

impl Shared {
    /// The live generation, and the store's revision.
    pub(crate) async fn position(&self, call: &mut Call) -> Result<Position, Fault> {
        let mut answer = self.client.try_txn(call, TxnRequest::of([self.get_pointer()])).await?;
        let revision = answer.revision;
        match View::of(self.client.name(), answer.one()) {
            Ok(view) => Ok(Position { generation: view.generation, revision }),
            Err(error) => Err(Fault { error, uncertain: false, recovery: Recovery::None }),
        }
    }

    /// Position of a revision, if the cluster has reached it, and still has all changes after it.
    async fn after(&self, call: &mut Call, after: Revision) -> Result<Position> {
        // etcd takes 0 for now; 1 is the revision of an empty store.
        let at = after.0.max(1);
        let expired = |message: &str| {
            Error::new(ErrorKind::Expired, OPERATION, message)
                .with_context("store", self.client.name())
                .with_context("revision", after)
        };
        if i64::try_from(at).is_err() {
            return Err(expired("this store has no such revision"));
        }
        let then = RangeRequest::key(self.keys.pointer()).at(signed(at)).into();
        let txn = TxnRequest::of([then, self.get_pointer()]);
        match self.client.try_txn(call, txn).await {
            Ok(mut answer) => {
                let generation = View::of(self.client.name(), answer.one())?.generation;
                let now = View::of(self.client.name(), answer.one())?.generation;
                if generation.is_some() && generation != now {
                    return Err(expired("the store was restored since"));
                }
                Ok(Position { generation, revision: at })
            }
            Err(fault) if fault.recovery == Recovery::FutureRevision => {
                Err(expired("the store has not reached this revision"))
            }
            Err(fault) if fault.recovery == Recovery::Compacted => {
                Err(expired("the changes after this revision are compacted"))
            }
            Err(fault) => Err(fault.error),
        }
    }
}
