//! [`time`]: a time as the engines write it.

use std::time::SystemTime;

/// A time as the engines write it; `None` also for Go's zero time, `0001-01-01T00:00:00Z`.
pub fn time(text: &str) -> Option<SystemTime> {
    let at: SystemTime = text.parse::<jiff::Timestamp>().ok()?.into();
    (at > SystemTime::UNIX_EPOCH).then_some(at)
}
