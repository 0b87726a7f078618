//! The stream against the runtime's own state: R6, R19, R22.

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use runtide_core::{
    Address, Detail, Health, Instance, InstanceId, Labels, ListOptions, Port, Protocol, RuntimeEventKind as Kind,
    UnixSignal, WatchOptions,
};

use super::{backend, done, running};
use crate::{Change, Harness, Law, LawResult, Subscriber, Verdict, Workload, compare::differences, ensure};

/// **R6 converges.** At rest, the fold of the stream, `list_instances()` and the harness's own record are the same, in every
/// field that two of them know; at each level of detail, for early and for late subscribers.
pub async fn r6_converges(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    let before = running(h, "before").await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    let mut full = Subscriber::open(&backend, WatchOptions::default().with_detail(Detail::Full)).await?;
    full.until_live(h).await?;

    h.create("created", &Workload::Idle).await?;
    let stopped = h.create("exits", &Workload::Exit { after: Duration::from_millis(20), code: 3 }).await?;
    h.start(&stopped).await?;
    let killed = running(h, "killed").await?;
    h.kill(&killed, UnixSignal::KILL).await?;
    let paused = running(h, "paused").await?;
    done("pause", h.change(&paused, &Change::Pause).await, &mut without)?;
    let renamed = running(h, "renamed").await?;
    done("rename", h.change(&renamed, &Change::Rename("another-name".into())).await, &mut without)?;
    let removed = running(h, "removed").await?;
    h.remove(&removed).await?;
    h.stop(&before).await?;
    h.start(&before).await?;

    subscriber.converge(h, Law::R6).await?;
    full.converge(h, Law::R6).await?;
    let mut late = Subscriber::live(h, &backend).await?;
    late.converge(h, Law::R6).await?;
    let truth = h.truth().await?;
    for detail in [Detail::Summary, Detail::Full] {
        let listed = backend.list_instances(ListOptions::default().with_detail(detail)).await;
        let listed = listed.map_err(|error| crate::Violation::of(Law::R6, "a listing", error.to_string()))?;
        ensure!(
            listed.is_complete(),
            R6,
            "a complete listing of a healthy runtime",
            format!("{:?}", listed.completeness)
        );
        let rows = || listed.instances.iter().map(|row| &**row);
        let mut found = differences("the listing", rows(), "the runtime's state", truth.iter());
        found.extend(differences("the listing", rows(), "the fold of the stream", subscriber.rows()));
        found.extend(differences("the listing", rows(), "a late stream", late.rows()));
        found.extend(differences("the listing", rows(), "the stream in full", full.rows()));
        ensure!(found.is_empty(), R6, format!("one view of the instances, in {detail:?}"), found.join("; "));
    }
    Verdict::kept_without(without)
}

/// **R19 incarnation.** A restart changes the incarnation; the same name recreated is another id, or where names are ids,
/// another incarnation.
pub async fn r19_incarnation(h: &dyn Harness) -> LawResult {
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::open(&backend, WatchOptions::default().with_detail(Detail::Full)).await?;
    subscriber.until_live(h).await?;
    let id = running(h, "phoenix").await?;
    let inspect = async |id| {
        let seen = backend.inspect(id).await;
        seen.map_err(|error| crate::Violation::of(Law::R19, "to see an instance that is there", error.to_string()))
    };
    subscriber.converge(h, Law::R19).await?;
    let first = inspect(&id).await?;
    let first_reported = subscriber.get(&id).and_then(|instance| instance.incarnation.clone());
    ensure!(
        first.incarnation.is_some() || !h.dialect().incarnations,
        R19,
        "the incarnation of a running instance",
        "none after an inspection"
    );

    h.stop(&id).await?;
    h.start(&id).await?;
    subscriber.converge(h, Law::R19).await?;
    let second = inspect(&id).await?;
    if h.dialect().incarnations {
        ensure!(
            first.incarnation != second.incarnation,
            R19,
            "another incarnation after a restart",
            format!("{:?} again", second.incarnation)
        );
        let reported = subscriber.get(&id).and_then(|instance| instance.incarnation.clone());
        ensure!(
            reported.is_none() || reported != first_reported,
            R19,
            "the stream to report the incarnation of the present run",
            format!("{reported:?}, which was the one before")
        );
    }

    h.remove(&id).await?;
    let again = running(h, "phoenix").await?;
    subscriber.converge(h, Law::R19).await?;
    let third = inspect(&again).await?;
    ensure!(third.id == again, R19, format!("the recreated instance under its id {again}"), third.id.to_string());
    ensure!(
        (third.id != second.id) || (third.incarnation.is_some() && third.incarnation != second.incarnation),
        R19,
        "the same name recreated to be another id",
        format!("{} in incarnation {:?}", third.id, third.incarnation)
    );
    let namesakes = subscriber.rows().filter(|row| row.name == third.name).count();
    ensure!(namesakes == 1, R19, "one instance of the recreated name", format!("{namesakes}"));
    Verdict::kept()
}

/// **R22 every visible change.** Pause, unpause, health, rename, port, address and label changes give `Updated`, with the
/// field among those that changed. A resource limit is no field of an `Instance`: its change must leave the watch right.
pub async fn r22_every_visible_change(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    let id = match done("a health check", h.create("changing", &Workload::Checked).await, &mut without)? {
        Some(id) => id,
        None => h.create("changing", &Workload::Idle).await?,
    };
    h.start(&id).await?;
    subscriber.converge(h, Law::R22).await?;
    let labels: Labels = [("tier".to_owned(), "front".to_owned())].into_iter().collect();
    let changes = [
        Change::Pause,
        Change::Unpause,
        Change::Health(Health::Unhealthy),
        Change::Health(Health::Healthy),
        Change::Rename("changed".into()),
        Change::Ports(vec![Port::new(NonZeroU16::MIN.saturating_add(8079), Protocol::Tcp)]),
        Change::Addresses(vec![Address::new(IpAddr::from([10, 9, 8, 7]), Some("testing".to_owned()))]),
        Change::Labels(labels),
        Change::Resources,
    ];
    let mut is_changed = false;
    for change in &changes {
        let (from, before) = (subscriber.events.len(), subscriber.get(&id).cloned());
        if done(&change.to_string(), h.change(&id, change).await, &mut without)?.is_none() {
            continue;
        }
        is_changed = true;
        if let Some(field) = change.field() {
            let what = format!("an `Updated` in which `{field}` changed, after {change}");
            subscriber
                .until(h, Law::R22, &what, |one| {
                    let is_updated = one
                        .events_of(&id, from)
                        .any(|event| matches!(&event.kind, Kind::Updated { changed, .. } if changed.contains(field)));
                    is_updated || is_shown_by_a_resync(one, &id, from, before.as_deref(), field)
                })
                .await?;
        }
        subscriber.converge(h, Law::R22).await?;
    }
    if !is_changed {
        return Verdict::not_applicable("no visible change can be made");
    }
    Verdict::kept_without(without)
}

/// The watch lost its runtime at that moment, said so, and its resync shows another value of the field.
fn is_shown_by_a_resync(
    subscriber: &Subscriber,
    id: &InstanceId,
    from: usize,
    before: Option<&Instance>,
    field: &str,
) -> bool {
    let is_cut = subscriber.counts(from).contains_key("backend_disconnected") && subscriber.gaps(from).next().is_some();
    let rows = before.zip(subscriber.get(id));
    is_cut && rows.is_some_and(|(before, now)| before.differences(now).iter().any(|found| found.field == field))
}
