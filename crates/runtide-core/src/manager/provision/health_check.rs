//! The check by which a runtime decides whether an instance is healthy.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use crate::names::setters;

/// A check that the runtime runs inside an instance again and again. A field that is `None` stands for the image's own value, or the
/// runtime's default; a duration of zero is refused, since runtimes read it as that default.
///
/// ```
/// use std::time::Duration;
///
/// use runtide_core::manager::{HealthCheck, HealthTest};
///
/// let ping = HealthCheck::new(HealthTest::command(["wget", "-qO-", "http://localhost/"])).with_interval(Duration::from_secs(5));
/// assert_eq!(ping.retries, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HealthCheck {
    /// The check itself.
    pub test: HealthTest,
    /// Time between two checks.
    #[serde(default)]
    pub interval: Option<Duration>,
    /// Time after which a check that has not ended counts as failed.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Time after the start in which a failure does not count.
    #[serde(default)]
    pub start_period: Option<Duration>,
    /// Time between two checks in the start period.
    #[serde(default)]
    pub start_interval: Option<Duration>,
    /// Failures in a row after which the instance is unhealthy.
    #[serde(default)]
    pub retries: Option<NonZeroU32>,
}

setters!(HealthCheck {
    /// Sets the time between two checks.
    with_interval: interval: Option<Duration>;
    /// Sets the time after which a check counts as failed.
    with_timeout: timeout: Option<Duration>;
    /// Sets the time after the start in which a failure does not count.
    with_start_period: start_period: Option<Duration>;
    /// Sets the time between two checks in the start period.
    with_start_interval: start_interval: Option<Duration>;
    /// Sets the failures in a row after which the instance is unhealthy.
    with_retries: retries: Option<NonZeroU32>;
});

impl HealthCheck {
    /// Makes a check with the runtime's default intervals.
    pub fn new(test: HealthTest) -> Self {
        Self { test, interval: None, timeout: None, start_period: None, start_interval: None, retries: None }
    }

    /// Makes an instance without a check, also where its image has one.
    pub fn disabled() -> Self {
        Self::new(HealthTest::Disabled)
    }
}

/// The program of a [`HealthCheck`]; an exit code other than 0 is a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthTest {
    /// No check, also where the image has one.
    Disabled,
    /// A program and its arguments, without a shell.
    Command(Vec<String>),
    /// A line for the shell of the instance's image.
    Shell(String),
}

impl HealthTest {
    /// Makes a check that runs a program, without a shell.
    pub fn command(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Command(words.into_iter().map(Into::into).collect())
    }
}
