//! [`Dialect`]: what one engine's API has of its own.

use std::fmt;

use runtide_core::{Result, backend::CallSite};

use crate::{answer::Answer, error::Advice};

/// The parts of a client that differ from engine to engine: how the answer to a probe is understood, what stands in front of each
/// path, and what its users know as remedies.
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// A server that answered, with what was negotiated.
    type Server: fmt::Debug + Send + Sync + 'static;

    /// Operation of the negotiation, as `docker.negotiate`.
    const NEGOTIATE: &'static str;
    /// The path of the request that negotiates, outside of any version: `/version`, or `/_ping` where its headers say enough.
    const PROBE: &'static str;
    /// Remedies in the words of this engine.
    const ADVICE: Advice;

    /// Reads the answer to the probe, and decides what to speak.
    ///
    /// # Errors
    /// `Protocol` for an answer that is none, `Unsupported` for a server with which no API is shared.
    fn understand(&self, site: CallSite<'_>, answer: &Answer) -> Result<Self::Server>;

    /// Begin of each path of the negotiated API, as `/v1.41` or `/v4.0.0/libpod`.
    fn prefix(server: &Self::Server) -> String;

    /// The command that joins its input and output to the daemon's socket, by which `ssh` reaches a daemon: to the socket of this
    /// path, or to the one that the command line there finds. `None`: this engine has no such command.
    fn dial_stdio(socket: Option<&str>) -> Option<Vec<String>> {
        let _ = socket;
        None
    }

    /// A fact that a user should know of this server whenever it refuses something, for the context of the error: that another engine
    /// answers, and which crate is for it.
    fn note(server: &Self::Server) -> Option<String> {
        let _ = server;
        None
    }

    /// Kind and version of the server, for the log. Another one than before: another server answers.
    fn describe(server: &Self::Server) -> String;
}
