//! The calls of a store to the manager: reload, check of a unit, stop, enable and disable.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Failure, Result, backend::instant_after, manager::Effect};
use rustix::fs::{OFlags, fstat};
use tokio::time::Instant;

use super::name::UnitFileName;
use crate::{
    client::{Client, MANAGER, ROOT, SYSTEMD, UNIT},
    files,
};

const APPLY: &str = "store.apply";
const DELETE: &str = "store.delete";

/// The manager of a store's units.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    client: Client,
    /// The folder of the unit files, as the manager sees it.
    folder: PathBuf,
    /// True if units enabled here do not stay enabled after a reboot.
    runtime: bool,
}

impl Manager {
    pub(super) fn new(client: Client, folder: PathBuf, runtime: bool) -> Self {
        Self { client, folder, runtime }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Reloads all unit files. The answer comes when that is done, which takes longer than other calls.
    pub(super) async fn reload(&self) -> Result<()> {
        let config = self.client.config();
        let deadline = config.job_deadline.max(config.deadline);
        self.client.call_at(APPLY, SYSTEMD, (ROOT, MANAGER, "Reload"), &(), deadline).await.map(drop)
    }

    /// Checks that the manager can load a unit, from these files of the folder.
    ///
    /// # Errors
    /// `InvalidInput`, with systemd's message; `Conflict` if a file of the same name in another folder comes before.
    pub(super) async fn check(&self, unit: &str, files: &[&UnitFileName]) -> Result<()> {
        // A template is no unit: only its instances are.
        if unit.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@')) {
            return Ok(());
        }
        let loaded = self.client.manager(APPLY, "LoadUnit", &(unit,)).await;
        let path: zbus::OwnedObjectPath = match loaded {
            Ok(answer) => self.client.read(APPLY, &answer)?,
            // It may be unloaded again between the reload and now.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = self.client.get_all(APPLY, path.as_str(), UNIT).await?;
        let properties: Loaded = self.client.read(APPLY, &answer)?;
        match properties.load_state.as_deref() {
            Some("bad-setting" | "error") => {
                let (name, message) = properties.load_error.unwrap_or_default();
                let message = if message.is_empty() { format!("systemd does not load it: {name}") } else { message };
                Err(self.client.invalid(APPLY, message).with_context("unit", unit))
            }
            Some("not-found") if files.iter().any(|file| file.drop_in_name().is_none()) => {
                let message = "systemd reads no units from this folder: none in it could be started";
                Err(self.client.invalid(APPLY, message).with_context("unit", unit))
            }
            // A drop-in of a unit that does not exist yet: a unit that is not loaded has no files.
            Some("not-found") => Ok(()),
            _ => self.is_made_of(unit, files, properties).await,
        }
    }

    async fn is_made_of(&self, unit: &str, files: &[&UnitFileName], properties: Loaded) -> Result<()> {
        let fragment = properties.fragment_path.unwrap_or_default();
        let drop_ins = properties.drop_in_paths.unwrap_or_default();
        for file in files {
            let own = self.folder.join(file.path());
            let (taken, what) = match file.drop_in_name() {
                None => (std::slice::from_ref(&fragment), "the unit"),
                Some(_) => (drop_ins.as_slice(), "the drop-in"),
            };
            if taken.iter().any(|path| Path::new(path) == own) || self.is_one_of(&own, taken).await {
                continue;
            }
            let name = own.file_name();
            let instead = taken.iter().find(|path| Path::new(path).file_name() == name).map_or("", String::as_str);
            let message =
                format!("systemd takes {what} from elsewhere: a file of this name comes before, or it is masked");
            let error = self.client.site(APPLY).error(ErrorKind::Conflict, message).with_context("unit", unit);
            return Err(error.with_context("taken", instead).with_context("written", own.display()));
        }
        Ok(())
    }

    /// True if a file is also known by one of these names: of merged folders systemd may report either.
    async fn is_one_of(&self, own: &Path, others: &[String]) -> bool {
        let Some(root) = self.client.config().root.clone() else { return false };
        let (own, others) = (own.to_owned(), others.to_vec());
        let compared = tokio::task::spawn_blocking(move || {
            let number = |path: &Path| {
                let opened = files::open(&root, &path.to_string_lossy(), OFlags::PATH).ok()?;
                let found = fstat(opened).ok()?;
                Some((found.st_dev, found.st_ino))
            };
            let own = number(&own);
            own.is_some() && others.iter().any(|other| number(Path::new(other)) == own)
        });
        compared.await.unwrap_or(false)
    }

    /// True if there is a unit of this name, so that drop-ins of it apply.
    pub(super) async fn knows(&self, unit: &str) -> Result<bool> {
        let answer = self.client.manager(APPLY, "LoadUnit", &(unit,)).await;
        let path: zbus::OwnedObjectPath = match answer {
            Ok(answer) => self.client.read(APPLY, &answer)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let state: String = self.client.get(APPLY, path.as_str(), UNIT, "LoadState").await?;
        Ok(state != "not-found")
    }

    /// Stops a unit and waits for its end, and disables it; its file still exists, without which it could not be
    /// disabled.
    pub(super) async fn retire(&self, unit: &str) -> Result<()> {
        if unit.rsplit_once('.').is_some_and(|(stem, _)| !stem.ends_with('@')) {
            self.stop(unit).await?;
        }
        if self.is_enabled(unit).await? {
            self.uninstall(DELETE, unit).await?;
        }
        Ok(())
    }

    async fn stop(&self, unit: &str) -> Result<()> {
        let until = instant_after(self.client.config().job_deadline);
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
                let error = self.client.site(DELETE).timeout(self.client.config().job_deadline);
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

    /// Enables a unit as its `[Install]` section says.
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

    /// Disables a unit.
    pub(super) async fn disable(&self, unit: &str) -> Result<Effect> {
        const DISABLE: &str = "systemd.store.disable";
        let changed = self.uninstall(DISABLE, unit).await?;
        self.settled(changed).await
    }

    /// Removes all links that enable a unit, now and after a boot, in every folder. Returns true if there was any.
    async fn uninstall(&self, operation: &'static str, unit: &str) -> Result<bool> {
        let mut changed = false;
        for runtime in [self.runtime, !self.runtime] {
            let answer = self.client.manager(operation, "DisableUnitFiles", &(vec![unit], runtime)).await?;
            let removed: Vec<(String, String, String)> = self.client.read(operation, &answer)?;
            changed |= !removed.is_empty();
        }
        Ok(changed)
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
    fragment_path: Option<String>,
    drop_in_paths: Option<Vec<String>>,
}

/// Copies the error for one more caller.
pub(super) fn again(error: &Error) -> Error {
    Error::from(Failure::from(error)).with_retry(error.retry())
}
