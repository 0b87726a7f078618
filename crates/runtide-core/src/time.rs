//! Times on the wire: RFC 3339 in UTC, nanoseconds kept. A private serde module.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de, ser};

pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Timestamp::try_from(*time).map_err(ser::Error::custom)?)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    text.parse::<Timestamp>().map(SystemTime::from).map_err(de::Error::custom)
}

pub(crate) mod option {
    use super::{Deserialize, Deserializer, Serializer, SystemTime};

    // The signature is serde's.
    #[expect(clippy::ref_option)]
    pub(crate) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        #[derive(Deserialize)]
        struct Time(#[serde(with = "super")] SystemTime);
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Both {
        #[serde(with = "super")]
        at: SystemTime,
        #[serde(with = "super::option", default)]
        maybe: Option<SystemTime>,
    }

    #[test]
    fn nanoseconds_survive_and_offsets_are_read() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let json = serde_json::to_string(&Both { at, maybe: None }).unwrap();
        assert_eq!(json, r#"{"at":"2023-11-14T22:13:20.123456789Z","maybe":null}"#);
        let read: Both =
            serde_json::from_str(r#"{"at":"2023-11-15T00:13:20.123456789+02:00","maybe":"2023-11-14T22:13:20Z"}"#)
                .unwrap();
        assert_eq!(read.at, at);
        assert!(read.maybe.is_some());
        assert!(serde_json::from_str::<Both>(r#"{"at":"yesterday"}"#).is_err());
    }
}
