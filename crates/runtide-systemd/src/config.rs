//! The address of a manager, its deadlines, and the selection of units that are instances.

use std::{fmt, num::NonZeroUsize, path::PathBuf, time::Duration};

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{check_deadline, setters},
    watch::DriverOptions,
};

use zbus::address::transport::{Transport, UnixSocket};

use crate::{address, selection::Selection};

/// Address of the system's bus by default.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// The manager of the system, or of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The system's manager: PID 1.
    #[default]
    System,
    /// A user's own manager: `systemd --user`.
    User,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
        })
    }
}

/// The address of a manager, the deadlines of its calls, and the selection of units that are instances.
///
/// ```
/// use std::time::Duration;
///
/// use runtide_systemd::{Config, Selection};
///
/// let config = Config::system()
///     .with_selection(Selection::default().with_pattern("shop-*.service"))
///     .with_deadline(Duration::from_secs(5));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The manager of the system, or of a user.
    pub scope: Scope,
    /// Address of the manager's bus, as D-Bus formats it: `unix:path=…` or `tcp:host=…,port=…`; several, separated by
    /// `;`, are tried in order.
    pub address: String,
    /// Root of the manager's file system as seen from this process, for unit files, control groups and the journal; `/`
    /// by default. `None`: it is not visible, as on another machine: set it so with the address of one.
    /// [`Config::from_env`] assumes that a manager reached over `tcp` is on another machine.
    pub root: Option<PathBuf>,
    /// Id of the backend; by default `systemd:system`, `systemd:user`, or `systemd:` and the address.
    pub id: Option<BackendId>,
    /// Selection of the units that are instances.
    pub selection: Selection,
    /// Deadline of each call; 30 s.
    pub deadline: Duration,
    /// Deadline of making a connection, the handshake included; 5 s.
    pub connect_deadline: Duration,
    /// Deadline of the jobs of a verb (start, stop, restart); 120 s. A unit's own time-outs are 90 s by default.
    pub job_deadline: Duration,
    /// Longest silence of the signal connection; half-way through it the manager is asked for a sign of life. 60 s.
    pub max_silence: Duration,
    /// Number of units inspected concurrently; 64.
    pub inspect_concurrency: NonZeroUsize,
    /// Options of the watch driver.
    pub driver: DriverOptions,
}

