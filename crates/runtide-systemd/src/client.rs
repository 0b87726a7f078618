//! The wire: connections, calls with deadlines, and the manager's own properties.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{CallSite, Session, lock},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Type, Variant};

use crate::{
    address,
    config::Config,
    error::{BusErrors, is_lost},
    names,
};

pub(crate) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(crate) const ROOT: &str = "/org/freedesktop/systemd1";
pub(crate) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(crate) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(crate) const SERVICE: &str = "org.freedesktop.systemd1.Service";
pub(crate) const SCOPE: &str = "org.freedesktop.systemd1.Scope";
pub(crate) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
pub(crate) const BUS: &str = "org.freedesktop.DBus";
pub(crate) const BUS_PATH: &str = "/org/freedesktop/DBus";
pub(crate) const PEER: &str = "org.freedesktop.DBus.Peer";

/// One configured manager. Cheap to clone; nothing is connected before the first call.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    id: BackendId,
    /// Connection for calls; signals have their own (trap S6).
    calls: Mutex<Option<Connection>>,
    /// Held while one call dials, so that a burst of first calls dials once.
    dialling: tokio::sync::Mutex<()>,
    session: Session<Server>,
}

/// The manager that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Version as systemd formats it: `252.39-1~deb12u1`.
    pub(crate) version: String,
    /// Major version: the number at the beginning of `version`.
    pub(crate) major: u32,
    /// Identity of the boot: it differs for every boot of the manager, and not for its re-execution.
    pub(crate) boot: u64,
    /// Folders of unit files, in order of precedence.
    pub(crate) unit_path: Vec<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.0.id)
            .field("address", &self.0.config.address)
            .finish_non_exhaustive()
    }
}

/// Methods that change nothing, and so may be called again.
const QUESTIONS: [&str; 9] = [
    "Get",
    "GetAll",
    "GetUnit",
    "GetJob",
    "GetUnitFileState",
    "GetUnitProcesses",
    "ListUnits",
    "ListUnitsByPatterns",
    "LoadUnit",
];

/// Longest absence of a re-executing manager from the bus; a longer one is an outage.
pub(crate) const AWAY: Duration = Duration::from_secs(5);

/// Time since which the manager is away. A manager that re-executes itself leaves the bus with calls unanswered and is
/// back in a moment. A manager that was absent from the first call on is not waited for.
#[derive(Debug, Default)]
pub(crate) struct Left(Option<Instant>);

