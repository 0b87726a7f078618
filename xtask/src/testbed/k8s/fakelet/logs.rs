//! The log of a container, as the kubelet gives it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::containers;
use super::request::{Request, Stream, answer};

const TICK: Duration = Duration::from_millis(20);

/// Parts of a log that are asked for.
struct Wanted {
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
}

impl Wanted {
    fn by(request: &Request) -> Self {
        let seconds = request.number("sinceSeconds").and_then(|seconds| i64::try_from(seconds).ok());
        let ago =
            seconds.and_then(|seconds| Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok());
        let since = request.value("sinceTime").and_then(|time| time.parse().ok()).or(ago);
        Self { timestamps: request.is_set("timestamps"), since, tail: request.number("tailLines") }
    }

    /// The wanted bytes of whole lines of the file; the tail counts before the time, as in the kubelet.
    fn of(&self, text: &[u8], tail: Option<usize>) -> Vec<u8> {
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let skipped = tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        let mut found = Vec::new();
        for line in lines.into_iter().skip(skipped) {
            let mut parts = line.splitn(4, |byte| *byte == b' ');
            let (Some(time), Some(printed)) = (parts.next(), parts.nth(2)) else { continue };
            let at: Option<Timestamp> = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
            if self.since.is_some_and(|since| at.is_some_and(|at| at < since)) {
                continue;
            }
            if self.timestamps {
                found.extend_from_slice(time);
                found.push(b' ');
            }
            found.extend_from_slice(printed);
        }
        found
    }
}

/// Answers with the log; a `follow` goes on while the container runs.
pub(super) fn logs(stream: &mut Stream, request: &Request, log: &Path, runs: impl Fn() -> bool) -> std::io::Result<()> {
    let previous = request.is_set("previous");
    let path = if previous { containers::previous(log) } else { log.to_owned() };
    if previous && !path.exists() {
        return answer(stream, 400, "there is no previous container");
    }
    let wanted = Wanted::by(request);
    let mut left = request.number("limitBytes").unwrap_or(usize::MAX);
    let stream = stream.get_mut();
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    )?;
    stream.flush()?;
    let (mut read, mut tail) = (0, wanted.tail);
    loop {
        // Before the file is read: what is written later than the end is none of its lines.
        let goes_on = request.is_set("follow") && runs();
        let text = fs::read(&path).unwrap_or_default();
        let new = text.get(read..).unwrap_or_default();
        // Up to the last whole line: the next one is being written.
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut bytes = wanted.of(new.get(..whole).unwrap_or_default(), tail.take());
        read += whole;
        bytes.truncate(left);
        left -= bytes.len();
        if !bytes.is_empty() {
            stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            stream.write_all(&bytes)?;
            stream.write_all(b"\r\n")?;
            stream.flush()?;
        }
        if !goes_on || left == 0 {
            break;
        }
        thread::sleep(TICK);
    }
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-11-30T22:00:00.000000001Z stdout F one\n\
                         2026-11-30T22:00:01.500000000Z stderr F two of them\n\
                         2026-11-30T22:00:02.000000000Z stdout F \n";

    fn wanted(since: Option<&str>, timestamps: bool, tail: Option<usize>) -> String {
        let wanted = Wanted { timestamps, since: since.map(|time| time.parse().unwrap()), tail };
        String::from_utf8(wanted.of(LOG, tail)).unwrap()
    }

    #[test]
    fn lines_are_chosen_by_their_number_and_by_their_time() {
        assert_eq!(wanted(None, false, None), "one\ntwo of them\n\n");
        assert_eq!(wanted(None, false, Some(2)), "two of them\n\n");
        assert_eq!(wanted(None, false, Some(0)), "");
        assert_eq!(wanted(Some("2026-11-30T22:00:01.5Z"), false, None), "two of them\n\n");
        assert_eq!(wanted(Some("2026-11-30T22:00:02Z"), true, None), "2026-11-30T22:00:02.000000000Z \n");
    }
}
