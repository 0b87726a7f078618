//! Effects of verbs, and their repetition: M1, M2.

use std::time::Duration;

use runtide_core::{
    ErrorKind, ImageRef, InstanceState, UnixSignal,
    manager::{Effect, NetworkSpec, RemoveOptions, StopOptions, VolumeSpec},
};

use super::{
    lifecycle,
    objects::{networks_take_effect, volumes_take_effect},
    ok, runs_of, seen, state,
};
use crate::{Harness, Law, LawResult, Verdict, Violation, Workload, ensure, laws::backend};

/// **M1 effect.** `Ok` means that the effect is there: the harness checks it from outside as soon as the verb returns.
pub async fn m1_effect(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    ok(Law::M1, "connect", backend.connect().await)?;
    let can = backend.capabilities();
    let verbs = lifecycle(&*backend, Law::M1)?;
    let id = h.create("subject", &Workload::Idle).await?;

    if can.lifecycle_start.is_yes() {
        ok(Law::M1, "start", verbs.start(&id).await).and_then(|effect| changed("start", effect))?;
    } else {
        without.push("start: not supported".to_owned());
        h.start(&id).await?;
    }
    expect_state(h, &id, "start", InstanceState::Running).await?;
    if can.lifecycle_pause.is_yes() {
        ok(Law::M1, "pause", verbs.pause(&id).await).and_then(|effect| changed("pause", effect))?;
        expect_state(h, &id, "pause", InstanceState::Paused).await?;
        ok(Law::M1, "unpause", verbs.unpause(&id).await).and_then(|effect| changed("unpause", effect))?;
        expect_state(h, &id, "unpause", InstanceState::Running).await?;
    } else {
        without.push("pause: not supported".to_owned());
    }
    if can.lifecycle_restart.is_yes() {
        let (begun, before) =
            (runs_of(h, Law::M1, &id, 1).await?, seen(h, &id).await?.and_then(|instance| instance.incarnation));
        ok(Law::M1, "restart", verbs.restart(&id, StopOptions::default()).await)?;
        expect_state(h, &id, "restart", InstanceState::Running).await?;
        let after = seen(h, &id).await?.and_then(|instance| instance.incarnation);
        ensure!(before.is_none() || before != after, M1, "a restart to begin another run", format!("{after:?} again"));
        let runs = runs_of(h, Law::M1, &id, begun.saturating_add(1)).await?;
        ensure!(runs == begun.saturating_add(1), M1, "a restart to begin one run", format!("{runs} after {begun}"));
    }
    if can.lifecycle_rename.is_yes() {
        for (name, expected) in [("runtide-m1-renamed", Effect::Changed), ("runtide-m1-renamed", Effect::Unchanged)] {
            let effect = ok(Law::M1, "rename", verbs.rename(&id, name).await)?;
            ensure!(effect == expected, M1, format!("the rename to be {expected:?}"), format!("{effect:?}"));
            let seen = seen(h, &id).await?.map(|instance| instance.name);
            ensure!(seen.as_deref() == Some(name), M1, format!("the name '{name}'"), format!("{seen:?}"));
        }
    }
    ok(Law::M1, "stop", verbs.stop(&id, StopOptions::default()).await).and_then(|effect| changed("stop", effect))?;
    expect_ended(h, &id, "stop").await?;
    if can.lifecycle_stop_signal.is_yes() {
        h.start(&id).await?;
        let options = StopOptions::default().with_signal(UnixSignal::KILL).with_timeout(Duration::from_secs(5));
        ok(Law::M1, "stop with a signal", verbs.stop(&id, options).await).and_then(|effect| changed("stop", effect))?;
        expect_ended(h, &id, "stop with a signal").await?;
    }
    if can.lifecycle_kill.is_yes() {
        h.start(&id).await?;
        ok(Law::M1, "kill", verbs.kill(&id, UnixSignal::KILL).await)?;
        ok(Law::M1, "wait", verbs.wait(&id).await)?;
        expect_ended(h, &id, "kill and wait").await?;
    }
    let ended = if h.stop_removes() {
        let ended = crate::laws::running(h, "ended").await?;
        h.stop(&ended).await?;
        ended
    } else {
        id
    };
    ok(Law::M1, "remove", verbs.remove(&ended, RemoveOptions::default()).await)
        .and_then(|effect| changed("remove", effect))?;
    ensure!(seen(h, &ended).await?.is_none(), M1, "a removed instance to be gone", "that it is there");
    let alive = crate::laws::running(h, "alive").await?;
    ok(Law::M1, "remove", verbs.remove(&alive, RemoveOptions::default().with_kill()).await)
        .and_then(|effect| changed("remove", effect))?;
    ensure!(seen(h, &alive).await?.is_none(), M1, "a removed instance to be gone", "that it is there");

    match backend.provision() {
        None => without.push("create: not supported".to_owned()),
        Some(provision) => {
            let mut spec = h.spec("made", &Workload::Idle)?;
            spec.labels.insert("tier", "front");
            let made = ok(Law::M1, "create", provision.create(&spec).await)?;
            let there = seen(h, &made).await?;
            let Some(there) = there else {
                return Err(Violation::of(Law::M1, "a created instance to be there", "none"));
            };
            ensure!(there.state == InstanceState::Created, M1, "`create` not to start", there.state.to_string());
            ensure!(spec.name.as_ref() == Some(&there.name), M1, format!("the name {:?}", spec.name), there.name);
            let labelled =
                there.labels.as_ref().is_none_or(|labels| labels.get("tier").is_some_and(|tier| tier == "front"));
            ensure!(labelled, M1, "the requested label", format!("{:?}", there.labels));
            let taken = provision.create(&spec).await.err().map(|error| error.kind());
            ensure!(
                taken == Some(ErrorKind::AlreadyExists),
                M1,
                "a name that is taken to be `already_exists`",
                format!("{taken:?}")
            );
        }
    }
    networks_take_effect(h, &*backend, &mut without).await?;
    volumes_take_effect(&*backend, &mut without).await?;
    Verdict::kept_without(without)
}