impl Left {
    /// Returns when the call may be repeated.
    ///
    /// # Errors
    /// The given error, if the manager did not leave the bus, or does not come back.
    pub(crate) async fn comes_back(&mut self, error: Error) -> Result<()> {
        let is_away = is_lost(&error) || self.0.is_some() && error.kind() == ErrorKind::Unavailable;
        if !is_away || self.0.get_or_insert_with(Instant::now).elapsed() >= AWAY {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

impl Client {
    pub(crate) fn new(config: Config) -> Result<Self> {
        config.validate()?;
        Ok(Self(Arc::new(Inner {
            id: config.backend_id(),
            config,
            calls: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            session: Session::default(),
        })))
    }

    pub(crate) fn id(&self) -> &BackendId {
        &self.0.id
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.0.config.address
    }

    pub(crate) fn site(&self, operation: &'static str) -> CallSite<'_> {
        CallSite::new(operation, &self.0.id).with_endpoint(self.endpoint())
    }

    /// Makes every later call `Cancelled`.
    pub(crate) fn close(&self) {
        self.0.session.close();
        lock(&self.0.calls).take();
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.0.session.check_open(self.site(operation))
    }

    /// The manager that answered last, if any did.
    pub(crate) fn last_server(&self) -> Option<Arc<Server>> {
        self.0.session.last_server()
    }

    /// Opens a separate connection for the caller. It queues up to `queue` messages, then it stops reading.
    pub(crate) async fn dial(&self, operation: &'static str, queue: NonZeroUsize) -> Result<Connection> {
        self.check_open(operation)?;
        let site = self.site(operation);
        let deadline = self.config().connect_deadline;
        let mut first = None;
        for address in self.config().addresses() {
            let built = async {
                let address = address::parse(address).map_err(|flaw| {
                    let (kind, why) = flaw.explained(address);
                    site.error(kind, why)
                })?;
                address::connect(&address, queue).await.map_err(|error| site.dbus(error))
            };
            match site.within(deadline, built).await {
                Ok(connection) => return Ok(connection),
                Err(error) => first.get_or_insert(error),
            };
        }
        Err(first.unwrap_or_else(|| site.error(ErrorKind::InvalidInput, "there is no address")))
    }

    /// Returns the connection for calls, and makes one if there is none.
    pub(crate) async fn connection(&self, operation: &'static str) -> Result<Connection> {
        self.check_open(operation)?;
        let known = || lock(&self.0.calls).clone().filter(|connection| !connection.is_closed());
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let _one = self.0.dialling.lock().await;
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let connection = self.dial(operation, NonZeroUsize::MIN).await?;
        *lock(&self.0.calls) = Some(connection.clone());
        self.check_open(operation).inspect_err(|_| drop(lock(&self.0.calls).take()))?;
        Ok(connection)
    }

    /// Makes a call within the deadline, which includes the connection.
    ///
    /// # Cancel safety
    /// A request that was sent may be carried out, even if no task waits for the answer.
    pub(crate) async fn call<B>(
        &self,
        operation: &'static str,
        (path, interface, method): (&str, &str, &str),
        body: &B,
    ) -> Result<Message>
    where
        B: Serialize + DynamicType + Sync,
    {
        self.call_at(operation, SYSTEMD, (path, interface, method), body, self.config().deadline).await
    }

    pub(crate) async fn call_at<B>(
        &self,
        operation: &'static str,
        destination: &str,
        (path, interface, method): (&str, &str, &str),
        body: &B,
        deadline: Duration,
    ) -> Result<Message>
    where
        B: Serialize + DynamicType + Sync,
    {
        let called = async {
            let mut left = Left::default();
            loop {
                let connection = self.connection(operation).await?;
                let answered = connection.call_method(Some(destination), path, Some(interface), method, body).await;
                match answered.map_err(|error| self.site(operation).dbus(error)) {
                    Err(error) if QUESTIONS.contains(&method) => left.comes_back(error).await?,
                    answered => return answered,
                }
            }
        };
        if let Ok(answered) = tokio::time::timeout(deadline, called).await {
            return answered;
        }
        // The connection itself may be what stalls: the next call makes another.
        lock(&self.0.calls).take();
        Err(self.site(operation).timeout(deadline))
    }

    /// Makes a call to the manager's own object.
    pub(crate) async fn manager<B>(&self, operation: &'static str, method: &str, body: &B) -> Result<Message>
    where
        B: Serialize + DynamicType + Sync,
    {
        self.call(operation, (ROOT, MANAGER, method), body).await
    }

    /// Decodes an answer.
    pub(crate) fn read<T: DeserializeOwned + Type>(&self, operation: &'static str, answer: &Message) -> Result<T> {
        answer.body().deserialize().map_err(|error| self.site(operation).undecodable(error))
    }

    /// Returns the object of a loaded unit; never loads one (trap S2).
    ///
    /// # Errors
    /// `NotFound` if it is not loaded.
    pub(crate) async fn get_unit(&self, operation: &'static str, unit: &str) -> Result<OwnedObjectPath> {
        let answer = self.manager(operation, "GetUnit", &(unit,)).await?;
        self.read(operation, &answer)
    }

    /// Reads all properties of an object's interface, undecoded; of every interface if its name is empty.
    pub(crate) async fn get_all(&self, operation: &'static str, path: &str, interface: &str) -> Result<Message> {
        self.call(operation, (path, PROPERTIES, "GetAll"), &(interface,)).await
    }

    /// Reads one property.
    pub(crate) async fn get<T>(&self, operation: &'static str, path: &str, interface: &str, name: &str) -> Result<T>
    where
        T: TryFrom<OwnedVariant>,
    {
        let answer = self.call(operation, (path, PROPERTIES, "Get"), &(interface, name)).await?;
        let value: OwnedVariant = self.read(operation, &answer)?;
        T::try_from(value).map_err(|_| {
            self.site(operation).error(ErrorKind::Protocol, format!("the property {name} is of another type"))
        })
    }

    /// Reads version, boot and unit path of the manager that answers now: two calls.
    pub(crate) async fn identify(&self, operation: &'static str) -> Result<Arc<Server>> {
        let answer = self.get_all(operation, ROOT, MANAGER).await?;
        let body = answer.body();
        let properties: ManagerProperties =
            body.deserialize().map_err(|error| self.site(operation).undecodable(error))?;
        let version = properties.version.unwrap_or_default();
        let digits: String = version.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        let server = Arc::new(Server {
            major: digits.parse().unwrap_or(0),
            version,
            boot: properties.userspace_timestamp_monotonic.unwrap_or(0),
            unit_path: properties.unit_path.unwrap_or_default(),
        });
        let former = self.0.session.answered(Arc::clone(&server));
        if former.is_some_and(|former| former != server) {
            tracing::debug!(backend = %self.id(), version = server.version, boot = server.boot, "another manager answers");
        }
        Ok(server)
    }

    /// An `InvalidInput` error, caused by the caller's argument.
    pub(crate) fn invalid(&self, operation: &'static str, message: impl Into<String>) -> Error {
        self.site(operation).error(ErrorKind::InvalidInput, message)
    }

    /// Checks a unit's name.
    ///
    /// # Errors
    /// `NotFound` for a text that no unit can have as its name.
    pub(crate) fn checked<'a>(&self, operation: &'static str, unit: &'a str) -> Result<&'a str> {
        match names::flaw(unit) {
            None => Ok(unit),
            Some(why) => {
                let error = self.site(operation).error(ErrorKind::NotFound, format!("no unit has such a name: {why}"));
                Err(error.with_context("instance", format!("{unit:?}")))
            }
        }
    }
}

#[derive(Default, zbus::DeserializeDict, zbus::Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
struct ManagerProperties {
    version: Option<String>,
    userspace_timestamp_monotonic: Option<u64>,
    unit_path: Option<Vec<String>>,
}

/// Properties to set, by name.
pub(crate) type Settings<'a> = Vec<(&'a str, Variant<'a>)>;
