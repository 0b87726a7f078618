//! [`Origin`]: the source of an address.

use std::fmt;

/// Source of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The connection that the variable `CONTAINER_CONNECTION` names.
    Connection,
    /// The variable `CONTAINER_HOST`.
    Environment,
    /// The default connection of `podman system connection`.
    DefaultConnection,
    /// The socket of this user's own service.
    Rootless,
    /// The socket of the machine's service.
    System,
    /// The socket of a `podman machine`.
    Machine,
    /// Docker's socket, where Podman may listen in its place.
    Docker,
}

impl Origin {
    /// The user named this address: no other is chosen in its place.
    pub fn is_named(self) -> bool {
        matches!(self, Self::Connection | Self::Environment | Self::DefaultConnection)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connection => "CONTAINER_CONNECTION",
            Self::Environment => "CONTAINER_HOST",
            Self::DefaultConnection => "default connection",
            Self::Rootless => "rootless",
            Self::System => "default socket",
            Self::Machine => "podman machine",
            Self::Docker => "Docker's socket",
        })
    }
}