fn changed(verb: &str, effect: Effect) -> Result<(), Violation> {
    ensure!(effect == Effect::Changed, M1, format!("{verb} to say that it changed something"), "that it held already");
    Ok(())
}

async fn expect_state(
    h: &dyn Harness,
    id: &runtide_core::InstanceId,
    verb: &str,
    wanted: InstanceState,
) -> Result<(), Violation> {
    let is = state(h, id).await?;
    ensure!(is == wanted, M1, format!("{wanted} as soon as {verb} returns"), is.to_string());
    Ok(())
}

async fn expect_ended(h: &dyn Harness, id: &runtide_core::InstanceId, verb: &str) -> Result<(), Violation> {
    if h.stop_removes() && seen(h, id).await?.is_none() {
        return Ok(());
    }
    let is = state(h, id).await?;
    ensure!(is.is_ended(), M1, format!("an end as soon as {verb} returns"), is.to_string());
    Ok(())
}

/// **M2 idempotent.** A verb towards a state that holds already is a success that says so, and begins no run.
pub async fn m2_idempotent(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    ok(Law::M2, "connect", backend.connect().await)?;
    let can = backend.capabilities();
    let verbs = lifecycle(&*backend, Law::M2)?;
    let id = h.create("subject", &Workload::Idle).await?;
    let unchanged = |verb: &str, result: runtide_core::Result<Effect>| {
        let effect = ok(Law::M2, verb, result)?;
        ensure!(
            effect == Effect::Unchanged,
            M2,
            format!("{verb} to say that it held already"),
            "that it changed something"
        );
        Ok::<(), Violation>(())
    };
    h.start(&id).await?;
    let before = runs_of(h, Law::M2, &id, 1).await?;
    if can.lifecycle_start.is_yes() {
        unchanged("start of the started", verbs.start(&id).await)?;
    } else {
        without.push("start: not supported".to_owned());
    }
    if can.lifecycle_pause.is_yes() {
        unchanged("unpause of an instance that is not paused", verbs.unpause(&id).await)?;
        ok(Law::M2, "pause", verbs.pause(&id).await)?;
        unchanged("pause of the paused", verbs.pause(&id).await)?;
        ok(Law::M2, "unpause", verbs.unpause(&id).await)?;
    }
    let after = runs_of(h, Law::M2, &id, before).await?;
    ensure!(before == after, M2, format!("no run after the {before} before"), format!("{after} runs"));
    h.stop(&id).await?;
    unchanged("stop of the stopped", verbs.stop(&id, StopOptions::default()).await)?;
    h.remove(&id).await?;
    unchanged("remove of the removed", verbs.remove(&id, RemoveOptions::default()).await)?;
    unchanged("remove of the removed", verbs.remove(&id, RemoveOptions::default().with_kill()).await)?;

    match backend.networks().filter(|_| can.networks_manage.is_yes()) {
        None => without.push("networks: not supported".to_owned()),
        Some(networks) => {
            let network = ok(Law::M2, "create a network", networks.create(&NetworkSpec::named("runtide-m2")).await)?;
            let first = ok(Law::M2, "remove a network", networks.remove(&network).await)?;
            ensure!(
                first == Effect::Changed,
                M2,
                "the first removal to say that it changed something",
                "that it held already"
            );
            unchanged("removal of a network that is gone", networks.remove(&network).await)?;
        }
    }
    match backend.volumes().filter(|_| can.volumes_manage.is_yes()) {
        None => without.push("volumes: not supported".to_owned()),
        Some(volumes) => {
            let volume = ok(Law::M2, "create a volume", volumes.create(&VolumeSpec::named("runtide-m2")).await)?;
            let first = ok(Law::M2, "remove a volume", volumes.remove(&volume).await)?;
            ensure!(
                first == Effect::Changed,
                M2,
                "the first removal to say that it changed something",
                "that it held already"
            );
            unchanged("removal of a volume that is gone", volumes.remove(&volume).await)?;
        }
    }
    match backend.images().filter(|_| can.images_manage.is_yes()) {
        None => without.push("images: not supported".to_owned()),
        Some(images) => {
            let name = ImageRef::from("runtide-m2:1");
            let source = h.spec("imaged", &Workload::Idle).ok().and_then(|spec| spec.image);
            let is_there = match &source {
                Some(source) => ok(Law::M2, "exists of an image", images.exists(source).await)?,
                None => false,
            };
            if let Some(source) = source.filter(|_| is_there) {
                ok(Law::M2, "tag", images.tag(&source, &name).await)?;
                ok(Law::M2, "tag of the tagged", images.tag(&source, &name).await)?;
                let tagged = ok(Law::M2, "exists of the tagged", images.exists(&name).await)?;
                ensure!(tagged, M2, "an image under the name that it was given", "none");
                let first = ok(Law::M2, "remove an image's name", images.remove(&name).await)?;
                ensure!(
                    first == Effect::Changed,
                    M2,
                    "the first removal to say that it changed something",
                    "that it held already"
                );
            }
            unchanged("removal of an image that is gone", images.remove(&name).await)?;
            let gone = !ok(Law::M2, "exists of the removed", images.exists(&name).await)?;
            ensure!(gone, M2, "no image under the name that was removed", "one");
        }
    }
    Verdict::kept_without(without)
}
