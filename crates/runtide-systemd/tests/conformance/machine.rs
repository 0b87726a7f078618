//! The manager, called on a separate connection of the harness: no part of the backend under test is in between.

use std::{collections::HashMap, fmt::Write as _, path::PathBuf, time::Duration};

use runtide_core::{ExitStatus, UnixSignal};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, connection::Builder};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) type Properties = HashMap<String, OwnedVariant>;
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A unit's settings.
pub(crate) type Settings<'a> = Vec<(&'a str, Variant<'a>)>;

pub(crate) struct Machine {
    address: String,
    connection: Mutex<Option<Connection>>,
}

impl Machine {
    pub(crate) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), connection: Mutex::default() }
    }

    /// Path of its socket.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.address.strip_prefix("unix:path=").map(PathBuf::from)
    }

    pub(crate) async fn dial(&self) -> Result<Connection, String> {
        let built = Builder::address(self.address.as_str()).max_queued(16_384.try_into().unwrap()).build();
        let built = tokio::time::timeout(LIMIT, built).await.map_err(|_| "no connection in time".to_owned())?;
        built.map_err(|error| error.to_string())
    }

    /// Makes a call, and repeats it on a new connection if the old one broke.
    pub(crate) async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, String>
    where
        B: Serialize + DynamicType + Sync,
    {
        let mut held = self.connection.lock().await;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if held.as_ref().is_none_or(Connection::is_closed) {
                let Ok(connection) = self.dial().await else {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    continue;
                };
                *held = Some(connection);
            }
            let Some(connection) = held.as_ref() else { continue };
            let called = connection.call_method(Some(SYSTEMD), path, Some(interface), method, body);
            match tokio::time::timeout(LIMIT, called).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error @ (zbus::Error::MethodError(..) | zbus::Error::FDO(_)))) => {
                    let text = error.to_string();
                    if text.contains("ServiceUnknown") || text.contains("NameHasNoOwner") || text.contains("activat") {
                        tokio::time::sleep(Duration::from_millis(250)).await;
                        continue;
                    }
                    return Err(format!("{method}: {text}"));
                }
                Ok(Err(_)) => *held = None,
                Err(_) => return Err(format!("{method}: no answer")),
            }
        }
        Err(format!("{method}: the manager is not there"))
    }

    pub(crate) async fn manager<B>(&self, method: &str, body: &B) -> Result<Message, String>
    where
        B: Serialize + DynamicType + Sync,
    {
        self.call(ROOT, MANAGER, method, body).await
    }

    pub(crate) async fn version(&self) -> Result<String, String> {
        let answer = self.call(ROOT, "org.freedesktop.DBus.Properties", "Get", &(MANAGER, "Version")).await?;
        let value: OwnedVariant = answer.body().deserialize().map_err(|error| error.to_string())?;
        String::try_from(value).map_err(|error| error.to_string())
    }

    /// Names of the loaded units that match a pattern.
    pub(crate) async fn units(&self, pattern: &str) -> Result<Vec<String>, String> {
        let states: &[&str] = &[];
        let answer = self.manager("ListUnitsByPatterns", &(states, [pattern].as_slice())).await?;
        let listed: Vec<Listed> = answer.body().deserialize().map_err(|error| error.to_string())?;
        Ok(listed.into_iter().filter(|unit| unit.2 == "loaded").map(|unit| unit.0).collect())
    }

    /// All properties of a unit; `None`: it is not loaded.
    pub(crate) async fn properties(&self, unit: &str) -> Result<Option<Properties>, String> {
        let path: OwnedObjectPath = match self.manager("GetUnit", &(unit,)).await {
            Ok(answer) => answer.body().deserialize().map_err(|error| error.to_string())?,
            Err(error) if error.contains("not loaded") => return Ok(None),
            Err(error) => return Err(error),
        };
        let answer = self.call(&path, "org.freedesktop.DBus.Properties", "GetAll", &("",)).await?;
        let properties: Properties = answer.body().deserialize().map_err(|error| error.to_string())?;
        // It was unloaded between the two calls, and the second one loaded its name.
        let gone = text(&properties, "LoadState") != "loaded";
        Ok((!gone).then_some(properties))
    }

    /// Creates a unit that is loaded and not started, kept by a slice until that is stopped.
    pub(crate) async fn create(&self, holder: &str, unit: &str, settings: Settings<'_>) -> Result<(), String> {
        let aux: Vec<(&str, Settings<'_>)> = vec![(unit, settings)];
        let holding: Settings<'_> = vec![("Before", Variant::from(vec![unit]))];
        self.manager("StartTransientUnit", &(holder, "fail", holding, aux)).await.map(drop)
    }

    /// Waits until a unit's properties satisfy this; `None` stands for a unit that is not loaded.
    pub(crate) async fn until(&self, unit: &str, done: impl Fn(Option<&Properties>) -> bool) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if done(self.properties(unit).await?.as_ref()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{unit} never came to the state that was waited for"))
    }
}

pub(crate) fn text(properties: &Properties, name: &str) -> String {
    properties.get(name).and_then(|value| <&str>::try_from(&**value).ok()).unwrap_or_default().to_owned()
}

pub(crate) fn number(properties: &Properties, name: &str) -> u64 {
    let Some(value) = properties.get(name) else { return 0 };
    u64::try_from(&**value)
        .or_else(|_| u32::try_from(&**value).map(u64::from))
        .or_else(|_| i32::try_from(&**value).map(|number| u64::try_from(number).unwrap_or(0)))
        .unwrap_or(0)
}

pub(crate) fn texts(properties: &Properties, name: &str) -> Vec<String> {
    properties.get(name).and_then(|value| Vec::<String>::try_from(value.clone()).ok()).unwrap_or_default()
}

pub(crate) fn invocation(properties: &Properties) -> Option<String> {
    let bytes = Vec::<u8>::try_from(properties.get("InvocationID")?.clone()).ok()?;
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    (!text.is_empty()).then_some(text)
}

pub(crate) fn rests(properties: &Properties) -> bool {
    matches!(text(properties, "ActiveState").as_str(), "inactive" | "failed")
}

/// The exit of its last main process.
pub(crate) fn exit(properties: &Properties) -> Option<ExitStatus> {
    let status = number(properties, "ExecMainStatus");
    match number(properties, "ExecMainCode") {
        1 => Some(ExitStatus::code(i32::try_from(status).ok()?)),
        2 | 3 => Some(ExitStatus::signal(UnixSignal(u8::try_from(status).ok()?.try_into().ok()?))),
        _ => None,
    }
}
