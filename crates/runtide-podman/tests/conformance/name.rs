//! The testbed's service that the suites run on.

/// Its name in the testbed and in the report: `podman`, unless `RUNTIDE_TEST_PODMAN_IS` has another one.
pub(crate) fn known_as() -> &'static str {
    match std::env::var("RUNTIDE_TEST_PODMAN_IS").as_deref() {
        Ok("podman5") => "podman5",
        _ => "podman",
    }
}
