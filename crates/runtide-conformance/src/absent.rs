//! The end of a test without a harness.

use crate::{Absent, report};

/// Reports a skip, so that it is counted; a runtime that was named and cannot be used is a failure.
pub(crate) fn report(suite: &str, absent: Absent) {
    let Absent { backend, reason, broken } = absent;
    assert!(!broken, "{backend}: {reason}");
    report::skip(suite, backend, reason);
}
