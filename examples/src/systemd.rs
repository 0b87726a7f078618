//! Which systemd is meant, and whether it answers.

use std::{path::Path, time::Duration};

use runtide_core::{Error, ErrorKind, RuntimeBackend};
use runtide_systemd::{Config, SystemdBackend};

use crate::{Stop, args::Systemd, stop::describe};

/// For an answer to whether it is there.
const DEADLINE: Duration = Duration::from_secs(3);

impl Systemd {
    /// The first of these options that was given.
    pub(crate) fn told(&self) -> Option<&'static str> {
        self.bus.as_ref().map(|_| "--bus").or(self.root.as_ref().map(|_| "--root"))
    }

    /// Whether any of these options was given.
    pub fn is_told(&self) -> bool {
        self.told().is_some()
    }

    /// [`config`](Self::config), and whoever it leads to answers.
    ///
    /// # Errors
    /// `Refused`, with what to do.
    pub async fn answering(&self) -> Result<Config, Stop> {
        let config = self.config()?;
        let backend = SystemdBackend::new(config.clone())?;
        backend.connect().await.map_err(|error| refusal(&config, &error))?;
        Ok(config)
    }

    /// By the options, else by the environment.
    ///
    /// # Errors
    /// `Refused`, with the variable or the folder that is wrong.
    pub fn config(&self) -> Result<Config, Stop> {
        let mut config = match (Config::from_env(), &self.bus) {
            (Ok(config), None) => config,
            (Ok(config), Some(bus)) => config.with_address(bus),
            // Which bus is the user's is not asked of the environment where it is told.
            (Err(error), Some(bus)) if error.kind() == ErrorKind::Unavailable => Config::user("/").with_address(bus),
            (Err(error), _) => return Err(error.into()),
        };
        if let Some(root) = &self.root {
            if !root.is_dir() {
                return Err(Stop::refused(format_args!("--root {}: there is no such folder", root.display())));
            }
            config = config.with_root(root.clone());
        }
        // Whoever tries an example wants to know at once, and a deadline of its own keeps the cause.
        Ok(config.with_connect_deadline(DEADLINE))
    }
}

/// What keeps a systemd from answering, and what to do about it.
pub(crate) fn refusal(config: &Config, error: &Error) -> Stop {
    let here = config.root.as_deref() == Some(Path::new("/"));
    let advice = match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => "; say where its bus is with --bus or DBUS_SYSTEM_BUS_ADDRESS",
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
    fn what_is_told_goes_before_the_environment() {
        let told = Systemd { bus: Some("unix:path=/x".to_owned()), root: Some("/tmp".into()) };
        let config = told.config().unwrap();
        assert_eq!((config.address.as_str(), config.root.as_deref()), ("unix:path=/x", Some(Path::new("/tmp"))));
        assert_eq!((told.told(), Systemd::default().told()), (Some("--bus"), None));
    }

    #[test]
    fn a_root_that_is_not_there_is_refused() {
        let told = Systemd { bus: None, root: Some("/nonexistent/root".into()) };
        let Err(Stop::Refused(line)) = told.config() else { panic!("refused") };
        assert!(line.contains("--root /nonexistent/root"), "{line}");
    }
}
