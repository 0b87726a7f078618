//! [`Answer`]: a whole answer, with the daemon's clock.

use std::time::SystemTime;

use bytes::Bytes;
use hyper::{HeaderMap, header};

/// A whole answer of the daemon's.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The daemon's own clock when it answered, cut to the second; `None` for a proxy's clock.
    pub date: Option<SystemTime>,
}

/// The daemon's clock. `None` if the `Server` header is not the daemon's: a proxy that replaces it replaces the date as well.
pub(crate) fn date_of_daemon(headers: &HeaderMap) -> Option<SystemTime> {
    let server = headers.get(header::SERVER)?.to_str().ok()?;
    if !server.starts_with("Docker/") && !server.starts_with("Libpod/") {
        return None;
    }
    http_date(headers)
}

/// The date of an answer, like "Wed, 21 Oct 2015 07:28:00 GMT", the daemon's or a proxy's.
pub fn http_date(headers: &HeaderMap) -> Option<SystemTime> {
    parsed(headers.get(header::DATE)?.to_str().ok()?)
}

fn parsed(text: &str) -> Option<SystemTime> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_date_is_read() {
        let at = parsed("Tue, 15 Nov 1994 08:12:31 GMT").unwrap();
        assert_eq!(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 784_887_151);
        assert_eq!(parsed("yesterday"), None);
    }

    #[test]
    fn a_proxys_clock_is_not_the_daemons() {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, "Tue, 15 Nov 1994 08:12:31 GMT".parse().unwrap());
        assert_eq!(date_of_daemon(&headers), None);
        for (server, known) in [("nginx", false), ("Docker/20.10.24", true), ("Libpod/4.3.1 (linux)", true)] {
            headers.insert(header::SERVER, server.parse().unwrap());
            assert_eq!(date_of_daemon(&headers).is_some(), known, "{server}");
        }
    }
}
