//! The testbed's machine that the suites run on.

/// Its name in the testbed and in the report: `systemd`, unless `RUNTIDE_TEST_SYSTEMD_IS` has another one.
pub(crate) fn known_as() -> &'static str {
    match std::env::var("RUNTIDE_TEST_SYSTEMD_IS").as_deref() {
        Ok("systemd257") => "systemd257",
        _ => "systemd",
    }
}
