//! Capabilities, resource limits of processes, and what may be written, of a spec.

use std::collections::BTreeSet;

use runtide_core::manager::{InstanceSpec, Ulimit, is_capability};
use serde_json::{Map, Value, json};

use super::{Refused, invalid, shown};

pub(super) fn apply(spec: &InstanceSpec, body: &mut Map<String, Value>) -> Result<(), Refused> {
    let (add, drop) = (capabilities("cap_add", &spec.cap_add)?, capabilities("cap_drop", &spec.cap_drop)?);
    if let Some(both) = add.intersection(&drop).next() {
        return invalid("cap_drop", format!("{both} is added as well"));
    }
    for (key, names) in [("cap_add", add), ("cap_drop", drop)] {
        if !names.is_empty() {
            body.insert(key.to_owned(), json!(names));
        }
    }
    let limits = spec.ulimits.iter().map(ulimit).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<_> = spec.ulimits.iter().map(|limit| &limit.name).collect();
    if names.len() < limits.len() {
        return invalid("ulimits", "one resource has two limits");
    }
    if !limits.is_empty() {
        body.insert("r_limits".to_owned(), json!(limits));
    }
    if spec.read_only_root {
        body.insert("read_only_filesystem".to_owned(), json!(true));
    }
    if spec.init {
        body.insert("init".to_owned(), json!(true));
    }
    Ok(())
}

fn capabilities(field: &'static str, names: &[String]) -> Result<BTreeSet<String>, Refused> {
    let mut made = BTreeSet::new();
    for name in names {
        if !is_capability(name) {
            return invalid(field, format!("'{}' is not a capability of Linux", shown(name)));
        }
        let name = name.to_ascii_uppercase();
        made.insert(match name.as_str() {
            "ALL" | "CAP_ALL" => "ALL".to_owned(),
            name if name.starts_with("CAP_") => name.to_owned(),
            name => format!("CAP_{name}"),
        });
    }
    Ok(made)
}

/// No limit is the largest number, as the kernel has it.
fn ulimit(limit: &Ulimit) -> Result<Value, Refused> {
    let name = limit.name.as_str();
    if !Ulimit::NAMES.contains(&name) {
        return invalid("ulimits", format!("'{}' is none of {}", shown(name), Ulimit::NAMES.join(", ")));
    }
    if limit.is_inverted() {
        return invalid("ulimits", format!("{name}: the soft limit is above the hard one"));
    }
    let (soft, hard) = (limit.soft.unwrap_or(u64::MAX), limit.hard.unwrap_or(u64::MAX));
    Ok(json!({ "type": name, "soft": soft, "hard": hard }))
}
