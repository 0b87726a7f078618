//! The backend's capabilities and its errors: R16, R18.

use std::fmt::Debug;

use runtide_core::{
    Capabilities, Error, ErrorKind, InstanceId, ListOptions, RuntimeBackend, RuntimeBackendExt, UnixSignal,
    WatchOptions,
    capabilities::{Support, WatchSupport},
    manager::{AttachOptions, LogOptions, RemoveOptions, StopOptions},
};

use super::{backend, running, try_fault};
use crate::{Fault, Harness, Law, LawResult, Verdict, Violation, Workload, ensure, errors::shown_twice};

/// **R16 capabilities tell the truth.** Once connected, `Capabilities` knows every verb and agrees with the managers. An
/// absent verb is `Unsupported` with feature, backend and reason; nothing returns `Ok` without an effect (which M1 checks).
pub async fn r16_capabilities(h: &dyn Harness) -> LawResult {
    let id = running(h, "subject").await?;
    let backend = backend(h).await?;
    let info = backend.connect().await.map_err(|error| Violation::of(Law::R16, "`connect`", error.to_string()))?;
    let capabilities = backend.capabilities();
    ensure!(info.capabilities == capabilities, R16, "`connect` and `capabilities` to agree", "two answers");
    ensure!(capabilities.watch != WatchSupport::Unknown, R16, "how changes are learnt, once connected", "unknown");
    for (verb, support) in capabilities.verbs() {
        let has = has_manager(&*backend, verb);
        match support {
            Support::Yes => ensure!(has, R16, format!("a manager for {verb}, which is reported as supported"), "none"),
            Support::No { reason } => {
                ensure!(
                    !reason.trim().is_empty(),
                    R16,
                    format!("a reason why {verb} is not supported"),
                    "an empty one"
                );
                let refused = backend.unsupported(verb);
                is_unsupported(&*backend, verb, Some(refused))?;
            }
            _ => ensure!(false, R16, format!("{verb} to be known once connected"), "unknown"),
        }
    }
    for verb in ABSENT_VERBS {
        let Some(support) = support_of(&capabilities, verb) else { continue };
        if matches!(support, Support::No { .. }) && has_manager(&*backend, verb) {
            is_unsupported(&*backend, verb, try_verb(&*backend, verb, &id).await)?;
        }
    }
    // A verb through the handle, where there is no manager at all.
    let handle = runtide_core::InstanceHandle::new(backend.clone(), id.clone());
    if backend.exec().is_none() {
        let refused = handle.exec(runtide_core::manager::ExecOptions::default()).await.err();
        is_unsupported(&*backend, "exec_run", refused)?;
    }
    if backend.logs().is_none() {
        is_unsupported(&*backend, "logs_read", handle.logs(LogOptions::default()).await.err())?;
    }
    Verdict::kept()
}

/// Verbs that a manager can lack although it is there, and which can be tried without harm.
const ABSENT_VERBS: &[&str] = &[
    "lifecycle_stop_signal",
    "lifecycle_kill",
    "lifecycle_pause",
    "lifecycle_restart",
    "lifecycle_rename",
    "lifecycle_start",
    "logs_follow",
    "exec_attach",
];

fn support_of<'a>(capabilities: &'a Capabilities, verb: &str) -> Option<&'a Support> {
    capabilities.verbs().find(|(name, _)| *name == verb).map(|(_, support)| support)
}

fn has_manager(backend: &dyn RuntimeBackend, verb: &str) -> bool {
    match verb.split('_').next().unwrap_or_default() {
        "lifecycle" => backend.lifecycle().is_some(),
        "provision" => backend.provision().is_some(),
        "logs" => backend.logs().is_some(),
        "exec" => backend.exec().is_some(),
        "images" => backend.images().is_some(),
        "networks" => backend.networks().is_some(),
        "volumes" => backend.volumes().is_some(),
        "sidecars" => backend.sidecars().is_some(),
        "snapshots" => backend.snapshots().is_some(),
        "stats" => backend.stats().is_some(),
        _ => false,
    }
}

/// Calls the verb; returns the error that it is refused with.
async fn try_verb(backend: &dyn RuntimeBackend, verb: &str, id: &InstanceId) -> Option<Error> {
    let (lifecycle, logs) = (backend.lifecycle()?, backend.logs());
    match verb {
        "lifecycle_stop_signal" => lifecycle.stop(id, StopOptions::default().with_signal(UnixSignal::INT)).await.err(),
        "lifecycle_kill" => lifecycle.kill(id, UnixSignal::HUP).await.err(),
        "lifecycle_pause" => lifecycle.pause(id).await.err(),
        "lifecycle_restart" => lifecycle.restart(id, StopOptions::default()).await.err(),
        "lifecycle_rename" => lifecycle.rename(id, "another").await.err(),
        "lifecycle_start" => lifecycle.start(id).await.err(),
        "logs_follow" => logs?.logs(id, LogOptions::default().with_follow()).await.err(),
        "exec_attach" => backend.exec()?.attach(id, AttachOptions::default()).await.err(),
        _ => None,
    }
}

fn is_unsupported(backend: &dyn RuntimeBackend, verb: &str, refused: Option<Error>) -> Result<(), Violation> {
    let Some(error) = refused else {
        return Err(Violation::of(Law::R16, format!("{verb}, which is not supported, to be `unsupported`"), "Ok"));
    };
    ensure!(error.kind() == ErrorKind::Unsupported, R16, format!("{verb} to be `unsupported`"), error.to_string());
    let context = |key: &str| error.context().iter().find(|(known, _)| *known == key).map(|(_, value)| value.clone());
    let names_all = context("feature").is_some() && context("reason").is_some_and(|reason| !reason.is_empty());
    ensure!(
        names_all && context("backend").as_deref() == Some(backend.id().as_str()),
        R16,
        format!("the refusal of {verb} to name feature, backend and reason"),
        error.to_string()
    );
    Ok(())
}

