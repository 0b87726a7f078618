//! [`UnitSource`]: the manager's signals, in batches.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    num::{NonZeroU32, NonZeroUsize},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_core::Stream;
use runtide_core::{
    ErrorKind, Gap, InstanceId, InstanceState, Result,
    event::ResumeToken,
    watch::{Edge, Flow, Inspector, Opened, Signal, SignalBody, Source},
};
use tokio::time::{Instant, Sleep};
use zbus::{
    Connection, Message, MessageStream,
    message::{Header, Type},
};

use crate::{
    client::{AWAY, BUS, Client, MANAGER, PEER, PROPERTIES, ROOT, SCOPE, SERVICE, SYSTEMD, UNIT},
    error::BusErrors,
    files,
    freezer::Freezer,
    inspector::{self, UnitInspector},
    names, normalize,
    properties::{ServiceProperties, UnitProperties},
    subscription::{add_matches, subscribe},
    unit_cache,
};

const OPEN: &str = "systemd.watch";

/// Number of messages in one batch.
const BATCH: usize = 256;

/// Number of messages that may queue while the subscription is made, before the first read (trap S6: the default of 64
/// would not do).
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16 * 1024 - 1);

/// Time for which a unit must stay loaded, without a signal about it, before it is inspected: a unit that is loaded
/// only because a client inspected it is unloaded at once, and another inspection would load it again (trap S2).
const SETTLED: Duration = Duration::from_millis(200);

/// The signal stream of one manager.
pub(crate) struct UnitSource {
    client: Client,
    unit_cache: unit_cache::Shared,
    inspector: Arc<UnitInspector>,
    link: Option<Link>,
    /// Boot of the manager that was subscribed to last.
    boot: Option<u64>,
    unit_path: Vec<String>,
    alarm: Pin<Box<Sleep>>,
}

/// One subscription.
struct Link {
    messages: MessageStream,
    connection: Connection,
    /// Unique name of the manager on the bus: any client may send signals, and only those of this sender are processed.
    owner: String,
    heard: Instant,
    asked: bool,
    /// True during a daemon-reload: units are removed and added only in name.
    reloading: bool,
    /// Time since which the manager is off the bus.
    away: Option<Instant>,
    /// The manager came back, and `Subscribe` was called again: the serial of that call.
    subscribing: Option<NonZeroU32>,
    /// The last change of a service; the change of its unit follows at once.
    service: Option<(String, ServiceProperties)>,
    sending: Option<Pin<Box<dyn Future<Output = zbus::Result<()>> + Send>>>,
    /// Messages to send after the current one.
    unsent: VecDeque<Message>,
    /// `None`: the kernel provides none.
    freezer: Option<Freezer>,
    /// Units and the times at which they were loaded, oldest first; no signal has reported them yet.
    loaded: VecDeque<(Instant, InstanceId)>,
}

