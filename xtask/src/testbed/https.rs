//! Just enough HTTPS for an API server that asks for a client certificate: one connection, one request after the other.
//!
//! By hand and not through a client: the setup of the tests must not depend on the code under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::failure::{Failure, Outcome};

/// Most bytes of one line of a head.
const LINE: u64 = 64 << 10;

/// The answer, without its body.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// `None`: in chunks.
    length: Option<u64>,
}

#[derive(Debug)]
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

/// A server on loopback, and what it takes to speak with it.
#[derive(Clone)]
pub(super) struct Server {
    port: u16,
    tls: Arc<ClientConfig>,
}

/// The body of a request.
pub(super) struct Body<'a> {
    pub(super) kind: &'a str,
    pub(super) bytes: &'a [u8],
}

impl Body<'_> {
    pub(super) const NONE: Body<'static> = Body { kind: "application/json", bytes: &[] };
}

impl Server {
    /// The client is `name`, whose certificate and key are in `pki`, as is the authority's.
    pub(super) fn at(port: u16, pki: &Path, name: &str) -> Outcome<Self> {
        let wrong = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", pki.display()));
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(pki.join("ca.crt")).map_err(|error| wrong(&error))?;
        roots.add(authority).map_err(|error| wrong(&error))?;
        let certificate =
            CertificateDer::from_pem_file(pki.join(format!("{name}.crt"))).map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_file(pki.join(format!("{name}.key"))).map_err(|error| wrong(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key))
            .map_err(|error| wrong(&error))?;
        Ok(Self { port, tls: Arc::new(tls) })
    }

    /// Every read and write waits at most `limit`.
    pub(super) fn connect(&self, limit: Duration) -> std::io::Result<Connection> {
        let socket = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), limit)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(std::io::Error::other)?;
        Ok(Connection { stream: BufReader::new(StreamOwned::new(tls, socket)) })
    }

    /// Asks once.
    pub(super) fn ask(&self, method: &str, target: &str, body: &Body<'_>, limit: Duration) -> Outcome<Answer> {
        let answer = self.connect(limit).and_then(|mut connection| connection.ask(method, target, body));
        answer.map_err(|error| Failure::failed(format_args!("{method} {target}: {error}")))
    }
}

pub(super) struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Connection {
    /// Asks, and reads the whole answer. After an error the connection is of no more use.
    pub(super) fn ask(&mut self, method: &str, target: &str, body: &Body<'_>) -> std::io::Result<Answer> {
        let head = self.begin(method, target, body)?;
        let mut bytes = Vec::new();
        match head.length {
            Some(length) => {
                (&mut self.stream).take(length).read_to_end(&mut bytes)?;
                if bytes.len() as u64 != length {
                    return Err(torn());
                }
            }
            None => Chunks::of(&mut self.stream).read_to_end(&mut bytes).map(drop)?,
        }
        Ok(Answer { status: head.status, body: bytes })
    }

    /// Asks for a watch, and hands over each line of it until `take` returns `false` or the stream ends.
    pub(super) fn watch(&mut self, target: &str, mut take: impl FnMut(&[u8]) -> bool) -> std::io::Result<u16> {
        let head = self.begin("GET", target, &Body::NONE)?;
        if head.status != 200 {
            return Ok(head.status);
        }
        let mut lines = BufReader::new(Chunks::of(&mut self.stream));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 && take(&line) {
            line.clear();
        }
        Ok(head.status)
    }

    fn begin(&mut self, method: &str, target: &str, body: &Body<'_>) -> std::io::Result<Head> {
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: {}\r\n\
             Content-Length: {}\r\n\r\n",
            body.kind,
            body.bytes.len()
        )
        .into_bytes();
        request.extend_from_slice(body.bytes);
        let stream = self.stream.get_mut();
        stream.write_all(&request)?;
        stream.flush()?;
        read_head(&mut self.stream)
    }
}

fn torn() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answer is torn")
}

fn wrong(what: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

fn read_line(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    from.take(LINE).read_line(&mut line)?;
    if line.ends_with('\n') { Ok(line.trim_end().to_owned()) } else { Err(torn()) }
}

fn read_head(from: &mut impl BufRead) -> std::io::Result<Head> {
    let first = read_line(from)?;
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let mut head = Head { status: status.ok_or_else(|| wrong("not an HTTP answer"))?, length: Some(0) };
    loop {
        let line = read_line(from)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(head) };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.trim().parse().ok(),
            "transfer-encoding" => head.length = None,
            _ => {}
        }
    }
}

/// The body of an answer in chunks.
struct Chunks<'a, R> {
    from: &'a mut R,
    /// Bytes that are left of this chunk; `None` after the last.
    left: Option<u64>,
    begun: bool,
}

impl<'a, R: BufRead> Chunks<'a, R> {
    fn of(from: &'a mut R) -> Self {
        Self { from, left: Some(0), begun: false }
    }
}

impl<R: BufRead> Read for Chunks<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == Some(0) {
            if std::mem::replace(&mut self.begun, true) {
                read_line(self.from)?;
            }
            let size = read_line(self.from)?;
            let size = size.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| wrong("not the size of a chunk"))?;
            self.left = (size > 0).then_some(size);
            if size == 0 {
                while !read_line(self.from)?.is_empty() {}
            }
        }
        let Some(left) = self.left else { return Ok(0) };
        let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        if read == 0 && most > 0 {
            return Err(torn());
        }
        self.left = Some(left - read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_the_next_answer_begins_behind_them() {
        let text = "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let mut from = text.as_bytes();
        let mut body = String::new();
        Chunks::of(&mut from).read_to_string(&mut body).unwrap();
        assert_eq!(body, "hello!");
        assert_eq!(read_head(&mut from).unwrap(), Head { status: 204, length: Some(0) });
    }

    #[test]
    fn a_torn_answer_is_an_error() {
        let mut body = String::new();
        assert!(Chunks::of(&mut "5\r\nhel".as_bytes()).read_to_string(&mut body).is_err());
        assert!(Chunks::of(&mut "x\r\n".as_bytes()).read_to_string(&mut body).is_err());
        assert!(read_head(&mut "HTTP/1.1 200 OK\r\nContent-".as_bytes()).is_err());
        assert!(read_head(&mut "SSH-2.0\r\n\r\n".as_bytes()).is_err());
    }

    #[test]
    fn the_length_of_a_body_is_read_whatever_the_case_of_its_name() {
        let head = |text: &str| read_head(&mut text.as_bytes()).unwrap();
        assert_eq!(head("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"), Head { status: 200, length: Some(7) });
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head(chunked), Head { status: 200, length: None });
    }
}
