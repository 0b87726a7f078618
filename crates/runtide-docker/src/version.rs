//! [`ApiVersion`], and the negotiation of the version that both sides speak.

use std::{fmt, str::FromStr};

use runtide_core::{Error, ErrorKind, Result};

/// A version of the Engine API, as `1.41`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// Oldest supported version: Docker Engine 20.10.
    pub const OLDEST: Self = Self::new(1, 41);
    /// Newest version that this crate was written for.
    pub const NEWEST: Self = Self::new(1, 53);

    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    pub(crate) fn to_bollard(self) -> bollard::ClientVersion {
        bollard::ClientVersion { major_version: self.major.into(), minor_version: self.minor.into() }
    }

    /// The newest version that server and client know, or the reason why there is none.
    pub(crate) fn negotiate(
        server: Self,
        server_minimum: Option<Self>,
        wanted: Option<Self>,
    ) -> std::result::Result<Self, String> {
        if server < Self::OLDEST {
            return Err(format!("the server speaks API {server}; at least {} (Docker 20.10) is needed", Self::OLDEST));
        }
        let ours = wanted.map_or(Self::NEWEST, |wanted| wanted.min(Self::NEWEST));
        let chosen = server.min(ours);
        match server_minimum {
            Some(minimum) if minimum > chosen => {
                Err(format!("the server requires at least API {minimum}; this client speaks up to {ours}"))
            }
            _ => Ok(chosen),
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        text.split_once('.').and_then(|(major, minor)| Some(Self::new(digits(major)?, digits(minor)?))).ok_or_else(
            || {
                Error::new(
                    ErrorKind::InvalidInput,
                    "docker.api_version",
                    format!("'{text}' is not an API version: expected major.minor, as 1.41"),
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ApiVersion {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        let negotiate = |server: &str, minimum: Option<&str>, wanted: Option<&str>| {
            ApiVersion::negotiate(version(server), minimum.map(version), wanted.map(version)).map(|v| v.to_string())
        };
        assert_eq!(negotiate("1.41", Some("1.12"), None), Ok("1.41".to_owned()));
        assert_eq!(negotiate("1.99", Some("1.44"), None), Ok("1.53".to_owned()));
        assert_eq!(negotiate("1.52", Some("1.44"), Some("1.45")), Ok("1.45".to_owned()));
        assert!(negotiate("1.40", None, None).unwrap_err().contains("1.40"));
        assert!(negotiate("1.52", Some("1.44"), Some("1.43")).unwrap_err().contains("1.44"));
        assert!(negotiate("2.10", Some("2.0"), None).unwrap_err().contains("2.0"));
    }

    #[test]
    fn invalid_versions_are_refused() {
        for text in ["", "1", "1.", ".41", "1.41.2", "v1.41", "1.-1", "1.+4", "99999.1", "1.99999"] {
            assert!(text.parse::<ApiVersion>().is_err(), "{text}");
        }
        assert!(version("1.9") < version("1.41"));
    }

    #[test]
    fn the_newest_is_what_the_verbs_client_was_made_for() {
        assert_eq!(ApiVersion::NEWEST.to_string(), bollard::API_DEFAULT_VERSION.to_string());
    }
}