impl UnitSource {
    pub(crate) fn new(client: Client) -> Self {
        let unit_cache = unit_cache::Shared::default();
        let inspector = Arc::new(UnitInspector::new(client.clone(), Some(unit_cache.clone())));
        Self {
            client,
            unit_cache,
            inspector,
            link: None,
            boot: None,
            unit_path: Vec::new(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>, out: &mut Vec<Signal>) -> Poll<Result<Flow>> {
        let before = out.len();
        let (mut read, mut alive) = (0, false);
        let Self { client, unit_cache, link: maybe, unit_path, alarm, .. } = self;
        loop {
            let Some(link) = maybe else { return Poll::Ready(Ok(Flow::Closed)) };
            let limit = client.config().max_silence;
            if let Some(sending) = &mut link.sending {
                match sending.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        link.sending = None;
                        link.send_next();
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        *maybe = None;
                        return Poll::Ready(Err(client.site(OPEN).dbus(error)));
                    }
                }
            }
            while read < BATCH {
                match Pin::new(&mut link.messages).poll_next(cx) {
                    Poll::Ready(Some(Ok(message))) => {
                        read += 1;
                        alive = true;
                        if let Err(error) = link.take(client, unit_cache, unit_path, &message, out) {
                            *maybe = None;
                            return Poll::Ready(Err(error));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        *maybe = None;
                        return Poll::Ready(Err(client.site(OPEN).dbus(error)));
                    }
                    Poll::Ready(None) => {
                        *maybe = None;
                        let why = "the bus closed the connection";
                        return Poll::Ready(Err(client.site(OPEN).error(ErrorKind::Unavailable, why)));
                    }
                    Poll::Pending => break,
                }
            }
            unit_cache.lock().take_again(out);
            link.compare_groups(client, unit_cache, out);
            if let Some(freezer) = &mut link.freezer
                && let Poll::Ready(changed) = freezer.poll_changed(cx)
            {
                out.extend(changed.into_iter().map(|id| Signal::new(SignalBody::Hint(id))));
            }
            let now = Instant::now();
            link.settle(now, unit_cache, out);
            if alive {
                (link.heard, link.asked) = (now, false);
            }
            // The kernel's events and the timer are no sign of life of the manager.
            if link.asked && now >= link.heard + limit {
                *maybe = None;
                let why = format!("systemd has been silent for {limit:?}, and does not answer");
                return Poll::Ready(Err(client.site(OPEN).error(ErrorKind::Timeout, why)));
            }
            if let Some(since) = link.away
                && now >= since + AWAY
            {
                *maybe = None;
                let why = "systemd left the bus";
                return Poll::Ready(Err(client.site(OPEN).error(ErrorKind::Unavailable, why)));
            }
            if out.len() > before {
                return Poll::Ready(Ok(Flow::Open));
            }
            if alive {
                out.push(Signal::new(SignalBody::Alive));
                return Poll::Ready(Ok(Flow::Open));
            }
            let ask = link.heard + limit / 2;
            if now >= ask && !link.asked {
                link.asked = true;
                if let Err(error) = link.ask() {
                    *maybe = None;
                    return Poll::Ready(Err(client.site(OPEN).dbus(error)));
                }
                continue;
            }
            let settled = link.loaded.front().map(|(at, _)| *at + SETTLED);
            let silent = if link.asked { link.heard + limit } else { ask };
            let due = [Some(silent), link.away.map(|since| since + AWAY), settled];
            let Some(due) = due.into_iter().flatten().min() else { return Poll::Pending };
            if alarm.deadline() != due {
                alarm.as_mut().reset(due);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Besides the manager's own signals: the property changes of each unit, and the owner of the manager's name.
const RULES: [&str; 3] = [
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',interface='org.freedesktop.systemd1.Manager'",
    "type='signal',sender='org.freedesktop.systemd1',path_namespace='/org/freedesktop/systemd1/unit',\
     interface='org.freedesktop.DBus.Properties',member='PropertiesChanged'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.freedesktop.systemd1'",
];

impl Link {
    async fn subscribe(client: &Client) -> Result<Self> {
        let (connection, owner, messages) = subscribe(client, OPEN, QUEUE, async |connection: &Connection| {
            let messages = MessageStream::from(connection.clone());
            add_matches(connection, &RULES).await?;
            Ok(messages)
        })
        .await?;
        Ok(Self {
            messages,
            connection,
            owner,
            heard: Instant::now(),
            asked: false,
            reloading: false,
            away: None,
            subscribing: None,
            service: None,
            sending: None,
            unsent: VecDeque::new(),
            freezer: Freezer::new().ok(),
            loaded: VecDeque::new(),
        })
    }

    /// Watches the control groups of running instances, and requests an inspection of those whose state they contradict.
    /// Groups of instances whose run has ended are watched no longer.
    fn compare_groups(&mut self, client: &Client, unit_cache: &unit_cache::Shared, out: &mut Vec<Signal>) {
        let freezables = unit_cache.lock().take_freezables();
        let (Some(freezer), Some(root)) = (&mut self.freezer, &client.config().root) else { return };
        for (id, freezable) in freezables {
            let Some(state) = freezable else {
                freezer.forget(&id);
                continue;
            };
            if freezer.differs(root, id.clone(), &state.control_group, state.is_paused) {
                out.push(Signal::new(SignalBody::Hint(id)));
            }
        }
    }

    /// Requests an inspection of the units that were loaded and are still there.
    fn settle(&mut self, now: Instant, unit_cache: &unit_cache::Shared, out: &mut Vec<Signal>) {
        while let Some((at, id)) = self.loaded.front() {
            if *at + SETTLED > now {
                return;
            }
            if unit_cache.lock().is_untold(id) {
                request_inspection(id, out);
            }
            self.loaded.pop_front();
        }
    }

    /// Asks the manager for a sign of life: the answer comes after everything that it reported before.
    fn ask(&mut self) -> zbus::Result<()> {
        let ping = Message::method_call(ROOT, "Ping").destination(SYSTEMD).interface(PEER).build(&())?;
        self.send(ping);
        Ok(())
    }

    fn send(&mut self, message: Message) {
        self.unsent.push_back(message);
        if self.sending.is_none() {
            self.send_next();
        }
    }

    fn send_next(&mut self) {
        if let Some(message) = self.unsent.pop_front() {
            let connection = self.connection.clone();
            self.sending = Some(Box::pin(async move { connection.send(&message).await }));
        }
    }

    /// Handles one message.
    fn take(
        &mut self,
        client: &Client,
        unit_cache: &unit_cache::Shared,
        unit_path: &[String],
        message: &Message,
        out: &mut Vec<Signal>,
    ) -> Result<()> {
        let header = message.header();
        match message.message_type() {
            Type::Signal => {}
            kind @ (Type::MethodReturn | Type::Error) => {
                if self.subscribing.is_some() && header.reply_serial() == self.subscribing {
                    let name = header.error_name().map(zbus::names::ErrorName::as_str);
                    if kind == Type::Error && name.is_none_or(|name| !name.ends_with(".AlreadySubscribed")) {
                        let why = format!("systemd no longer sends signals: {}", name.unwrap_or("no reason given"));
                        return Err(client.site(OPEN).error(ErrorKind::Unavailable, why));
                    }
                    self.subscribing = None;
                    unit_cache.lock().forget_told();
                    out.push(Signal::new(SignalBody::Lost(Gap::RuntimeRestarted)));
                }
                return Ok(());
            }
            Type::MethodCall => return Ok(()),
        }
        let (Some(interface), Some(member)) = (header.interface(), header.member()) else { return Ok(()) };
        let sender = header.sender().map_or("", |sender| sender.as_str());
        if sender != self.owner && sender != BUS {
            tracing::debug!(backend = %client.id(), sender, "a signal from another sender");
            return Ok(());
        }
        let read = match (interface.as_str(), member.as_str()) {
            (PROPERTIES, "PropertiesChanged") => self.changed(client, unit_cache, unit_path, &header, message, out),
            (MANAGER, "UnitNew" | "UnitRemoved") => {
                if self.reloading {
                    return Ok(());
                }
                let body = message.body();
                body.deserialize::<(&str, zbus::ObjectPath<'_>)>().map(|(unit, _)| {
                    if names::flaw(unit).is_some() || !client.config().selection.takes_name(unit) {
                        return;
                    }
                    let id = InstanceId::from(unit);
                    if member.as_str() == "UnitNew" {
                        // It is not inspected now: that would load it once more when it is unloaded (trap S2).
                        unit_cache.lock().loaded(id.clone());
                        self.loaded.push_back((Instant::now(), id));
                    } else {
                        unit_cache.lock().unloaded(id, out);
                    }
                })
            }
            (MANAGER, "Reloading") => message.body().deserialize::<bool>().map(|begins| {
                self.reloading = begins;
                if !begins {
                    unit_cache.lock().forget_told();
                    out.push(Signal::new(SignalBody::Lost(Gap::Disconnected)));
                }
            }),
            (BUS, "NameOwnerChanged") if sender == BUS => {
                let body = message.body();
                let read = body.deserialize::<(&str, &str, &str)>();
                read.and_then(|(_, _, now)| {
                    self.reloading = false;
                    now.clone_into(&mut self.owner);
                    if now.is_empty() {
                        self.away.get_or_insert_with(Instant::now);
                        return Ok(());
                    }
                    self.away = None;
                    let call = Message::method_call(ROOT, "Subscribe").destination(SYSTEMD).interface(MANAGER);
                    let call = call.build(&())?;
                    self.subscribing = Some(call.primary_header().serial_num());
                    self.send(call);
                    Ok(())
                })
            }
            // An unknown signal of a unit: its state may have changed.
            _ => {
                let unit = header.path().and_then(|path| names::unit_of(path.as_str()));
                let unit = unit.filter(|unit| client.config().selection.takes_name(unit));
                out.extend(unit.map(|unit| Signal::new(SignalBody::Hint(unit.into()))));
                Ok(())
            }
        };
        if let Err(error) = read {
            tracing::warn!(backend = %client.id(), member = member.as_str(), %error, "a message cannot be read");
            let about = header.path().and_then(|path| names::unit_of(path.as_str()));
            out.push(Signal::new(
                about.map_or(SignalBody::Lost(Gap::Undecodable), |unit| SignalBody::Hint(unit.into())),
            ));
        }
        Ok(())
    }

    /// Handles a property change. A service's own changes come first, and its unit's follow at once: together they are
    /// one state.
    fn changed(
        &mut self,
        client: &Client,
        unit_cache: &unit_cache::Shared,
        unit_path: &[String],
        header: &Header<'_>,
        message: &Message,
        out: &mut Vec<Signal>,
    ) -> zbus::Result<()> {
        let Some(path) = header.path() else { return Ok(()) };
        let path = path.as_str();
        // Most units are left out by the end of the path, without decoding.
        if !path.ends_with("_2eservice") && !path.ends_with("_2escope") {
            return Ok(());
        }
        let is_one = |unit: &String| names::flaw(unit).is_none() && client.config().selection.takes_name(unit);
        let Some(unit) = names::unit_of(path).filter(is_one) else {
            return Ok(());
        };
        let body = message.body();
        // The invalidated names after the values are not decoded.
        match body.deserialize_ignore_signature::<&str>()? {
            SERVICE | SCOPE => {
                let (_, service): (&str, ServiceProperties) = body.deserialize_ignore_signature()?;
                self.service = Some((unit, service));
            }
            UNIT => {
                let (_, mut about): (&str, UnitProperties) = body.deserialize_ignore_signature()?;
                let service = self.service.take().filter(|(whose, _)| *whose == unit).map(|(_, service)| service);
                report(client, unit_cache, unit_path, &unit, &mut about, service, out);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Converts a unit's change into signals.
fn report(
    client: &Client,
    unit_cache: &unit_cache::Shared,
    unit_path: &[String],
    unit: &str,
    about: &mut UnitProperties,
    service: Option<ServiceProperties>,
    out: &mut Vec<Signal>,
) {
    let id = InstanceId::from(unit);
    let mut unit_cache = unit_cache.lock();
    let service = service.map(|mut service| {
        service.kind = unit_cache.is_job(&id).then(|| "oneshot".to_owned());
        service
    });
    inspector::correct_freezer_state(client, about, unit_cache.control_group(&id));
    let Some(instance) = normalize::instance(client.id(), unit, about, service.as_ref()) else {
        return out.push(Signal::new(SignalBody::Hint(id)));
    };
    if !normalize::is_begun(about, service.as_ref()) {
        // A start is under way that changed nothing yet. If it is over, it became no run.
        if about.job.as_ref().is_none_or(|(job, _)| *job == 0) {
            request_inspection(&id, out);
        }
        return;
    }
    if instance.state == InstanceState::Created && !unit_cache.has_run(&id) {
        // The unit was loaded, and no more than that: its details need an inspection.
        return request_inspection(&id, out);
    }
    let selection = &client.config().selection;
    let ran = match &service {
        Some(service) if names::type_of(unit) == Some("service") => normalize::has_main_ended(service),
        _ => true,
    };
    let mut signals = Vec::new();
    let root = client.config().root.as_deref();
    let labels = || root.and_then(|root| files::transient_labels(root, unit_path, unit));
    unit_cache.told(instance, ran, labels, &mut signals);
    if about.active_state.as_deref() == Some("inactive") && unit_cache.is_unfiled(&id) {
        // The unit is only a name now: systemd keeps it loaded for as long as other units mention it, and a listing
        // leaves it out.
        unit_cache.unloaded(id.clone(), &mut signals);
    }
    if selection.asks_for_more() {
        // An inspection decides which details a new run has in common with the one before.
        let is_selected = unit_cache.is_selected(&id);
        let taken = |signal: &Signal| match &signal.body {
            SignalBody::State(instance) => is_selected || selection.takes(instance),
            _ => true,
        };
        // A unit that is not known to be selected needs an inspection.
        if !signals.iter().all(taken) {
            signals.retain(taken);
            request_inspection(&id, &mut signals);
        }
    }
    out.append(&mut signals);
}

/// Requests an inspection. The edge makes it count at once if the instance is unknown: no other signal about it will
/// follow.
fn request_inspection(id: &InstanceId, out: &mut Vec<Signal>) {
    let state = InstanceState::Created;
    let edge = Edge { id: id.clone(), incarnation: None, state, exit: None, described: None };
    out.push(Signal::new(SignalBody::Edge(edge)));
    out.push(Signal::new(SignalBody::Hint(id.clone())));
}

#[async_trait]
impl Source for UnitSource {
    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        self.link = None;
        self.unit_cache.lock().forget_told();
        let deadline = self.client.config().deadline;
        let client = self.client.clone();
        let opened = async {
            let link = Link::subscribe(&client).await?;
            let server = client.identify(OPEN).await?;
            Ok((link, server))
        };
        let (link, server) = self.client.site(OPEN).within(deadline, opened).await?;
        self.link = Some(link);
        self.unit_path.clone_from(&server.unit_path);
        let gap = match self.boot.replace(server.boot) {
            Some(boot) if boot != server.boot => Gap::RuntimeRestarted,
            Some(_) => Gap::Disconnected,
            None if resume.is_some() => Gap::HistoryExpired,
            None => Gap::Initial,
        };
        Ok(Opened::Fresh(gap)) // systemd keeps no history of signals
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        poll_fn(|cx| self.poll_batch(cx, out)).await
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        self.inspector.clone()
    }

    fn max_silence(&self) -> Option<Duration> {
        Some(self.client.config().max_silence)
    }

    fn reports_edges(&self) -> bool {
        true
    }
}

impl Drop for UnitSource {
    /// The reported states become stale without a subscription.
    fn drop(&mut self) {
        self.unit_cache.lock().forget_told();
    }
}
