//! A plain GET, without an HTTP client: only the status of its answer is read.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Deadline of the request and of the first line of its answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Bytes of the longest status line.
const MOST: usize = 1_024;

/// `true` if the status is 200 to 299. The caller has checked that `path` is one word.
pub(super) async fn is_success(mut stream: TcpStream, host: &SocketAddr, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: runtide\r\nConnection: close\r\n\r\n");
    let answer = async {
        stream.write_all(request.as_bytes()).await.ok()?;
        let (mut line, mut chunk) = (Vec::new(), [0; 256]);
        while line.len() < MOST && !line.contains(&b'\n') {
            let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
            line.extend_from_slice(chunk.get(..count)?);
        }
        status(&line)
    };
    timeout(ANSWER, answer).await.ok().flatten().is_some_and(|status| (200..300).contains(&status))
}

/// The status in a line like `HTTP/1.1 204 No Content`.
fn status(bytes: &[u8]) -> Option<u16> {
    let line = str::from_utf8(bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\nDate"), Some(503));
        for no in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 2000 x\r\n", b"\xff\xfe"] {
            assert_eq!(status(no), None);
        }
    }
}
