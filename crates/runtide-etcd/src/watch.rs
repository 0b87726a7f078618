//! Opens watches: finds the place where one begins, and sets a follower on it.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind, Gap, Result,
    store::{Revision, Selector, Since, StoreStream, StoreWatchOptions},
};

use crate::{
    call::Call,
    error::{Cure, Fault},
    feed::feed,
    follower::{Begin, Follower, Spot},
    read::Counted,
    store::Inner,
    view::{View, signed},
    wire::{RangeRequest, TxnRequest},
};

const OPERATION: &str = "etcd.watch";

pub(crate) async fn open(inner: &Arc<Inner>, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
    let mut call = Call::new(OPERATION, inner.request_timeout);
    let (spot, begin) = match options.since {
        Since::Now => (inner.spot(&mut call).await.map_err(|fault| fault.error)?, Begin::Bookmark),
        Since::Start => (inner.spot(&mut call).await.map_err(|fault| fault.error)?, Begin::State(Gap::Initial)),
        Since::After(after) => (inner.after(&mut call, after).await?, Begin::There),
        other => {
            let message = format!("a watch cannot begin at {other:?} here");
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, message));
        }
    };
    let (outlet, feed) = feed(Counted::among(&inner.subscribers));
    let follower = Follower::new(Arc::clone(inner), selector.clone(), options, outlet, spot);
    let task = tokio::spawn(follower.run(begin));
    Ok(StoreStream::from_feed(feed.fed_by(task.abort_handle())))
}

impl Inner {
    /// Which generation is live, and the store's revision.
    pub(crate) async fn spot(&self, call: &mut Call) -> Result<Spot, Fault> {
        let mut answer = self.client.try_txn(call, TxnRequest::of([self.get_pointer()])).await?;
        let revision = answer.revision;
        match View::of(self, answer.one()) {
            Ok(view) => Ok(Spot { generation: view.generation, revision }),
            Err(error) => Err(Fault { error, maybe: false, cure: Cure::None }),
        }
    }

    /// The place of a revision, if etcd still has all that came after it, and has come so far.
    async fn after(&self, call: &mut Call, after: Revision) -> Result<Spot> {
        // 0 would mean now; there is nothing at 1.
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
                let generation = View::of(self, answer.one())?.generation;
                let now = View::of(self, answer.one())?.generation;
                if generation.is_some() && generation != now {
                    return Err(expired("the store was restored since"));
                }
                Ok(Spot { generation, revision: at })
            }
            Err(fault) if fault.cure == Cure::Future => Err(expired("this store has not come so far")),
            Err(fault) if fault.cure == Cure::Compacted => {
                Err(expired("etcd does not keep what came after this revision any more"))
            }
            Err(fault) => Err(fault.error),
        }
    }
}
