//! Dials that reach no daemon: how often they are repeated.

use std::{io, time::Duration};

/// Interval for a socket's file: an attempt costs some microseconds.
const FILE: Duration = Duration::from_millis(50);

/// Interval for an address of a network: an attempt is a packet or two.
const NETWORK: Duration = Duration::from_millis(250);

/// Interval at which an attempt to connect that failed like this may be repeated without end, for
/// [`Retry::Poll`](crate::Retry::Poll): 50 ms for a socket's file, 250 ms for an address of a network. `None`: a daemon may
/// have been reached, or the attempt is not as cheap, and the pause must grow.
///
/// No daemon was reached if the socket's file is not there or has no listener, if the port refuses, or if the system knows no
/// route to the host. Give it the error of `connect` itself: a wrapper of it may have the same kind, but not the system's code.
///
/// ```
/// use std::{io, time::Duration};
///
/// use runtide_core::{BackendId, ErrorKind, Retry, backend::{CallSite, poll_interval}};
///
/// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
/// let id = BackendId::from("demo");
/// let mut error = CallSite::new("demo.open", &id).error(ErrorKind::Unavailable, "no process listens there");
/// if let Some(interval) = poll_interval(&refused, true) {
///     error = error.with_retry(Retry::Poll(interval));
/// }
/// assert_eq!(error.retry(), Retry::Poll(Duration::from_millis(50)));
/// ```
pub fn poll_interval(error: &io::Error, is_file: bool) -> Option<Duration> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(if is_file { FILE } else { NETWORK }),
        io::ErrorKind::NotFound if is_file => Some(FILE),
        // Without the system's code it may be a name that cannot be resolved, and each attempt a question to a name server.
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable if error.raw_os_error().is_some() => {
            Some(NETWORK)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dials_that_reach_no_daemon_are_polled() {
        let table = [
            (io::ErrorKind::NotFound, Some(FILE), None),
            (io::ErrorKind::ConnectionRefused, Some(FILE), Some(NETWORK)),
            (io::ErrorKind::HostUnreachable, None, None), // a name that cannot be resolved
            (io::ErrorKind::PermissionDenied, None, None),
            (io::ErrorKind::ConnectionReset, None, None),
            (io::ErrorKind::TimedOut, None, None),
            (io::ErrorKind::WouldBlock, None, None), // a listener whose queue is full
        ];
        for (kind, file, network) in table {
            let error = io::Error::from(kind);
            assert_eq!((poll_interval(&error, true), poll_interval(&error, false)), (file, network), "{kind:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_errors_of_the_system_are_recognized() {
        let [not_found, refused, no_network, no_host] = [2, 111, 101, 113];
        for code in [not_found, refused] {
            assert_eq!(poll_interval(&io::Error::from_raw_os_error(code), true), Some(FILE), "{code}");
        }
        for code in [refused, no_network, no_host] {
            assert_eq!(poll_interval(&io::Error::from_raw_os_error(code), false), Some(NETWORK), "{code}");
        }
    }
}
