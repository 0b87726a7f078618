#![doc = include_str!("../README.md")]

mod args;
mod backend;
mod duration;
mod engine;
mod find;
mod folder_churn;
#[cfg(feature = "k8s")]
mod k8s;
mod line;
mod print;
mod progress;
mod run;
mod session;
mod show;
mod stop;
mod systemd;
mod table;
mod terminal;
mod until;
mod width;

pub use self::{
    args::{Choice, Output, Systemd, Target, Wanted, variable},
    backend::{choose, choose_or_script},
    duration::{ago, parse as duration},
    find::find,
    folder_churn::folder_churn,
    print::{events, events_after},
    progress::{Progress, log_files},
    run::{parse, run, run_undone},
    session::follow,
    stop::Stop,
    table::instances,
    terminal::Terminal,
    until::Until,
};

/// Prints one line for people on stderr; stdout has only the requested output.
pub fn note(line: impl std::fmt::Display) {
    use std::io::Write as _;
    // If stderr is closed, there is no other place for the note.
    let _ = writeln!(anstream::stderr(), "{line}");
}
