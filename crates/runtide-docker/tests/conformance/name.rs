//! The testbed's daemon that the suites run on.

/// Its name in the testbed and in the report: `docker`, unless `RUNTIDE_TEST_DOCKER_IS` has another one.
pub(crate) fn known_as() -> &'static str {
    match std::env::var("RUNTIDE_TEST_DOCKER_IS").as_deref() {
        Ok("docker26") => "docker26",
        _ => "docker",
    }
}
