//! Tests of the verbs that only systemd has, and of settings that a reload must preserve, on a real manager.

use std::collections::BTreeSet;

use runtide_core::{ErrorKind, InstanceId, UnixSignal, manager::Effect};
use zbus::{OwnedVariant, Variant};

use super::super::{
    fixture::{Fixture, random},
    lifecycle::Lifecycle,
    native,
    property::Properties,
    unit::{Call, Seen},
};
use crate::client::SERVICE;

impl Fixture {
    fn verbs(&self) -> Lifecycle {
        Lifecycle::new(self.client.clone())
    }

    /// Number of the unit's processes.
    async fn processes(&self, id: &InstanceId) -> usize {
        let answer = self.client.manager("test", "GetUnitProcesses", &(id.as_str(),)).await.unwrap();
        self.client.read::<Vec<(String, u32, String)>>("test", &answer).unwrap().len()
    }

    async fn property(&self, id: &InstanceId, name: &str) -> OwnedVariant {
        let path = self.client.get_unit("test", id.as_str()).await.unwrap();
        self.client.get("test", &path, SERVICE, name).await.unwrap()
    }

    /// Waits until the unit satisfies a condition.
    async fn until(&self, id: &InstanceId, is_so: impl Fn(&Seen) -> bool) -> Seen {
        let call = Call::on(&self.client, "test", id).unwrap();
        call.within(std::time::Duration::ZERO, call.until(|seen| seen.filter(|seen| is_so(seen)).cloned()))
            .await
            .unwrap()
    }
}

fn missing() -> InstanceId {
    InstanceId::from(format!("rt-none-{:x}.service", random()))
}

#[tokio::test]
async fn kill_all_reaches_every_process() {
    let Some(fixture) = Fixture::find().await else { return };
    // Without `kill_all` the second process would stay.
    let id = fixture.start("sleep 1000 & exec sleep 1000", vec![("KillMode", Variant::from("process"))]).await;
    while fixture.processes(&id).await != 2 {
        tokio::task::yield_now().await;
    }
    fixture.verbs().kill_all(&id, UnixSignal::KILL).await.unwrap();
    fixture.until(&id, |seen| seen.active() == "failed").await;
    // The unit ends with its main process; the other one may still be dying.
    while fixture.processes(&id).await != 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.verbs().reset_failed(&id).await.unwrap(), Effect::Changed);
}

#[tokio::test]
async fn kill_all_of_no_process_is_a_conflict() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("exit 0", vec![("RemainAfterExit", Variant::from(true))]).await;
    fixture.until(&id, Seen::has_exited).await;
    let error = fixture.verbs().kill_all(&id, UnixSignal::TERM).await.unwrap_err();
    fixture.stop(&id).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let error = fixture.verbs().kill_all(&missing(), UnixSignal::TERM).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn kill_all_reaches_processes_that_outlived_their_unit() {
    let Some(fixture) = Fixture::find().await else { return };
    let more = vec![("KillMode", Variant::from("process")), ("RemainAfterExit", Variant::from(true))];
    let id = fixture.start("sleep 1000 & exit 0", more).await;
    fixture.until(&id, Seen::has_exited).await;
    assert_eq!(fixture.processes(&id).await, 1);
    fixture.verbs().kill_all(&id, UnixSignal::KILL).await.unwrap();
    while fixture.processes(&id).await != 0 {
        tokio::task::yield_now().await;
    }
    let error = fixture.verbs().kill_all(&id, UnixSignal::KILL).await.unwrap_err();
    fixture.stop(&id).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn a_failure_is_cleared_once() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("exit 3", vec![]).await;
    fixture.until(&id, |seen| seen.active() == "failed").await;
    // A reference keeps it loaded, so that the second call finds it.
    fixture.client.manager("test", "RefUnit", &(id.as_str(),)).await.unwrap();
    assert_eq!(fixture.verbs().reset_failed(&id).await.unwrap(), Effect::Changed);
    let seen = fixture.until(&id, Seen::rests).await;
    assert_eq!((seen.active(), seen.has_failures()), ("inactive", false));
    assert_eq!(fixture.verbs().reset_failed(&id).await.unwrap(), Effect::Unchanged);
    fixture.client.manager("test", "UnrefUnit", &(id.as_str(),)).await.unwrap();
    let error = fixture.verbs().reset_failed(&missing()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn restarts_are_cleared_while_the_unit_runs() {
    let Some(fixture) = Fixture::find().await else { return };
    let more = vec![("Restart", Variant::from("on-failure")), ("RestartUSec", Variant::from(0_u64))];
    let file = format!("/run/rt-{:x}", random());
    // Without semicolons: after a reload systemd 252 reads those of a transient unit as the end of the command.
    let once = format!("rm {file} 2>/dev/null && exec sleep 1000 || touch {file} && exit 3");
    let id = fixture.start(&once, more).await;
    fixture.until(&id, |seen| seen.service.restarts == Some(1) && seen.active() == "active").await;
    let verbs = fixture.verbs();
    assert_eq!(verbs.reset_failed(&id).await.unwrap(), Effect::Changed);
    let seen = fixture.until(&id, |seen| seen.service.restarts == Some(0)).await;
    assert_eq!(seen.active(), "active");
    assert_eq!(verbs.reset_failed(&id).await.unwrap(), Effect::Unchanged);
    fixture.stop(&id).await;
}

/// systemd writes the settings of a transient unit to a file, and reads them from there at a reload.
#[tokio::test]
async fn a_sandbox_is_the_same_after_a_reload() {
    const SANDBOX: [(&str, &str); 10] = [
        ("DeviceAllow", "/dev/null rw"),
        ("DevicePolicy", "closed"),
        ("IPAddressAllow", "localhost 10.0.0.0/8 2001:db8::1"),
        ("IPAddressDeny", "any"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictNamespaces", "no"),
        ("RestrictNamespaces", "ipc net"),
        ("RestrictNamespaces", "~user net"),
        ("SystemCallArchitectures", "native"),
        ("CapabilityBoundingSet", "CAP_CHOWN"),
    ];
    let Some(fixture) = Fixture::find().await else { return };
    let mut made = Vec::new();
    for (name, value) in SANDBOX {
        let mut asked = Properties::new();
        native::apply(&mut asked, false, name, value).unwrap();
        let asked = asked.into_iter().next().unwrap();
        let id = fixture.start("sleep 1000", vec![asked]).await;
        let before = fixture.property(&id, name).await;
        made.push((id, name, value, before));
    }
    fixture.client.manager("test", "Reload", &()).await.unwrap();
    let mut changed = Vec::new();
    for (id, name, value, before) in made {
        let after = fixture.property(&id, name).await;
        // systemd keeps prefixes in no order: each reload may reverse it.
        let prefixes = |value: &OwnedVariant| {
            let text = format!("{value:?}");
            let each =
                text.split("I32(").skip(1).map(|one| one.split("signature: Structure").next().map(str::to_owned));
            each.collect::<BTreeSet<_>>()
        };
        let is_same = before == after || name.starts_with("IPAddress") && prefixes(&before) == prefixes(&after);
        if !is_same {
            changed.push(format!("{name}={value}: {before:?} became {after:?}"));
        }
        fixture.stop(&id).await;
    }
    assert_eq!(changed, Vec::<String>::new());
}
