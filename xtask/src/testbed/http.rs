//! Just enough HTTP to talk to a daemon.
//!
//! By hand and not through a client: the setup of the tests must not depend on the code under test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Outcome};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn json(&self) -> Outcome<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::failed(format_args!("not JSON: {error}")))
    }
}

/// Asks once on a unix socket; every read and write waits at most `limit`.
pub(super) fn ask(socket: &Path, method: &str, target: &str, body: &[u8], limit: Duration) -> Outcome<Answer> {
    let failed = |error: std::io::Error| Failure::failed(format_args!("{method} {target}: {error}"));
    let stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    stream.set_write_timeout(Some(limit)).map_err(failed)?;
    exchange(stream, method, target, body)
}

/// The same over tcp, without a body.
pub(super) fn ask_at(address: SocketAddr, method: &str, target: &str, limit: Duration) -> Outcome<Answer> {
    let failed = |error: std::io::Error| Failure::failed(format_args!("{method} {target}: {error}"));
    let stream = TcpStream::connect_timeout(&address, limit).map_err(failed)?;
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    stream.set_write_timeout(Some(limit)).map_err(failed)?;
    exchange(stream, method, target, &[])
}

fn exchange(mut stream: impl Read + Write, method: &str, target: &str, body: &[u8]) -> Outcome<Answer> {
    let failed = |error: std::io::Error| Failure::failed(format_args!("{method} {target}: {error}"));
    // 1.0: the answer is not chunked, and the connection ends with it.
    let head = format!(
        "{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    stream.write_all(body).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    parse(&answer).ok_or_else(|| Failure::failed(format_args!("{method} {target}: not an HTTP answer")))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let answer = parse(b"HTTP/1.0 404 Not Found\r\nServer: Docker\r\n\r\n{\"message\":\"no\"}").unwrap();
        assert_eq!(answer, Answer { status: 404, body: b"{\"message\":\"no\"}".to_vec() });
        assert!(!answer.is_success());
    }

    #[test]
    fn a_torn_answer_is_none() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nServer"), None);
        assert_eq!(parse(b""), None);
    }
}
