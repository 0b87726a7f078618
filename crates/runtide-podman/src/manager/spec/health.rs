//! The health check of a spec.

use std::time::Duration;

use runtide_core::manager::{HealthTest, InstanceSpec};
use serde_json::{Map, Value, json};

use super::{Refused, invalid, unsupported};

/// The shortest time that counts: Podman would take a zero for the image's own.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn apply(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<(), Refused> {
    let Some(check) = &spec.health_check else { return Ok(()) };
    let test = match &check.test {
        HealthTest::Disabled => vec!["NONE".to_owned()],
        HealthTest::Command(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        _ => return unsupported("health_check", "Podman has no such check"),
    };
    if test.iter().any(|word| word.contains('\0')) {
        return invalid("health_check", "NUL cannot be in it");
    }
    let times = [check.interval, check.timeout, check.start_period];
    match &check.test {
        HealthTest::Disabled
            if check.retries.is_some() || check.start_interval.is_some() || times.iter().any(Option::is_some) =>
        {
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
    if check.start_interval.is_some() {
        return unsupported("health_check", "start_interval: Podman's checks have one interval");
    }
    let mut made = Map::from_iter([("Test".to_owned(), json!(test))]);
    for (key, time) in ["Interval", "Timeout", "StartPeriod"].into_iter().zip(times) {
        if let Some(time) = time {
            made.insert(key.to_owned(), json!(nanoseconds(time)?));
        }
    }
    if let Some(retries) = check.retries {
        made.insert("Retries".to_owned(), json!(retries));
    }
    body.insert("healthconfig".to_owned(), Value::Object(made));
    Ok(())
}

/// Podman counts nanoseconds (trap D27).
fn nanoseconds(time: Duration) -> Result<i64, Refused> {
    match i64::try_from(time.as_nanos()) {
        Ok(nanoseconds) if time >= SHORTEST => Ok(nanoseconds),
        Ok(_) => invalid("health_check", format!("{time:?} is shorter than a millisecond")),
        Err(_) => invalid("health_check", "a time is longer than Podman can count"),
    }
}
