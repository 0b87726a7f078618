//! Which of the testbed's machines the suites are on.

/// What the testbed calls it, and the report: `systemd`, unless `RUNTIDE_TEST_SYSTEMD_IS` says that it is another one.
pub(crate) fn known_as() -> &'static str {
    match std::env::var("RUNTIDE_TEST_SYSTEMD_IS").as_deref() {
        Ok("systemd257") => "systemd257",
        _ => "systemd",
    }
}
