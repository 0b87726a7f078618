//! Shared parts of the benches: a clock for wall and CPU time, contests between peers in one run, tables, and sources that
//! deliver on demand. `README.md` has the commands and the results.

// Benches: a wrong assumption must stop the run, and the table is for the terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]
// Counts become rates here; every count is far below 2^52.
#![allow(clippy::cast_precision_loss, clippy::missing_panics_doc)]

mod clock;
mod contest;
pub mod daemon;
pub mod fan;
pub mod fleet;
mod gate;
pub mod log;
pub mod manager;
pub mod outage;
pub mod real;
pub mod signals;
mod source;
pub mod store;
mod table;
pub mod watchers;

pub use self::{
    clock::{Clock, Round, resident_bytes},
    contest::{Contest, Figures, criterion, is_trial},
    gate::Gate,
    source::{Feed, Scripted},
    table::{Table, bytes, count, met, millis, nanos, percent, span, times},
};
