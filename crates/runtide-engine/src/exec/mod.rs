//! Processes inside a container, and its main process, over upgraded connections: what both engines do alike.
//!
//! An engine has its own ways to say how a process ended ([`Records`], [`Run`]). The states of a session, its input and its output
//! are the same.

mod input;
mod main_process;
mod output;
mod owner;
mod process;
mod request;

pub use self::{
    input::{End, Input},
    main_process::{Main, Run},
    output::{Output, Seen, Subject, is_absence},
    owner::Owner,
    process::{Hints, Noted, Process, Records, id_in},
    request::{Create, DETACH_KEYS, Start, check, resize},
};