setters!(Config {
    /// Sets the address of the bus.
    with_address: address: String;
    /// Sets the root of the manager's file system as seen from this process.
    with_root: root: Option<PathBuf>;
    /// Sets the id of the backend.
    with_id: id: Option<BackendId>;
    /// Sets the selection of the units that are instances.
    with_selection: selection: Selection;
    /// Sets the deadline of each call.
    with_deadline: deadline: Duration;
    /// Sets the deadline of making a connection.
    with_connect_deadline: connect_deadline: Duration;
    /// Sets the deadline of the jobs of a verb.
    with_job_deadline: job_deadline: Duration;
    /// Sets the longest silence of the signal connection.
    with_max_silence: max_silence: Duration;
    /// Sets the number of units inspected concurrently.
    with_inspect_concurrency: inspect_concurrency: NonZeroUsize;
    /// Sets the options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Default for Config {
    fn default() -> Self {
        Self::system()
    }
}

impl Config {
    fn new(scope: Scope, address: String) -> Self {
        // A manager reached over the network has another file system, unless the caller sets a root.
        let is_far = address.split(';').any(|one| one.starts_with("tcp:"));
        Self {
            scope,
            address,
            root: (!is_far).then(|| PathBuf::from("/")),
            id: None,
            selection: Selection::default(),
            deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(5),
            job_deadline: Duration::from_secs(120),
            max_silence: Duration::from_secs(60),
            inspect_concurrency: NonZeroUsize::MIN.saturating_add(63),
            driver: DriverOptions::default(),
        }
    }

    /// The configuration of this machine's manager.
    pub fn system() -> Self {
        Self::new(Scope::System, SYSTEM_BUS.to_owned())
    }

    /// The configuration of the user's manager whose folder for sockets (`XDG_RUNTIME_DIR`, as `/run/user/1000`) this
    /// is.
    pub fn user(runtime_dir: impl Into<PathBuf>) -> Self {
        let socket = runtime_dir.into().join("bus");
        Self::new(Scope::User, format!("unix:path={}", address::escaped(socket.as_os_str().as_encoded_bytes())))
    }

    /// Finds the manager as `systemctl` does: the system's at `DBUS_SYSTEM_BUS_ADDRESS`, else at its default address.
    /// With `RUNTIDE_SYSTEMD=user` the user's own, at `DBUS_SESSION_BUS_ADDRESS`, else in `XDG_RUNTIME_DIR`.
    ///
    /// # Errors
    /// `InvalidInput`, with the variable; `Unavailable` if the user's manager is configured and neither variable is
    /// set.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Self> {
        let text = |name: &'static str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.into_string().map(Some).map_err(|_| {
                Error::new(ErrorKind::InvalidInput, "systemd.config", "the variable is not UTF-8")
                    .with_context("key", name)
            }),
        };
        let config = match text("RUNTIDE_SYSTEMD")?.as_deref() {
            None | Some("system") => {
                let address = text("DBUS_SYSTEM_BUS_ADDRESS")?;
                Self::new(Scope::System, address.unwrap_or_else(|| SYSTEM_BUS.to_owned()))
            }
            Some("user") => match (text("DBUS_SESSION_BUS_ADDRESS")?, text("XDG_RUNTIME_DIR")?) {
                (Some(address), _) => Self::new(Scope::User, address),
                (None, Some(folder)) => Self::user(folder),
                (None, None) => {
                    let message =
                        "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set: no user is logged in here";
                    return Err(Error::new(ErrorKind::Unavailable, "systemd.config", message));
                }
            },
            Some(other) => {
                let message = format!("'{other}' is no manager: expected system or user");
                let error = Error::new(ErrorKind::InvalidInput, "systemd.config", message);
                return Err(error.with_context("key", "RUNTIDE_SYSTEMD"));
            }
        };
        config.validate()?;
        Ok(config)
    }

    pub(crate) fn backend_id(&self) -> BackendId {
        self.id.clone().unwrap_or_else(|| {
            let name = match (self.scope, self.address.as_str()) {
                (Scope::System, SYSTEM_BUS) => "system",
                (Scope::User, address) if address.ends_with("/bus") => "user",
                (_, address) => address,
            };
            BackendId::from(format!("systemd:{name}"))
        })
    }

    /// The bus addresses, in order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.address.split(';').filter(|address| !address.is_empty())
    }

    /// The user's folder for sockets, if the address is of a socket there.
    pub(crate) fn runtime_dir(&self) -> Option<PathBuf> {
        let socket = self.addresses().find_map(|one| match address::parse(one).ok()?.transport() {
            Transport::Unix(unix) => match unix.path() {
                UnixSocket::File(path) => Some(path.clone()),
                _ => None,
            },
            _ => None,
        })?;
        (socket.file_name()? == "bus").then(|| socket.parent().map(PathBuf::from))?
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let error = |kind, key: &'static str, why: String| {
            Err(Error::new(kind, "systemd.config", why).with_context("key", key))
        };
        if self.addresses().next().is_none() {
            return error(ErrorKind::InvalidInput, "address", "there is no address".to_owned());
        }
        for address in self.addresses() {
            if let Err(flaw) = address::parse(address) {
                let (kind, why) = flaw.explained(address);
                return error(kind, "address", why);
            }
        }
        for (key, deadline) in [
            ("deadline", self.deadline),
            ("connect_deadline", self.connect_deadline),
            ("job_deadline", self.job_deadline),
        ] {
            check_deadline("systemd.config", key, deadline)?;
        }
        if self.max_silence < Duration::from_millis(10) {
            let why = "less than 10 ms leaves no time to prove the link";
            return error(ErrorKind::InvalidInput, "max_silence", why.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Config> {
        Config::from_variables(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_environment_is_that_of_systemctl() {
        let plain = of(&[]).unwrap();
        assert_eq!((plain.scope, plain.address.as_str()), (Scope::System, SYSTEM_BUS));
        assert_eq!(plain.backend_id().as_str(), "systemd:system");
        let set = of(&[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x/y")]).unwrap();
        assert_eq!((set.address.as_str(), set.backend_id().as_str()), ("unix:path=/x/y", "systemd:unix:path=/x/y"));
        assert_eq!(set.root.as_deref(), Some(std::path::Path::new("/")));
        let far = of(&[("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=other,port=7")]).unwrap();
        assert_eq!(far.root, None, "its files are not this machine's");
        let user = of(&[("RUNTIDE_SYSTEMD", "user"), ("XDG_RUNTIME_DIR", "/run/user/1 0")]).unwrap();
        assert_eq!((user.scope, user.address.as_str()), (Scope::User, "unix:path=/run/user/1%200/bus"));
        assert_eq!(user.backend_id().as_str(), "systemd:user");
        assert_eq!(user.runtime_dir().as_deref(), Some(std::path::Path::new("/run/user/1 0")));
        let with_guid = "unix:guid=0123456789abcdef0123456789abcdef,path=/run/user/7/bus";
        let session = of(&[("RUNTIDE_SYSTEMD", "user"), ("DBUS_SESSION_BUS_ADDRESS", with_guid)]).unwrap();
        assert_eq!(session.runtime_dir().as_deref(), Some(std::path::Path::new("/run/user/7")));
        for other in ["unix:path=/tmp/dbus-x", "unix:abstract=/a/bus", "tcp:host=localhost,port=1"] {
            assert_eq!(Config::system().with_address(other).runtime_dir(), None);
        }
        assert_eq!(of(&[("RUNTIDE_SYSTEMD", "user")]).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(of(&[("RUNTIDE_SYSTEMD", "usr")]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn an_address_starts_no_program() {
        for (address, kind) in [
            ("unixexec:path=/bin/sh", ErrorKind::Unsupported),
            ("autolaunch:", ErrorKind::Unsupported),
            ("", ErrorKind::InvalidInput),
            ("unix:", ErrorKind::InvalidInput),
            ("unix:path=/a;unixexec:path=/bin/sh", ErrorKind::Unsupported),
        ] {
            assert_eq!(Config::system().with_address(address).validate().unwrap_err().kind(), kind, "{address}");
        }
        Config::system().with_address("unix:path=/a;tcp:host=localhost,port=1").validate().unwrap();
    }

    #[test]
    fn an_impossible_configuration_is_refused() {
        assert!(Config::system().with_deadline(Duration::ZERO).validate().is_err());
        assert!(Config::system().with_max_silence(Duration::ZERO).validate().is_err());
    }
}
