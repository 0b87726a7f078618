//! [`Probed`]: the proof of a stream that fell silent, by a second one and a listing.

use runtide_core::{Detail, Listing, Result, event::ResumeToken};

use crate::{
    client::Client,
    inspector::PodmanInspector,
    subscription::{self, Subscription},
};

/// A second stream, opened after the first one fell silent, and a listing made after that.
pub(crate) struct Probed {
    /// `None`: the log could not be read in time, so that the first stream is as good.
    pub(crate) subscription: Option<Subscription>,
    pub(crate) listing: Listing,
    /// The last message that the log had then.
    pub(crate) newest: Option<ResumeToken>,
}

impl Probed {
    /// Makes the listing, behind this stream. `None`: the log could not be read in time.
    pub(crate) async fn of(
        client: &Client,
        subscription: Option<Subscription>,
        inspector: &PodmanInspector,
    ) -> Result<Self> {
        let listing = inspector.list_now(Detail::Summary).await?;
        let opened = subscription.as_ref().and_then(|subscription| subscription.newest.clone());
        let newest = newest(client, opened).await;
        Ok(Self { subscription, listing, newest })
    }
}

/// The last message of now; where the log is not read to its end in time, or is a journal, which takes long to read and is streamed without
/// a delay, the last one when the stream was opened.
async fn newest(client: &Client, opened: Option<ResumeToken>) -> Option<ResumeToken> {
    let since = opened.as_ref().and_then(subscription::time_of);
    let Some(since) = since.filter(|_| client.known_logger().is_some_and(|logger| !logger.is_journal())) else {
        return opened;
    };
    let newest = tokio::time::timeout(client.patience(), subscription::newest(client, since)).await;
    newest.ok().and_then(Result::ok).flatten().or(opened)
}
