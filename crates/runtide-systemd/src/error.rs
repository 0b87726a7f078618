//! Classification of failures: [`ErrorKind`] by the name of the D-Bus error, the error of the socket, or the deadline.

use std::{io, time::Duration};

use runtide_core::{
    Error, ErrorKind, Retry,
    backend::{CallSite, poll_interval},
};
use zbus::fdo;

/// Interval of attempts while the bus answers and the manager is not on it. The bus holds a call back while it expects the
/// manager, so that this is the rare case.
const ABSENT: Duration = Duration::from_millis(100);

/// Classifies the errors of the bus.
pub(crate) trait BusErrors {
    /// Converts the error of a call that the bus, or systemd behind it, did not carry out.
    fn dbus(self, error: zbus::Error) -> Error;
}

impl BusErrors for CallSite<'_> {
    fn dbus(self, error: zbus::Error) -> Error {
        match &error {
            zbus::Error::MethodError(name, message, _) => {
                let (name, message) = (name.as_str(), message.as_deref().unwrap_or_default());
                self.error(of_name(name), message_of(name, message)).with_context("reason", short(name))
            }
            zbus::Error::FDO(fault) => {
                let (kind, message) = of_fdo(fault);
                let made = self.error(kind, message);
                match **fault {
                    fdo::Error::NoReply(_) => made.with_context("reason", NO_REPLY),
                    fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => {
                        made.with_retry(Retry::Poll(ABSENT))
                    }
                    _ => made,
                }
            }
            zbus::Error::Connection(cause, address) => {
                let (kind, message) = of_io(cause);
                let interval = poll_interval(cause, address.to_string().starts_with("unix:"));
                let made = self.error(kind, message).with_source(error);
                match interval {
                    Some(interval) => made.with_retry(Retry::Poll(interval)),
                    None => made,
                }
            }
            zbus::Error::InputOutput(cause) => {
                let (kind, message) = of_io(cause);
                self.error(kind, message).with_source(error)
            }
            zbus::Error::Address(why) => self.error(ErrorKind::InvalidInput, format!("no address of a bus: {why}")),
            zbus::Error::Handshake(why) if why.to_ascii_lowercase().contains("reject") => {
                self.error(ErrorKind::Unauthenticated, format!("the bus does not let this user in: {why}"))
            }
            zbus::Error::Handshake(why) => {
                self.error(ErrorKind::Protocol, format!("what answers does not speak D-Bus: {why}"))
            }
            zbus::Error::Unsupported => self.error(ErrorKind::Unsupported, "this kind of address is not supported"),
            _ => self.error(ErrorKind::Protocol, "the answer of the bus cannot be decoded").with_source(error),
        }
    }
}

/// True if the bus reports that the manager left it during the call, which may have been carried out or not.
pub(crate) fn is_lost(error: &Error) -> bool {
    error.kind() == ErrorKind::Timeout
        && error.context().iter().any(|(key, value)| *key == "reason" && value == NO_REPLY)
}

/// Last part of the name of that error.
const NO_REPLY: &str = "NoReply";

fn message_of(name: &str, message: &str) -> String {
    if message.is_empty() { format!("systemd answered {}", short(name)) } else { message.to_owned() }
}

fn short(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn of_io(error: &io::Error) -> (ErrorKind, &'static str) {
    match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::Unavailable, "there is no such socket (does systemd run here?)"),
        io::ErrorKind::ConnectionRefused => (ErrorKind::Unavailable, "nothing listens there (is the bus up?)"),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "this user may not open the socket of the bus")
        }
        io::ErrorKind::TimedOut => (ErrorKind::Timeout, "the bus did not answer in time"),
        _ => (ErrorKind::Unavailable, "the connection to the bus broke"),
    }
}

fn of_fdo(error: &fdo::Error) -> (ErrorKind, String) {
    use fdo::Error as E;
    let (kind, text) = match error {
        E::ServiceUnknown(text)
        | E::NameHasNoOwner(text)
        | E::NoServer(text)
        | E::Disconnected(text)
        | E::NoNetwork(text)
        | E::SpawnExecFailed(text)
        | E::SpawnFailed(text)
        | E::SpawnChildExited(text)
        | E::SpawnServiceNotFound(text) => (ErrorKind::Unavailable, text),
        // The manager left the bus during the call, which may have been carried out or not.
        E::NoReply(text) | E::Timeout(text) | E::TimedOut(text) => (ErrorKind::Timeout, text),
        E::AccessDenied(text) | E::InteractiveAuthorizationRequired(text) => (ErrorKind::PermissionDenied, text),
        E::AuthFailed(text) => (ErrorKind::Unauthenticated, text),
        E::NotSupported(text) | E::UnknownMethod(text) | E::UnknownInterface(text) | E::UnknownProperty(text) => {
            (ErrorKind::Unsupported, text)
        }
        E::UnknownObject(text) | E::FileNotFound(text) => (ErrorKind::NotFound, text),
        E::FileExists(text) => (ErrorKind::AlreadyExists, text),
        E::InvalidArgs(text) | E::PropertyReadOnly(text) | E::InvalidSignature(text) | E::InvalidFileContent(text) => {
            (ErrorKind::InvalidInput, text)
        }
        E::LimitsExceeded(text) => (ErrorKind::RateLimited, text),
        other => return (ErrorKind::Unexpected, other.to_string()),
    };
    (kind, text.clone())
}

