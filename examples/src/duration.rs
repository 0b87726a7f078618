//! Parsers of durations and times, as people write them.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

/// Parses a duration: `500ms`, `10s`, `5m`, `1h30m`.
///
/// # Errors
/// The expected form, in one line.
pub fn parse(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "expected a number and its unit, as 500ms, 10s, 5m or 1h30m".to_owned())
}

/// Parses a time: relative to now (`10m` ago), or in RFC 3339 (`2025-01-31T12:00:00Z`).
///
/// # Errors
/// The expected forms, in one line.
pub fn ago(text: &str) -> Result<SystemTime, String> {
    let wrong = || "expected how long ago, as 10s, 5m or 1h30m, or a time, as 2025-01-31T12:00:00Z".to_owned();
    match parse(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago).ok_or_else(wrong),
        Err(_) => text.parse::<Timestamp>().map(SystemTime::from).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_needs_its_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1_500)));
        for text in ["", "10", "s", "-1s", "1x", "10 apples", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_absolute_or_relative_to_now() {
        let absolute = ago("1970-01-01T00:01:00Z").unwrap();
        assert_eq!(absolute, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        let minute = ago("1m").unwrap().elapsed().unwrap();
        assert!((Duration::from_secs(60)..Duration::from_secs(120)).contains(&minute), "{minute:?}");
        for text in ["", "yesterday", "-1m", "2025-01-31"] {
            assert!(ago(text).is_err(), "{text}");
        }
    }
}
