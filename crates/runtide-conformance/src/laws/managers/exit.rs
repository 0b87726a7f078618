//! The exit of a run: M3.

use std::time::Duration;

use runtide_core::{ErrorKind, ExitCause, ExitStatus, InstanceId, UnixSignal, manager::LifecycleManager};

use super::{lifecycle, ok, seen};
use crate::{
    Fault, Harness, Law, LawResult, Verdict, Violation, Workload,
    compare::exits_agree,
    ensure,
    laws::{backend, done, running, try_fault},
};

/// **M3 exit.** `wait` gives the true exit code, signal and OOM verdict, as the runtime reports them; never an invented one. For
/// an instance that never ran it is `Conflict`, for one that is gone `NotFound`, and a wait whose link breaks ends with the true
/// exit or an error.
pub async fn m3_exit(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    ok(Law::M3, "connect", backend.connect().await)?;
    let verbs = lifecycle(&*backend, Law::M3)?;

    for code in [0, 7, 255] {
        let work = Workload::Exit { after: Duration::from_millis(50), code };
        let id = h.create(&format!("exits-{code}"), &work).await?;
        h.start(&id).await?;
        let exit = ok(Law::M3, "wait", verbs.wait(&id).await)?;
        let true_code = exit.is_some_and(|exit| exit.end == ExitCause::Code(code) && exit.oom_killed != Some(true));
        ensure!(true_code, M3, format!("exit code {code}"), format!("{exit:?}"));
        let again = ok(Law::M3, "wait for a run that is over", verbs.wait(&id).await)?;
        ensure!(again == exit, M3, format!("{exit:?} when asked again"), format!("{again:?}"));
        as_seen(h, verbs, &id).await?;
    }

    let killed = running(h, "killed").await?;
    let (waited, sent) = tokio::join!(verbs.wait(&killed), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        h.kill(&killed, UnixSignal::KILL).await
    });
    sent?;
    let exit = ok(Law::M3, "wait", waited)?;
    let by_signal = exit.is_some_and(|exit| match exit.end {
        ExitCause::Signal(signal) => signal == UnixSignal::KILL,
        ExitCause::Code(code) => code == 137,
        _ => false,
    });
    ensure!(by_signal, M3, "the end by SIGKILL, or 137 where the runtime makes a code of it", format!("{exit:?}"));
    ensure!(exit.is_none_or(|exit| exit.oom_killed != Some(true)), M3, "no verdict of OOM", format!("{exit:?}"));
    as_seen(h, verbs, &killed).await?;

    if let Some(hungry) = done("OOM", h.create("hungry", &Workload::Oom).await, &mut without)? {
        h.start(&hungry).await?;
        let exit = ok(Law::M3, "wait", verbs.wait(&hungry).await)?;
        let reported = exit.and_then(|exit| exit.oom_killed);
        ensure!(reported != Some(false), M3, "an end for want of memory not to be denied", format!("{exit:?}"));
        as_seen(h, verbs, &hungry).await?;
    }

    let never = h.create("never-ran", &Workload::Idle).await?;
    let kind = verbs.wait(&never).await.err().map(|error| error.kind());
    ensure!(
        kind == Some(ErrorKind::Conflict),
        M3,
        "a wait for an instance that never ran to be `conflict`",
        format!("{kind:?}")
    );
    h.remove(&never).await?;
    let kind = verbs.wait(&never).await.err().map(|error| error.kind());
    ensure!(
        kind == Some(ErrorKind::NotFound),
        M3,
        "a wait for an instance that is gone to be `not_found`",
        format!("{kind:?}")
    );

    for (n, fault) in [Fault::Sever, Fault::RestartDaemon].into_iter().enumerate() {
        let id = running(h, &format!("outlives-{n}")).await?;
        let (waited, broke) = tokio::join!(tokio::time::timeout(h.timing().timeout, verbs.wait(&id)), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let broke = try_fault!(h, fault, without);
            h.heal().await?;
            h.kill(&id, UnixSignal::KILL).await?;
            Ok::<bool, Violation>(broke)
        });
        let _ = broke?;
        if let Ok(Ok(Some(exit))) = waited {
            let truth = seen(h, &id).await?.and_then(|instance| instance.exit);
            let invented = truth.is_none_or(|truth| !exits_agree(exit, truth));
            ensure!(!invented, M3, format!("the true end, {truth:?}, or none, or an error"), format!("{exit:?}"));
        }
        ensure!(waited.is_ok(), M3, "a wait to end with the run, though the link broke", "that it hangs");
    }
    Verdict::kept_without(without)
}

/// Compares `wait` with the exit seen from outside.
async fn as_seen(h: &dyn Harness, verbs: &dyn LifecycleManager, id: &InstanceId) -> Result<(), Violation> {
    let reported: Option<ExitStatus> = ok(Law::M3, "wait for a run that is over", verbs.wait(id).await)?;
    let truth = seen(h, id).await?.and_then(|instance| instance.exit);
    if let (Some(reported), Some(truth)) = (reported, truth) {
        ensure!(
            exits_agree(reported, truth),
            M3,
            format!("the end as it is seen from outside, {truth:?}"),
            format!("{reported:?}")
        );
    }
    Ok(())
}
