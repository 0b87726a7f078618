//! The client against a daemon that a test scripts, over a unix socket.
#![cfg(unix)]

mod client;
mod feed;
mod hijack;
mod scripted;
mod ssh;
