//! The managers: on a daemon whose every answer is written here, and on a real one.

mod attach;
pub(crate) mod bench;
mod ends;
mod exec;
mod exec_scripted;
mod failed_start;
mod identity;
mod lifecycle;
mod log;
mod log_against_docker;
mod lost_creates;
mod network;
mod network_scripted;
mod provision;
mod provision_against_docker;
mod rename;
mod scripted;
mod stats;
mod volume;
mod volume_scripted;
mod wait;
