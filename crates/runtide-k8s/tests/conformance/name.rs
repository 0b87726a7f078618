//! The testbed's server that the suites run on.

/// Its name in the testbed and in the report: `k8s`, unless `RUNTIDE_TEST_K8S_IS` has another one.
pub(crate) fn known_as() -> &'static str {
    match std::env::var("RUNTIDE_TEST_K8S_IS").as_deref() {
        Ok("k8s-libs") => "k8s-libs",
        _ => "k8s",
    }
}
