//! The laws, on a real runtime behind the proxy. `RUNTIDE_TEST_TEMPLATE` names its socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
mod harness;

runtide_conformance::runtime_suite!(harness::TemplateHarness::start);
