//! The driver against a world that each test scripts. Time is paused, nothing sleeps for real.

mod completeness;
mod dials;
mod gaps;
mod inspections;
mod resyncs;
mod subscribers;
mod transitions;
mod world;
