//! Rights and limits of the container's processes, in the Engine's form.

use std::collections::BTreeSet;

use bollard::models::{ContainerCreateBody, ResourcesUlimits};
use runtide_core::manager::{InstanceSpec, Ulimit, is_capability};

use super::{Refused, host, invalid, shown, unsupported};

pub(super) fn apply(spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<(), Refused> {
    let (add, drop) = (capabilities("cap_add", &spec.cap_add)?, capabilities("cap_drop", &spec.cap_drop)?);
    if let Some(both) = add.intersection(&drop).next() {
        return invalid("cap_drop", format!("{both} is added as well"));
    }
    if !add.is_empty() {
        host(body).cap_add = Some(add.into_iter().collect());
    }
    if !drop.is_empty() {
        host(body).cap_drop = Some(drop.into_iter().collect());
    }
    let ulimits = spec.ulimits.iter().map(ulimit).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<_> = spec.ulimits.iter().map(|limit| &limit.name).collect();
    if names.len() < ulimits.len() {
        return invalid("ulimits", "one resource has two limits");
    }
    if !ulimits.is_empty() {
        host(body).ulimits = Some(ulimits);
    }
    if spec.read_only_root {
        host(body).readonly_rootfs = Some(true);
    }
    if spec.init {
        host(body).init = Some(true);
    }
    Ok(())
}

/// The names in the form in which the daemon shows them. It looks at them when the container is started, and not before.
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

fn ulimit(limit: &Ulimit) -> Result<ResourcesUlimits, Refused> {
    let name = limit.name.as_str();
    if !Ulimit::NAMES.contains(&name) {
        return invalid("ulimits", format!("'{}' is none of {}", shown(name), Ulimit::NAMES.join(", ")));
    }
    if name == "as" {
        return unsupported("ulimits", "Docker cannot limit the address space: its own start-up needs it");
    }
    if limit.is_inverted() {
        return invalid("ulimits", format!("{name}: the soft limit is above the hard one"));
    }
    // -1 is unlimited to the daemon.
    let number = |limit: Option<u64>| match limit.map(i64::try_from) {
        None => Ok(-1),
        Some(Ok(limit)) => Ok(limit),
        Some(Err(_)) => invalid("ulimits", format!("{name}: more than can be counted")),
    };
    Ok(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(number(limit.soft)?),
        hard: Some(number(limit.hard)?),
    })
}
