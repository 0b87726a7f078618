//! [`UnitInspector`]: one call for the list, and calls for each instance for the state that a list does not have: its
//! run, whether it is frozen, its exit.

use std::{collections::HashSet, pin::pin, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use runtide_core::{
    Detail, Error, ErrorKind, Failure, Instance, InstanceFilter, InstanceId, Listing, Result,
    watch::{Inspection, Inspector},
};
use zbus::OwnedObjectPath;

use crate::{
    cgroup,
    client::{Client, SCOPE, SERVICE, UNIT},
    files, labels, names,
    names::LONGEST,
    normalize,
    properties::{ServiceProperties, UnitProperties},
    selection::UnitType,
    sockets, unit_cache,
};

const LIST: &str = "systemd.list";
const INSPECT: &str = "systemd.inspect";

/// Name, description, load state, active state, sub-state, the unit it follows, object, job, the job's type, the job's
/// object.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// Lists and inspects the units of one manager.
#[derive(Clone, Debug)]
pub(crate) struct UnitInspector {
    client: Client,
    /// Cache of the watch that it inspects for. Outside of a watch no signal would invalidate an entry, so nothing is
    /// cached.
    unit_cache: Option<unit_cache::Shared>,
}

impl UnitInspector {
    pub(crate) fn new(client: Client, unit_cache: Option<unit_cache::Shared>) -> Self {
        Self { client, unit_cache }
    }

    /// Lists the units that the selection and a filter let through.
    pub(crate) async fn look(&self, filter: &InstanceFilter, detail: Detail) -> Result<Listing> {
        let selection = &self.client.config().selection;
        let states: &[&str] = &[];
        let answer = self.client.manager(LIST, "ListUnitsByPatterns", &(states, selection.asked())).await?;
        let listed: Vec<Listed> = self.client.read(LIST, &answer)?;
        drop(answer);
        let wanted = |unit: &Listed| {
            is_there(&unit.2, &unit.3)
                && selection.takes_name(&unit.0)
                && (filter.ids.is_empty() || filter.ids.iter().any(|id| id.as_str() == unit.0))
                && (filter.names.is_empty() || filter.names.iter().any(|name| name == normalize::name(&unit.0)))
        };
        let units: Vec<(String, OwnedObjectPath)> =
            listed.into_iter().filter(wanted).map(|unit| (unit.0, unit.6)).collect();
        let bound = self.client.config().inspect_concurrency.get();
        let (mut instances, mut failures) = (Vec::with_capacity(units.len()), Vec::new());
        let inspections = stream::iter(units).map(|(unit, path)| async move { self.one(&unit, &path, detail).await });
        let mut inspections = pin!(inspections.buffer_unordered(bound));
        while let Some(inspection) = inspections.next().await {
            match inspection {
                Ok(Some(instance)) if filter.matches(&instance) => instances.push(Arc::new(instance)),
                Ok(_) => {}
                // The others would fail for the same reason, each after its own deadline: the listing fails.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled) =>
                {
                    return Err(error);
                }
                Err(error) => failures.push(Failure::from(&error)),
            }
        }
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(Listing::new(instances, failures))
    }

    /// Inspects one instance by its id.
    ///
    /// # Errors
    /// `NotFound` if the unit is not loaded, or the selection leaves it out.
    pub(crate) async fn inspect_one(&self, id: &InstanceId, detail: Detail) -> Result<Instance> {
        let located = |error: Error| error.with_context("instance", id);
        let absent = |why: &str| Err(located(self.client.site(INSPECT).error(ErrorKind::NotFound, why)));
        let unit = id.as_str();
        if unit.len() > LONGEST || names::flaw(unit).is_some() {
            return absent("no unit has such a name");
        }
        if !self.client.config().selection.takes_name(unit) {
            return absent("the configured selection leaves it out");
        }
        let path = self.client.get_unit(INSPECT, unit).await.map_err(located)?;
        match self.one(unit, &path, detail).await.map_err(located)? {
            Some(instance) => Ok(instance),
            None => absent("it is not loaded, or the configured selection leaves it out"),
        }
    }

    /// Inspects one unit; `None`: it is gone, is no instance, or is not selected.
    async fn one(&self, unit: &str, path: &str, detail: Detail) -> Result<Option<Instance>> {
        let client = &self.client;
        let answer = client.get_all(INSPECT, path, UNIT).await?;
        let mut about: UnitProperties = client.read(INSPECT, &answer)?;
        drop(answer);
        let (load, active) = (about.load_state.as_deref().unwrap_or_default(), about.active_state.as_deref());
        // A unit that went between the list and this inspection was loaded by it (trap S2), and is unloaded again.
        if !is_there(load, active.unwrap_or_default()) || about.id.as_deref().is_some_and(|id| id != unit) {
            return Ok(None);
        }
        let (id, is_filed) = (InstanceId::from(unit), is_filed(load));
        let interface = match UnitType::of(unit) {
            Some(UnitType::Scope) => SCOPE,
            _ => SERVICE,
        };
        let changed = about.state_change_timestamp_monotonic.unwrap_or(0);
        let incarnation = normalize::last_start(&about);
        let known =
            self.unit_cache.as_ref().and_then(|unit_cache| unit_cache.lock().details(&id, incarnation.as_ref()));
        let runs = active == Some("active") && about.sub_state.as_deref() != Some("exited");
        let service = if detail == Detail::Summary && runs {
            // The unit runs: of the service itself only its control group is needed, once.
            let known_group =
                known.as_ref().and_then(|known| Some((known.group.clone()?, known.control_group.clone()?)));
            let (slice, control_group) = if let Some((group, control_group)) = known_group {
                (Some(group.name.clone()), control_group)
            } else {
                let group: String = client.get(INSPECT, path, interface, "ControlGroup").await?;
                (slice_of(&group).map(str::to_owned), group)
            };
            ServiceProperties { slice, control_group: Some(control_group), ..ServiceProperties::default() }
        } else {
            let unit_cache = self.unit_cache.as_ref().filter(|_| detail == Detail::Summary);
            let rest = unit_cache.and_then(|unit_cache| unit_cache.lock().rest(&id, incarnation.as_ref(), changed));
            if let Some(rest) = rest {
                rest
            } else {
                let answer = client.get_all(INSPECT, path, interface).await?;
                client.read(INSPECT, &answer)?
            }
        };
        let control_group = service.control_group.clone().or_else(|| known.as_ref()?.control_group.clone());
        correct_freezer_state(client, &mut about, control_group.as_deref());
        let Some(mut instance) = normalize::instance(client.id(), unit, &about, Some(&service)) else {
            return Err(client.site(INSPECT).error(ErrorKind::Protocol, "the unit has no state"));
        };
        if instance.group.is_none() {
            instance.group = known.as_ref().and_then(|known| known.group.clone());
        }
        instance.labels = match known.and_then(|known| known.labels) {
            Some(labels) => Some(labels),
            None => self.labels(unit, path, interface, &about, &service).await?,
        };
        if detail == Detail::Full && instance.state.is_alive() {
            let group = service.control_group.as_deref().unwrap_or_default();
            instance.ports = sockets::ports(client, group, about.triggered_by.as_deref().unwrap_or_default()).await;
        }
        let is_job = service.kind.as_deref().map(|kind| kind == "oneshot");
        if let Some(unit_cache) = &self.unit_cache {
            let rest = (service.exec_main_code.is_some() && !runs).then_some((changed, service));
            let mut unit_cache = unit_cache.lock();
            unit_cache.saw(&instance, control_group.as_deref(), is_job, rest);
            unit_cache.select(&id, client.config().selection.takes(&instance));
            unit_cache.file(&id, is_filed);
        }
        Ok(client.config().selection.takes(&instance).then_some(instance))
    }

    /// Reads the labels, once per run.
    async fn labels(
        &self,
        unit: &str,
        path: &str,
        interface: &str,
        about: &UnitProperties,
        service: &ServiceProperties,
    ) -> Result<Option<runtide_core::Labels>> {
        if about.transient == Some(true) {
            if UnitType::of(unit) == Some(UnitType::Scope) {
                return Ok(Some(runtide_core::Labels::new())); // a scope has no environment
            }
            // The file that systemd wrote for it saves a call.
            if let (None, Some(root), Some(fragment)) =
                (&service.environment, self.client.config().root.clone(), about.fragment_path.clone())
            {
                let read = tokio::task::spawn_blocking(move || files::labels_of_transient(&root, &fragment)).await;
                if let Ok(Some(labels)) = read {
                    return Ok(Some(labels));
                }
            }
            let environment = match &service.environment {
                Some(environment) => environment.clone(),
                None => self.client.get(INSPECT, path, interface, "Environment").await?,
            };
            return Ok(Some(labels::of_environment(environment.iter().map(String::as_str))));
        }
        let Some(root) = self.client.config().root.clone() else { return Ok(None) };
        let fragment = about.fragment_path.clone().unwrap_or_default();
        let drop_ins = about.drop_in_paths.clone().unwrap_or_default();
        let read = tokio::task::spawn_blocking(move || files::labels(&root, &fragment, &drop_ins)).await;
        Ok(read.unwrap_or_default())
    }
}

/// True if a unit that systemd reports as frozen is frozen: 252 still reports a unit that was killed while frozen as
/// frozen in its next run. If the kernel cannot be asked, systemd's report counts.
pub(crate) fn is_frozen(client: &Client, control_group: Option<&str>) -> bool {
    let (Some(root), Some(group)) = (&client.config().root, control_group) else { return true };
    cgroup::is_frozen(root, group).unwrap_or(true)
}

/// Takes the kernel's state for that of a unit which systemd calls frozen, or on its way to that or from it, if the
/// kernel can be asked. 252 calls a unit frozen that was killed while frozen, in its next run; and while it has yet to
/// read the kernel's notification, a unit is `freezing` or `thawing`, after which no signal follows (252).
pub(crate) fn correct_freezer_state(client: &Client, about: &mut UnitProperties, control_group: Option<&str>) {
    let (Some(root), Some(group), Some(state)) = (&client.config().root, control_group, &mut about.freezer_state)
    else {
        return;
    };
    if state != "running"
        && let Some(is_frozen) = cgroup::is_frozen(root, group)
    {
        if is_frozen { "frozen" } else { "running" }.clone_into(state);
    }
}

/// True if systemd has a file of the unit, and is not configured to ignore it.
fn is_filed(load: &str) -> bool {
    matches!(load, "loaded" | "merged")
}

/// True if the unit is more than a name that other units mention.
fn is_there(load: &str, active: &str) -> bool {
    is_filed(load) || !matches!(active, "inactive" | "")
}

/// The slice of a control group: a unit's group is below that of its slice.
fn slice_of(control_group: &str) -> Option<&str> {
    let (above, unit) = control_group.rsplit_once('/')?;
    if unit.is_empty() {
        return None;
    }
    let slice = above.rsplit_once('/').map_or(above, |(_, slice)| slice);
    if slice.is_empty() { Some("-.slice") } else { (names::type_of(slice) == Some("slice")).then_some(slice) }
}

#[async_trait]
impl Inspector for UnitInspector {
    async fn list(&self, detail: Detail) -> Result<Listing> {
        let at = self.unit_cache.as_ref().map(|unit_cache| unit_cache.lock().tick());
        let snapshot = self.look(&InstanceFilter::default(), detail).await?;
        if let (Some(unit_cache), Some(at), true) = (&self.unit_cache, at, snapshot.is_complete()) {
            let ids: HashSet<InstanceId> = snapshot.instances.iter().map(|instance| instance.id.clone()).collect();
            unit_cache.lock().keep(&ids, at);
        }
        Ok(snapshot)
    }

    async fn inspect(&self, ids: &[InstanceId], detail: Detail) -> Result<Vec<Inspection>> {
        let bound = self.client.config().inspect_concurrency.get();
        let inspections = stream::iter(ids.to_vec()).map(|id| async move {
            match self.inspect_one(&id, detail).await {
                Ok(instance) => Inspection::Present(Arc::new(instance)),
                Err(error) if error.kind() == ErrorKind::NotFound => Inspection::Absent(id),
                Err(error) => Inspection::Unknown { id, cause: Failure::from(&error) },
            }
        });
        Ok(inspections.buffer_unordered(bound).collect().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_is_the_parent_of_the_control_group() {
        for (group, slice) in [
            ("/system.slice/web.service", Some("system.slice")),
            ("/shop.slice/shop-web.slice/web.service", Some("shop-web.slice")),
            ("/user.slice/user-0.slice/user@0.service/app.slice/a.service", Some("app.slice")),
            ("/init.scope", Some("-.slice")),
            ("/weird/a.service", None),
            ("", None),
        ] {
            assert_eq!(slice_of(group), slice, "{group}");
        }
    }
}
