//! The choice of a systemd, and the check that it answers.

use std::{path::Path, time::Duration};

use runtide_core::{Error, ErrorKind, RuntimeBackend};
use runtide_systemd::{Config, SystemdBackend};

use crate::{Stop, args::Systemd, stop::describe};

/// Deadline of the connection.
const DEADLINE: Duration = Duration::from_secs(10);

impl Systemd {
    /// The first of these options that was given.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        self.bus.as_ref().map(|_| "--bus").or(self.root.as_ref().map(|_| "--root"))
    }

    /// `true` if any of these options was given.
    pub fn is_given(&self) -> bool {
        self.first_given().is_some()
    }

    /// The [`config`](Self::config) of a systemd that answers.
    ///
    /// # Errors
    /// `Refused`, with advice.
    pub async fn answering(&self) -> Result<Config, Stop> {
        let config = self.config()?;
        let backend = SystemdBackend::new(config.clone())?;
        backend.connect().await.map_err(|error| refusal(&config, &error))?;
        Ok(config)
    }

    /// The configuration by the options, with the environment's defaults.
    ///
    /// # Errors
    /// `Refused`, with the variable or the folder that is wrong.
    pub fn config(&self) -> Result<Config, Stop> {
        let mut config = match (Config::from_env(), &self.bus) {
            (Ok(config), None) => config,
            (Ok(config), Some(bus)) => config.with_address(bus),
            // With --bus, the environment need not name the user's bus.
            (Err(error), Some(bus)) if error.kind() == ErrorKind::Unavailable => Config::user("/").with_address(bus),
            (Err(error), _) => return Err(error.into()),
        };
        if let Some(root) = &self.root {
            if !root.is_dir() {
                return Err(Stop::refused(format_args!("--root {}: there is no such folder", root.display())));
            }
            config = config.with_root(root.clone());
        }
        // The user of an example wants an answer at once, and this deadline keeps the cause of a failure.
        Ok(config.with_connect_deadline(DEADLINE))
    }
}

/// The refusal of a systemd that does not answer, with advice.
pub(crate) fn refusal(config: &Config, error: &Error) -> Stop {
    let here = config.root.as_deref() == Some(Path::new("/"));
    let advice = match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => "; name its bus with --bus or DBUS_SYSTEM_BUS_ADDRESS",
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied if here => {
            "; be root, or take your own with RUNTIDE_SYSTEMD=user"
        }
        _ => "",
    };
    Stop::refused(format_args!("systemd at {}: {}{advice}", config.address, describe(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_override_the_environment() {
        let given = Systemd { bus: Some("unix:path=/x".to_owned()), root: Some("/tmp".into()) };
        let config = given.config().unwrap();
        assert_eq!((config.address.as_str(), config.root.as_deref()), ("unix:path=/x", Some(Path::new("/tmp"))));
        assert_eq!((given.first_given(), Systemd::default().first_given()), (Some("--bus"), None));
    }

    #[test]
    fn a_missing_root_is_refused() {
        let given = Systemd { bus: None, root: Some("/nonexistent/root".into()) };
        let Err(Stop::Refused(line)) = given.config() else { panic!("refused") };
        assert!(line.contains("--root /nonexistent/root"), "{line}");
    }
}
