//! The driver against a world that each test scripts. Time is paused, nothing sleeps for real.

mod brackets;
mod gaps;
mod looks;
mod subscribers;
mod world;
