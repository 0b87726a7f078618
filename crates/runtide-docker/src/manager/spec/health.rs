//! The health check, in the Engine's form.

use std::time::Duration;

use bollard::models::{ContainerCreateBody, HealthConfig};
use runtide_core::manager::{HealthTest, InstanceSpec};

use super::{Refused, invalid};

/// The shortest duration of a health check that the daemon takes; it reads zero as "inherit" (trap D27).
const SHORTEST: Duration = Duration::from_millis(1);

/// Minor of the first API version with `StartInterval`.
const START_INTERVAL_SINCE: usize = 44;

/// Returns the field that an older server drops in silence, with the minor of the first API version that has it.
pub(super) fn apply(
    spec: &InstanceSpec,
    body: &mut ContainerCreateBody,
) -> Result<Option<(&'static str, usize)>, Refused> {
    let Some(check) = &spec.health_check else { return Ok(None) };
    let test = match &check.test {
        HealthTest::Disabled => vec!["NONE".to_owned()],
        HealthTest::Command(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        _ => return super::unsupported("health_check", "Docker has no such check"),
    };
    if test.iter().any(|word| word.contains('\0')) {
        return invalid("health_check", "NUL cannot be in it");
    }
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    match &check.test {
        HealthTest::Disabled if check.retries.is_some() || times.iter().any(Option::is_some) => {
            return invalid("health_check", "a disabled check has neither times nor retries");
        }
        HealthTest::Command(words) if words.first().is_none_or(String::is_empty) => {
            return invalid("health_check", "there is nothing to run");
        }
        HealthTest::Shell(line) if line.trim().is_empty() => {
            return invalid("health_check", "there is nothing to run");
        }
        _ => {}
    }
    let [interval, timeout, start_period, start_interval] = times.map(|time| time.map(nanoseconds).transpose());
    body.healthcheck = Some(HealthConfig {
        test: Some(test),
        interval: interval?,
        timeout: timeout?,
        start_period: start_period?,
        start_interval: start_interval?,
        retries: check.retries.map(|retries| i64::from(retries.get())),
    });
    Ok(check.start_interval.map(|_| ("health_check.start_interval", START_INTERVAL_SINCE)))
}

fn nanoseconds(time: Duration) -> Result<i64, Refused> {
    match i64::try_from(time.as_nanos()) {
        Ok(nanoseconds) if time >= SHORTEST => Ok(nanoseconds),
        Ok(_) => invalid("health_check", format!("{time:?} is shorter than a millisecond")),
        Err(_) => invalid("health_check", "a time is longer than the daemon can count"),
    }
}
