#![doc = include_str!("../README.md")]

mod guest;
mod loose;
mod parameters;
mod reply;
mod task;
mod upid;

pub use self::{
    guest::{Guest, GuestKind, GuestState, Guests},
    parameters::Parameters,
    reply::{Change, Reply},
    task::{LogLine, TaskState, log_lines},
    upid::Upid,
};
