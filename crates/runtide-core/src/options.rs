//! Options of listings and watches: [`ListOptions`], [`WatchOptions`] and their parts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{event::Cursor, filter::InstanceFilter, names::setters, watch::InstanceTable};

/// Amount of detail that a listing or an inspection asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Detail {
    /// One request for any number of instances.
    #[default]
    Summary,
    /// May cost one more request for each instance.
    Full,
}

/// Treatment of a subscriber whose position has left the ring. The driver never waits for a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlowConsumer {
    /// The subscriber gets its own resync, `Gap::Lagged`.
    #[default]
    Resync,
    /// The subscriber's stream ends with `Err(Expired)`.
    Close,
}

/// Options of a listing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ListOptions {
    /// Conditions on the instances; none by default.
    pub filter: InstanceFilter,
    /// Amount of detail.
    pub detail: Detail,
}

setters!(ListOptions {
    /// Conditions on the instances; none by default.
    with_filter: filter: InstanceFilter;
    /// Amount of detail.
    with_detail: detail: Detail;
});

/// Options of a watch.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Conditions on the instances; none by default.
    pub filter: InstanceFilter,
    /// Amount of detail.
    pub detail: Detail,
    /// Resume after this position.
    pub from: Option<Cursor>,
    /// The consumer's table at `from`, as a journal keeps it; without it, a resumed watch ends its replay with a resync.
    pub known: Option<InstanceTable>,
    /// Treatment of a subscriber that is too slow for the ring.
    pub slow_consumer: SlowConsumer,
    /// The longest quiet time without a `Bookmark`; `None`: none are sent.
    pub bookmark_every: Option<Duration>,
}

setters!(WatchOptions {
    /// Conditions on the instances; none by default.
    with_filter: filter: InstanceFilter;
    /// Amount of detail.
    with_detail: detail: Detail;
    /// Resume after this position.
    with_from: from: Option<Cursor>;
    /// The consumer's table at that position.
    with_known: known: Option<InstanceTable>;
    /// Treatment of a subscriber that is too slow.
    with_slow_consumer: slow_consumer: SlowConsumer;
    /// The longest quiet time without a `Bookmark`.
    with_bookmark_every: bookmark_every: Option<Duration>;
});
