//! The time that the daemon writes in front of each log entry when the query asks for it.

use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

/// Length of Docker's timestamp, `2006-01-02T15:04:05.000000000Z` and a space: always in UTC and with all nine digits.
pub(super) const LENGTH: usize = 31;

/// The longest RFC 3339 time, offset included.
const LONGEST: usize = 36;

/// Splits the time off an entry. `None`: the entry has no time, and its bytes are unchanged.
pub(super) fn split(entry: &mut Bytes) -> Option<SystemTime> {
    let space = entry.iter().take(LONGEST).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(entry.get(..space)?).ok()?;
    // The parser accepts other forms as well, and a line of output might begin with one.
    if space < 20 || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let at: Timestamp = text.parse().ok()?;
    let _ = entry.split_to(space + 1);
    Some(SystemTime::from(at))
}

/// A time as the daemon's queries take it, `seconds.nanoseconds`. `None` before 1970: no log is that old.
pub(super) fn query(at: SystemTime) -> Option<String> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn the_time_is_split_off_and_the_rest_is_untouched() {
        let cases: [(&[u8], SystemTime, &[u8]); 5] = [
            (b"2023-11-14T22:13:20.123456789Z hello\n", at(1_700_000_000, 123_456_789), b"hello\n"),
            (b"2023-11-14T22:13:20.000000000Z  two spaces", at(1_700_000_000, 0), b" two spaces"),
            (b"2023-11-14T22:13:20.000000000Z \n", at(1_700_000_000, 0), b"\n"),
            (b"2023-11-14T22:13:20.000000000Z \xff\x00", at(1_700_000_000, 0), b"\xff\x00"),
            (b"2023-11-15T00:13:20.123456789+02:00 podman", at(1_700_000_000, 123_456_789), b"podman"),
        ];
        for (input, time, rest) in cases {
            let mut entry = Bytes::from_static(input);
            assert_eq!(split(&mut entry), Some(time));
            assert_eq!(entry, rest);
        }
        let first = &b"2023-11-14T22:13:20.123456789Z hello"[..LENGTH];
        assert_eq!(first.last(), Some(&b' '));
    }

    #[test]
    fn what_has_no_time_stays_as_it_is() {
        for input in
            [&b""[..], b"hello world", b"2023-11-14 22:13:20Z x", b"2023-11-14T22:13:20.1Z", b"\xff\xfe \xfd", b" x"]
        {
            let mut entry = Bytes::from_static(input);
            assert_eq!(split(&mut entry), None);
            assert_eq!(entry, input);
        }
    }

    #[test]
    fn a_query_keeps_every_nanosecond() {
        assert_eq!(query(at(1_700_000_000, 1)).unwrap(), "1700000000.000000001");
        assert_eq!(query(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