/// **R18 errors.** Classified by `ErrorKind`, with operation and context; no credential in `Display` or `Debug`.
pub async fn r18_errors(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let id = running(h, "subject").await?;
    let mut tuning = timing.tuning();
    tuning.deadline = Some(timing.deadline);
    let backend = h.backend(&tuning).await?;
    let info = backend.connect().await.map_err(|error| Violation::of(Law::R18, "`connect`", error.to_string()))?;
    no_secret(h, "the backend's Debug", &format!("{backend:?}"))?;
    no_secret(h, "its RuntimeInfo", &format!("{info:?}"))?;

    let absent = InstanceId::from("runtide-conformance-absent");
    expect_error(
        h,
        &*backend,
        "an inspection of an instance that is not there",
        backend.inspect(&absent).await,
        &[ErrorKind::NotFound],
    )?;
    if let Some(lifecycle) = backend.lifecycle() {
        let (verb, refused) = if backend.capabilities().lifecycle_start.is_yes() {
            ("a start of an instance that is not there", lifecycle.start(&absent).await)
        } else {
            ("a stop of an instance that is not there", lifecycle.stop(&absent, StopOptions::default()).await)
        };
        expect_error(h, &*backend, verb, refused, &[ErrorKind::NotFound])?;
        let stopped = h.create("never-ran", &Workload::Idle).await?;
        expect_error(
            h,
            &*backend,
            "a wait for an instance that never ran",
            lifecycle.wait(&stopped).await,
            &[ErrorKind::Conflict],
        )?;
        let plain = RemoveOptions::default();
        expect_error(
            h,
            &*backend,
            "a removal of an instance that runs",
            lifecycle.remove(&id, plain).await,
            &[ErrorKind::Conflict],
        )?;
        if backend.capabilities().lifecycle_kill.is_yes() {
            let killed = lifecycle.kill(&stopped, UnixSignal::TERM).await;
            expect_error(h, &*backend, "a signal to an instance that does not run", killed, &[ErrorKind::Conflict])?;
        }
    }
    // A watch's report of an outage travels further than any error.
    let mut stream = backend
        .watch(WatchOptions::default())
        .await
        .map_err(|error| Violation::of(Law::R18, "a watch to open", error.to_string()))?;
    let faults = [
        (Fault::Refuse, &[ErrorKind::Unavailable][..]),
        (Fault::Stall, &[ErrorKind::Timeout]),
        (Fault::Deny, &[ErrorKind::PermissionDenied, ErrorKind::Unauthenticated]),
    ];
    for (fault, kinds) in faults {
        if !try_fault!(h, fault, without) {
            continue;
        }
        let listed = backend.list_instances(ListOptions::default()).await;
        expect_error(h, &*backend, &format!("a list under {fault:?}"), listed, kinds)?;
        expect_error(h, &*backend, &format!("an inspection under {fault:?}"), backend.inspect(&id).await, kinds)?;
        if let Some(lifecycle) = backend.lifecycle() {
            let (verb, refused) = if backend.capabilities().lifecycle_start.is_yes() {
                ("start", lifecycle.start(&id).await)
            } else {
                ("stop", lifecycle.stop(&id, StopOptions::default()).await)
            };
            expect_error(h, &*backend, &format!("a {verb} under {fault:?}"), refused, kinds)?;
        }
        // A watch that is never quiet is another law's subject.
        for _ in 0..100 {
            let Ok(Some(event)) = tokio::time::timeout(timing.quiet, stream.next()).await else { break };
            no_secret(h, "a watch's report of an outage", &format!("{event:?}"))?;
        }
        h.heal().await?;
    }
    Verdict::kept_without(without)
}

fn no_secret(h: &dyn Harness, output: &str, text: &str) -> Result<(), Violation> {
    for secret in h.secrets() {
        ensure!(!text.contains(&secret), R18, format!("no credential in {output}"), "one that was configured");
    }
    Ok(())
}

/// The call must fail with one of these kinds, and name its operation and its backend.
pub(super) fn expect_error<T: Debug>(
    h: &dyn Harness,
    backend: &dyn RuntimeBackend,
    what: &str,
    result: Result<T, Error>,
    kinds: &[ErrorKind],
) -> Result<(), Violation> {
    let error = match result {
        Ok(value) => {
            return Err(Violation::of(Law::R18, format!("{what} to be one of {kinds:?}"), format!("Ok({value:?})")));
        }
        Err(error) => error,
    };
    ensure!(kinds.contains(&error.kind()), R18, format!("{what} to be one of {kinds:?}"), format!("{error:?}"));
    ensure!(
        error.operation().contains('.'),
        R18,
        format!("{what} to name its operation"),
        format!("'{}'", error.operation())
    );
    ensure!(
        error.context().iter().any(|(key, value)| *key == "backend" && *value == backend.id().as_str()),
        R18,
        format!("{what} to name the backend in its context"),
        error.to_string()
    );
    let twice = shown_twice(&error);
    ensure!(twice.is_none(), R18, format!("{what} to show each thing once"), twice.unwrap_or_default());
    ensure!(error.to_string().lines().count() == 1, R18, format!("{what} to be one line"), error.to_string());
    no_secret(h, what, &format!("{error} {error:?}"))
}
