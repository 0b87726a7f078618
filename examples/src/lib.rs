#![doc = include_str!("../README.md")]

mod args;
mod backend;
mod duration;
mod folder_life;
mod line;
mod print;
mod progress;
mod run;
mod show;
mod stop;
mod systemd;
mod table;

pub use self::{
    args::{Choice, Output, Place, Systemd, Wanted},
    backend::choose,
    duration::{ago, parse as duration},
    folder_life::folder_life,
    print::{events, events_after},
    progress::{Progress, log_files},
    run::run,
    stop::Stop,
    table::instances,
};

/// One line for people, on stderr, so that stdout stays what was asked for.
pub fn note(line: impl std::fmt::Display) {
    use std::io::Write as _;
    // Nobody is left to be told if stderr is closed.
    let _ = writeln!(anstream::stderr(), "{line}");
}
