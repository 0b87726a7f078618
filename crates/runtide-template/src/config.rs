//! Configuration of a backend.

use std::{path::PathBuf, time::Duration};

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{check_deadline, setters},
    watch::DriverOptions,
};

/// Address of the runtime when nothing names another. FORK: yours.
const DEFAULT_SOCKET: &str = "/run/template.sock";

/// Configuration of a backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of this backend, the same after a restart of the process; `template:local` by default.
    pub id: BackendId,
    /// The runtime's socket.
    pub socket: PathBuf,
    /// The longest that any call may take; 30 s by default.
    pub deadline: Duration,
    /// The silence after which an event stream counts as dead. `None`, the default: silence proves nothing.
    // FORK: what a healthy stream never exceeds, if your runtime sends something regularly, or can be asked to.
    pub max_silence: Option<Duration>,
    /// Options of the watch driver.
    pub driver: DriverOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: BackendId::from("template:local"),
            socket: PathBuf::from(DEFAULT_SOCKET),
            deadline: Duration::from_secs(30),
            max_silence: None,
            driver: DriverOptions::default(),
        }
    }
}

setters!(Config {
    /// The name of this backend.
    with_id: id: BackendId;
    /// The runtime's socket.
    with_socket: socket: PathBuf;
    /// The longest that any call may take.
    with_deadline: deadline: Duration;
    /// The silence after which an event stream counts as dead.
    with_max_silence: max_silence: Option<Duration>;
    /// Options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Config {
    /// The configuration that the environment names.
    // FORK: read the same variables as the runtime's own tools, in the same order.
    pub fn from_env() -> Self {
        match std::env::var_os("TEMPLATE_SOCKET") {
            Some(socket) if !socket.is_empty() => Self::default().with_socket(socket),
            _ => Self::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        const OPERATION: &str = "template.config";
        check_deadline(OPERATION, "deadline", self.deadline)?;
        if self.socket.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, OPERATION, "the socket has no path"));
        }
        Ok(())
    }
}
