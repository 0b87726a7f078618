//! Daemons on other machines, through the system's `ssh` and a command there that joins its input and output to the daemon's socket.

mod address;
mod failure;
mod link;

pub use self::address::Ssh;
pub(crate) use self::{
    failure::Failure,
    link::{SshConnector, SshLink},
};