/// Maps the errors of systemd itself by name; total.
fn of_name(name: &str) -> ErrorKind {
    match short(name) {
        "NoSuchUnit"
        | "NoSuchUnitFile"
        | "NoSuchJob"
        | "NoUnitForPID"
        | "NoUnitForInvocationID"
        | "NoSuchProcess"
        | "ENOENT" => ErrorKind::NotFound,
        "UnitExists" | "EEXIST" => ErrorKind::AlreadyExists,
        "UnitMasked"
        | "UnitInactive"
        | "UnitBusy"
        | "OnlyByDependency"
        | "NoIsolation"
        | "JobTypeNotApplicable"
        | "TransactionIsDestructive"
        | "TransactionJobsConflicting"
        | "TransactionOrderIsCyclic"
        | "FileDescriptorStoreDisabled"
        | "EBUSY" => ErrorKind::Conflict,
        "LoadFailed" | "BadUnitSetting" | "InvalidName" => ErrorKind::InvalidInput,
        "ShuttingDown" => ErrorKind::Unavailable,
        "SELinuxAccessDenied" | "EPERM" | "EACCES" => ErrorKind::PermissionDenied,
        "EOPNOTSUPP" | "ENOTSUP" => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use runtide_conformance::errors::repetition;

    use super::*;

    #[test]
    fn the_names_of_systemd_have_kinds() {
        for (name, kind) in [
            ("org.freedesktop.systemd1.NoSuchUnit", ErrorKind::NotFound),
            ("org.freedesktop.systemd1.UnitExists", ErrorKind::AlreadyExists),
            ("org.freedesktop.systemd1.TransactionIsDestructive", ErrorKind::Conflict),
            ("org.freedesktop.systemd1.BadUnitSetting", ErrorKind::InvalidInput),
            ("org.example.Other", ErrorKind::Unexpected),
        ] {
            assert_eq!(of_name(name), kind, "{name}");
        }
    }

    #[tokio::test]
    async fn a_dial_that_reaches_no_bus_says_so() {
        let id = runtide_core::BackendId::from("systemd:test");
        let retry_of = async |address: String| {
            let failed = zbus::connection::Builder::address(address.as_str()).build().await.unwrap_err();
            CallSite::new("systemd.test", &id).dbus(failed).retry()
        };
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let (file, network) = (Duration::from_millis(50), Duration::from_millis(250));
        assert_eq!(retry_of(format!("unix:path={}", socket.display())).await, Retry::Poll(file), "no such file");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert_eq!(retry_of(format!("unix:path={}", socket.display())).await, Retry::Poll(file), "no listener");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(
            retry_of(format!("tcp:host=127.0.0.1,port={port}")).await,
            Retry::Poll(network),
            "a port that refuses"
        );
        let absent = zbus::Error::FDO(Box::new(fdo::Error::ServiceUnknown("no such name".to_owned())));
        assert_eq!(CallSite::new("systemd.test", &id).dbus(absent).retry(), Retry::Poll(ABSENT));
        let reset = zbus::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(CallSite::new("systemd.test", &id).dbus(reset).retry(), Retry::Backoff);
    }

    #[test]
    fn every_error_of_the_bus_shows_each_thing_once() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let site = CallSite::of_store("systemd.list", "systemd:system").with_endpoint("unix:path=/run/x");
        let kinds = [
            io::ErrorKind::NotFound,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::TimedOut,
            io::ErrorKind::BrokenPipe,
        ];
        let of_io = kinds.into_iter().map(|kind| zbus::Error::InputOutput(std::sync::Arc::new(io(kind))));
        let others = [
            zbus::Error::Address("no such transport".to_owned()),
            zbus::Error::Handshake("REJECTED EXTERNAL".to_owned()),
            zbus::Error::Handshake("an unknown command".to_owned()),
            zbus::Error::Unsupported,
            zbus::Error::InvalidReply,
            zbus::Error::FDO(Box::new(fdo::Error::NoReply("no answer came".to_owned()))),
            zbus::Error::FDO(Box::new(fdo::Error::AccessDenied("not yours".to_owned()))),
            zbus::Error::Failure("it failed".to_owned()),
        ];
        for error in of_io.chain(others) {
            let shown = format!("{error:?}");
            assert_eq!(repetition(&site.dbus(error)), None, "{shown}");
        }
    }
}
