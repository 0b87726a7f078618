//! A request to it, and its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use rustls::{ServerConnection, StreamOwned};

/// Most bytes of a head.
const HEAD: u64 = 64 << 10;

pub(super) type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// A request, without its body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) path: Vec<String>,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(super) fn read(from: &mut impl BufRead) -> Option<Self> {
        let mut from = from.take(HEAD);
        let mut line = || {
            let mut line = String::new();
            from.read_line(&mut line).ok().filter(|read| *read > 0)?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        let target = first.split(' ').nth(1)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let mut request = Self { path, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            request.query.push((decoded(name), decoded(value)));
        }
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else { return Some(request) };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first value of this name in the query.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.value(name)?.parse().ok()
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value == "1" || value == "true")
    }
}

/// Percent signs and plus signs of a query or a path.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (high, low) = (digit().unwrap_or(0), digit().unwrap_or(0));
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The whole answer.
pub(super) fn answer(stream: &mut Stream, status: u16, text: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_escapes() {
        let text =
            "POST /exec/a/b%2Dc/d?command=echo&command=a+%26b&input=1&tty=0 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        let request = Request::read(&mut text.as_bytes()).unwrap();
        assert_eq!(request.path, ["exec", "a", "b-c", "d"]);
        assert!(request.values("command").eq(["echo", "a &b"]));
        assert!(request.is_set("input") && !request.is_set("tty") && !request.is_set("output"));
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(Request::read(&mut "GET / HTTP/1.1\r\nA: b".as_bytes()), None);
    }
}
