//! What a store asks of the manager: to reload, whether it took a unit, to let go of one, to enable and disable.

use std::time::Duration;

use runtide_core::{Effect, Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::client::{Client, MANAGER, ROOT, SYSTEMD, UNIT};

const APPLY: &str = "store.apply";
const DELETE: &str = "store.delete";

/// The manager, for a store.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    client: Client,
    /// What is enabled here does not outlive a reboot.
    runtime: bool,
}

impl Manager {
    pub(super) fn new(client: Client, runtime: bool) -> Self {
        Self { client, runtime }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Has all unit files read anew. It answers when that is done, which takes longer than other calls.
    pub(super) async fn reload(&self) -> Result<()> {
        let config = self.client.config();
        let deadline = config.job_deadline.max(config.deadline);
        self.client.call_at(APPLY, SYSTEMD, (ROOT, MANAGER, "Reload"), &(), deadline).await.map(drop)
    }

    /// Whether a unit is one that it can load. `has_file`: its file was written, so that it must find one.
    ///
    /// # Errors
    /// `InvalidInput`, in its own words.
    pub(super) async fn check(&self, unit: &str, has_file: bool) -> Result<()> {
        // A template is no unit: only its instances are.
        if unit.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@')) {
            return Ok(());
        }
        let loaded = self.client.manager(APPLY, "LoadUnit", &(unit,)).await;
        let path: zbus::OwnedObjectPath = match loaded {
            Ok(answer) => self.client.read(APPLY, &answer)?,
            // It may be gone again between the reload and now.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = self.client.get_all(APPLY, path.as_str(), UNIT).await?;
        let said: Loaded = self.client.read(APPLY, &answer)?;
        match said.load_state.as_deref() {
            Some("bad-setting" | "error") => {
                let (name, message) = said.load_error.unwrap_or_default();
                let message = if message.is_empty() { format!("systemd does not load it: {name}") } else { message };
                Err(self.client.invalid(APPLY, message).with_context("unit", unit))
            }
            Some("not-found") if has_file => {
                let message = "systemd does not look for units in this folder: nothing in it would ever be started";
                Err(self.client.invalid(APPLY, message).with_context("unit", unit))
            }
            _ => Ok(()),
        }
    }

    /// Stops a unit and waits for its end, and disables it; its file is still there, without which it could not be disabled.
    pub(super) async fn retire(&self, unit: &str) -> Result<()> {
        if unit.rsplit_once('.').is_some_and(|(stem, _)| !stem.ends_with('@')) {
            self.stop(unit).await?;
        }
        if self.is_enabled(unit).await? {
            self.client.manager(DELETE, "DisableUnitFiles", &(vec![unit], self.runtime)).await?;
        }
        Ok(())
    }

    async fn stop(&self, unit: &str) -> Result<()> {
        let until = Instant::now() + self.client.config().job_deadline;
        let mut pause = Duration::from_millis(5);
        let mut asked = false;
        loop {
            let path = match self.client.get_unit(DELETE, unit).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                path => path?,
            };
            let state: String = self.client.get(DELETE, path.as_str(), UNIT, "ActiveState").await?;
            if matches!(state.as_str(), "inactive" | "failed") {
                return Ok(());
            }
            if !asked {
                match self.client.manager(DELETE, "StopUnit", &(unit, "replace")).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                    stopped => stopped.map(drop)?,
                }
                asked = true;
                continue;
            }
            if Instant::now() >= until {
                let error = self.client.place(DELETE).timeout(self.client.config().job_deadline);
                return Err(error.with_context("unit", unit).with_context("state", state));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    async fn is_enabled(&self, unit: &str) -> Result<bool> {
        let answer = match self.client.manager(DELETE, "GetUnitFileState", &(unit,)).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => return Ok(false),
            answer => answer?,
        };
        let state: String = self.client.read(DELETE, &answer)?;
        Ok(matches!(state.as_str(), "enabled" | "enabled-runtime"))
    }

    /// Has a unit started with what its `[Install]` section names.
    pub(super) async fn enable(&self, unit: &str) -> Result<Effect> {
        const ENABLE: &str = "systemd.store.enable";
        let answer = self.client.manager(ENABLE, "EnableUnitFiles", &(vec![unit], self.runtime, false)).await?;
        let (installs, changes): (bool, Vec<(String, String, String)>) = self.client.read(ENABLE, &answer)?;
        if !installs {
            let error = self.client.invalid(ENABLE, "it has no [Install] section, and so nothing to be enabled by");
            return Err(error.with_context("unit", unit));
        }
        self.settled(!changes.is_empty()).await
    }

    /// Takes that back.
    pub(super) async fn disable(&self, unit: &str) -> Result<Effect> {
        const DISABLE: &str = "systemd.store.disable";
        let answer = self.client.manager(DISABLE, "DisableUnitFiles", &(vec![unit], self.runtime)).await?;
        let changes: Vec<(String, String, String)> = self.client.read(DISABLE, &answer)?;
        self.settled(!changes.is_empty()).await
    }

    async fn settled(&self, changed: bool) -> Result<Effect> {
        if !changed {
            return Ok(Effect::Unchanged);
        }
        self.reload().await?;
        Ok(Effect::Changed)
    }
}

#[derive(Default, zbus::DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct Loaded {
    load_state: Option<String>,
    load_error: Option<(String, String)>,
}

/// The same error for one more caller.
pub(super) fn again(error: &Error) -> Error {
    let fresh = Error::new(error.kind(), error.operation(), error.message().to_owned()).with_retry(error.retry());
    error.context().iter().fold(fresh, |fresh, (key, value)| fresh.with_context(key, value))
}
