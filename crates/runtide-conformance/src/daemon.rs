//! Plain HTTP on a daemon's own socket, for harnesses: no code of the backend under test is between the harness and the daemon.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A daemon that speaks HTTP on a socket file.
#[derive(Clone, Debug)]
pub struct Daemon {
    socket: PathBuf,
    /// Part of every path, before it.
    prefix: String,
}

/// An answer of a daemon.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// The reason, with the begin of the body.
    pub fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error} in {}", self.text()))
    }

    /// The first 300 characters of the body.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }
}

impl Daemon {
    /// The daemon at this socket. Nothing is connected: each request has a connection of its own.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket, prefix: String::new() }
    }

    /// The same, with this before every path, as `/v4.0.0/libpod`.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..self }
    }

    /// The socket file.
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// Sends a request; HTTP/1.0, so that the end of the connection is the end of the answer.
    async fn send(&self, method: &str, path: &str, body: &str) -> std::io::Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let (prefix, length) = (&self.prefix, body.len());
        let head = format!(
            "{method} {prefix}{path} HTTP/1.0\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        Ok(BufReader::new(stream))
    }

    async fn ask_once(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let mut stream = self.send(method, path, body).await?;
        let status = head(&mut stream).await?;
        let mut body = Vec::new();
        stream.read_to_end(&mut body).await?;
        Ok(Answer { status, body })
    }

    /// Sends a request and returns the answer, with any status; `Value::Null` is no body.
    ///
    /// # Errors
    /// The reason why there is no answer within a minute.
    ///
    /// # Cancel safety
    /// A dropped call closes its connection.
    pub async fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        match tokio::time::timeout(LIMIT, self.ask_once(method, path, &body)).await {
            Ok(answer) => answer.map_err(|error| format!("{method} {path}: {error}")),
            Err(_) => Err(format!("{method} {path}: no answer within {LIMIT:?}")),
        }
    }

    /// Sends a request; any status but success (or 304, which counts as success) is an error.
    ///
    /// # Errors
    /// As [`try_ask`](Self::try_ask), and the answer.
    ///
    /// # Cancel safety
    /// A dropped call closes its connection.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer, String> {
        let answer = self.try_ask(method, path, body).await?;
        if (200..300).contains(&answer.status) || answer.status == 304 {
            return Ok(answer);
        }
        Err(format!("{method} {path}: {} {}", answer.status, answer.text()))
    }

    /// Reads the events from a time on, until the daemon ends the stream. It has no limit: the caller drops it.
    ///
    /// # Errors
    /// The reason why the events cannot be read.
    ///
    /// # Cancel safety
    /// A dropped call closes its connection; `each` has had the events so far.
    pub async fn events(&self, since: &str, mut each: impl FnMut(Value)) -> Result<(), String> {
        let path = format!("/events?since={since}");
        let said = async {
            let mut stream = self.send("GET", &path, "").await?;
            head(&mut stream).await?;
            let mut line = String::new();
            while stream.read_line(&mut line).await? > 0 {
                if let Ok(event) = serde_json::from_str(&line) {
                    each(event);
                }
                line.clear();
            }
            Ok::<(), std::io::Error>(())
        };
        said.await.map_err(|error| format!("events: {error}"))
    }
}

async fn head(stream: &mut BufReader<UnixStream>) -> std::io::Result<u16> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: '{line}'")))?;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 || line.trim().is_empty() {
            return Ok(status);
        }
    }
}
