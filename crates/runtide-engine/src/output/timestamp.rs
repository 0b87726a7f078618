//! The time that the daemon writes in front of each log entry when the query asks for it.

use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

/// The longest RFC 3339 time, offset included.
pub(super) const LONGEST: usize = 36;

/// Splits the time off an entry. `None`: the entry has no time, and its bytes are unchanged.
pub fn split(entry: &mut Bytes) -> Option<SystemTime> {
    let (at, length) = parse(entry)?;
    let _ = entry.split_to(length);
    Some(at)
}

/// The time in front of these bytes, and its length with the space behind it.
pub(super) fn parse(entry: &[u8]) -> Option<(SystemTime, usize)> {
    // The parser accepts other forms as well, and a line of output might begin with one.
    if !has_form(entry) {
        return None;
    }
    let space = entry.iter().take(LONGEST).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(entry.get(..space)?).ok()?;
    let at: Timestamp = text.parse().ok()?;
    Some((at.into(), space + 1))
}

/// True if these bytes may be the first ones of a time, and too few to decide it.
pub(super) fn is_cut(bytes: &[u8]) -> bool {
    let of_a_time = |byte: &u8| byte.is_ascii_digit() || b"-T:.Z+".contains(byte);
    bytes.len() < LONGEST && has_form(bytes) && bytes.iter().all(of_a_time)
}

/// True if the bytes begin as a time does, as far as they go.
fn has_form(bytes: &[u8]) -> bool {
    let form = b"0000-00-00T00:00:00";
    form.iter().zip(bytes).all(|(form, byte)| if *form == b'0' { byte.is_ascii_digit() } else { form == byte })
}

/// A time as the daemon's queries take it, `seconds.nanoseconds`. `None` before 1970: no log is that old.
pub fn query(at: SystemTime) -> Option<String> {
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
        let time = b"2023-11-14T22:13:20.123456789Z ";
        assert!((0..time.len()).all(|cut| is_cut(&time[..cut])) && !is_cut(time));
        assert!(!is_cut(b"2023-11-14 22") && !is_cut(&[b'1'; LONGEST]));
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
