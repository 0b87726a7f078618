//! The wire: connections, calls with deadlines, and what the manager says of itself.

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
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Type, Variant, connection::Builder};

use crate::{
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
    /// For calls; signals have their own (trap S6).
    calls: Mutex<Option<Connection>>,
    /// Held while one call dials, so that a burst of first calls dials once.
    dialling: tokio::sync::Mutex<()>,
    session: Session<Server>,
}

/// What answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// `252.39-1~deb12u1`.
    pub(crate) version: String,
    /// The number in front of it.
    pub(crate) major: u32,
    /// Differs for every boot of the manager, and not for its re-execution.
    pub(crate) boot: u64,
    /// Where unit files lie, in order of precedence.
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

/// What changes nothing, and so may be asked twice.
const QUESTIONS: [&str; 8] =
    ["Get", "GetAll", "GetUnit", "GetJob", "GetUnitFileState", "ListUnits", "ListUnitsByPatterns", "LoadUnit"];

/// How long a manager that re-executes itself is off the bus at most, before that is an outage.
pub(crate) const AWAY: Duration = Duration::from_secs(5);

/// Since when a manager is away that left the bus with what it was asked, as it does when it re-executes itself: it is back in a
/// moment. One that was not there from the first is not waited for.
#[derive(Debug, Default)]
pub(crate) struct Left(Option<Instant>);

impl Left {
    /// Returns when it may be asked once more.
    ///
    /// # Errors
    /// The error, if it did not leave, or does not come back.
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

    /// Every later call is `Cancelled`.
    pub(crate) fn close(&self) {
        self.0.session.close();
        lock(&self.0.calls).take();
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.0.session.check_open(self.site(operation))
    }

    /// The manager that answered last, if one did.
    pub(crate) fn last_server(&self) -> Option<Arc<Server>> {
        self.0.session.last_server()
    }

    /// A connection of the caller's own, which queues so many messages before it stops reading.
    pub(crate) async fn dial(&self, operation: &'static str, queue: NonZeroUsize) -> Result<Connection> {
        self.check_open(operation)?;
        let site = self.site(operation);
        let deadline = self.config().connect_deadline;
        let mut first = None;
        for address in self.config().addresses() {
            let built = Builder::address(address).max_queued(queue).build();
            let built = async { built.await.map_err(|error| site.dbus(error)) };
            match site.within(deadline, built).await {
                Ok(connection) => return Ok(connection),
                Err(error) => first.get_or_insert(error),
            };
        }
        Err(first.unwrap_or_else(|| site.error(ErrorKind::InvalidInput, "there is no address")))
    }

    /// The connection for calls, made if there is none.
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

    /// A call within the deadline, its connection included.
    ///
    /// # Cancel safety
    /// What was sent may be done, whether or not anybody waits for the answer.
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
        // The connection may be what stalls: the next call makes another.
        lock(&self.0.calls).take();
        Err(self.site(operation).timeout(deadline))
    }

    /// A call of the manager.
    pub(crate) async fn manager<B>(&self, operation: &'static str, method: &str, body: &B) -> Result<Message>
    where
        B: Serialize + DynamicType + Sync,
    {
        self.call(operation, (ROOT, MANAGER, method), body).await
    }

    /// What an answer says.
    pub(crate) fn read<T: DeserializeOwned + Type>(&self, operation: &'static str, answer: &Message) -> Result<T> {
        answer.body().deserialize().map_err(|error| self.site(operation).undecodable(error))
    }

    /// The object of a unit that is loaded; never loads one (trap S2).
    ///
    /// # Errors
    /// `NotFound` if it is not loaded.
    pub(crate) async fn get_unit(&self, operation: &'static str, unit: &str) -> Result<OwnedObjectPath> {
        let answer = self.manager(operation, "GetUnit", &(unit,)).await?;
        self.read(operation, &answer)
    }

    /// All properties of an interface of an object, to be read from the answer; of every interface if it is empty.
    pub(crate) async fn get_all(&self, operation: &'static str, path: &str, interface: &str) -> Result<Message> {
        self.call(operation, (path, PROPERTIES, "GetAll"), &(interface,)).await
    }

    /// One property.
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

    /// What answers now: two calls.
    pub(crate) async fn identify(&self, operation: &'static str) -> Result<Arc<Server>> {
        let answer = self.get_all(operation, ROOT, MANAGER).await?;
        let body = answer.body();
        let said: ManagerProperties = body.deserialize().map_err(|error| self.site(operation).undecodable(error))?;
        let version = said.version.unwrap_or_default();
        let digits: String = version.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        let server = Arc::new(Server {
            major: digits.parse().unwrap_or(0),
            version,
            boot: said.userspace_timestamp_monotonic.unwrap_or(0),
            unit_path: said.unit_path.unwrap_or_default(),
        });
        let former = self.0.session.answered(Arc::clone(&server));
        if former.is_some_and(|former| former != server) {
            tracing::debug!(backend = %self.id(), version = server.version, boot = server.boot, "another manager answers");
        }
        Ok(server)
    }

    /// An error of the caller's making.
    pub(crate) fn invalid(&self, operation: &'static str, message: impl Into<String>) -> Error {
        self.site(operation).error(ErrorKind::InvalidInput, message)
    }

    /// The name of a unit.
    ///
    /// # Errors
    /// `NotFound` for what can be the name of none.
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
