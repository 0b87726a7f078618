//! One consumer: folds its events, checks the laws of streams, and keeps account of the facts that it must receive.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::FutureExt;
use runtide_conformance::StreamChecker;
use runtide_core::{
    BackendId, Completeness, Cursor, EventStream, Freshness, Gap, InstanceTable, RuntimeEvent,
    RuntimeEventKind as Kind,
    event::{Continuity, ResumeToken},
};

pub(crate) struct Subscriber {
    pub(crate) name: usize,
    pub(crate) stream: EventStream,
    pub(crate) table: InstanceTable,
    pub(crate) checker: StreamChecker,
    /// `true` while it does not read.
    pub(crate) stalled: bool,
    pub(crate) unfiltered: bool,
    /// The last position that is safe to store.
    pub(crate) position: Option<Cursor>,
    account: Account,
    pub(crate) resyncs: u64,
    pub(crate) resumed: u64,
    pub(crate) lagged: u64,
    pub(crate) outages: u64,
}

/// Tokens of the reported facts, and the spans in which every fact must be reported.
#[derive(Default)]
struct Account {
    reported: BTreeSet<u64>,
    /// Half open: after the first token, up to and with the second.
    spans: Vec<(u64, u64)>,
    /// The token after which the open span begins.
    open: Option<u64>,
    begins: bool,
    blind: bool,
    last: u64,
    /// The newest token that the last resync may have seen: it may show more than a dead stream had reported, also to a
    /// subscriber that resumes from behind it with the rows that it showed.
    seen: u64,
}

/// The number of a fact: the runtime's name comes before it.
pub(crate) fn number(token: Option<&ResumeToken>) -> u64 {
    token.and_then(|token| token.as_str().rsplit('.').next()?.parse().ok()).unwrap_or(0)
}

impl Account {
    fn close(&mut self) {
        if let Some(from) = self.open.take() {
            self.spans.push((from, self.last));
        }
    }

    fn observe(&mut self, event: &RuntimeEvent, ahead: Option<u64>) {
        match &event.kind {
            Kind::ResyncBegin { .. } => {
                self.close();
                self.begins = false;
            }
            Kind::ResyncEnd(_) => {
                // Without a token the runtime had reported nothing yet: the span begins with its first report.
                self.open = event.cursor.native.as_ref().map(|token| number(Some(token)));
                self.last = self.open.unwrap_or(self.last);
                self.begins = self.open.is_none();
                self.blind = false;
                self.seen = ahead.unwrap_or(0);
                self.open = ahead.or(self.open);
            }
            Kind::BackendReconnected { continuity: Continuity::Lost } => self.close(),
            // A subscriber that resumes without its rows gets no events for changes that it cannot know.
            Kind::BackendReconnected { .. } if std::mem::take(&mut self.blind) => {}
            Kind::BackendReconnected { .. } => {
                self.open.get_or_insert(self.last.max(self.seen));
            }
            Kind::Present(_) => {}
            _ => {
                if std::mem::take(&mut self.begins) && event.cursor.native.is_some() {
                    self.open = Some(number(event.cursor.native.as_ref()));
                }
                if let Some(token) = &event.token {
                    self.reported.insert(number(Some(token)));
                }
                self.last = self.last.max(number(event.cursor.native.as_ref()));
            }
        }
    }
}

impl Subscriber {
    pub(crate) fn new(name: usize, stream: EventStream, unfiltered: bool) -> Self {
        let checker = if unfiltered { StreamChecker::default() } else { StreamChecker::default().filtered() };
        Self {
            name,
            stream,
            table: InstanceTable::default(),
            checker,
            stalled: false,
            unfiltered,
            position: None,
            account: Account::default(),
            resyncs: 0,
            resumed: 0,
            lagged: 0,
            outages: 0,
        }
    }

    /// Continues with another stream, from the stored position. `joins`: others watch, so that it shares their run.
    pub(crate) fn resume(&mut self, stream: EventStream, from: &Cursor, known: bool, joins: bool) {
        // A run that began blind does not learn the unknown rows from a subscriber that joins it later.
        self.account.blind = !known || (self.account.blind && joins);
        self.account.begins = false;
        self.stream = stream;
        self.checker = std::mem::take(&mut self.checker).resumed(from);
        if from.native.is_some() {
            // Events after the position come again, or are in a resync.
            let position = number(from.native.as_ref());
            self.account.last = position;
            self.account.reported.retain(|token| *token <= position);
        }
        self.account.close();
    }

    /// Reads all that is ready. `ahead`: the newest token that an inspection may have seen, if streams were dead.
    pub(crate) fn drain(&mut self, ahead: Option<u64>, trace: bool) -> Result<(), String> {
        while let Some(next) = self.stream.next().now_or_never() {
            let event = match next {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Err(format!("subscriber {}: the stream ended: {error}", self.name)),
                None => return Err(format!("subscriber {}: the stream ended", self.name)),
            };
            self.observe(&event, ahead, trace)?;
        }
        Ok(())
    }

    fn observe(&mut self, event: &Arc<RuntimeEvent>, ahead: Option<u64>, trace: bool) -> Result<(), String> {
        if trace {
            let (cursor, token) = (&event.cursor, event.token.as_ref());
            let what = event.instance().map(|i| format!("{} {} {:?}", i.id, i.state, i.exit.map(|e| e.end)));
            let kind = match &event.kind {
                Kind::ResyncBegin { gap } => format!("resync_begin {gap:?}"),
                Kind::BackendDisconnected { cause } => format!("disconnected {:?}", cause.as_ref().map(|c| &c.message)),
                Kind::BackendReconnected { continuity } => format!("reconnected {continuity:?}"),
                kind => kind.name().to_owned(),
            };
            let native = cursor.native.as_ref();
            println!(
                "    [{}] {kind} {} ({} @{native:?} token {token:?})",
                self.name,
                what.unwrap_or_default(),
                cursor.seq
            );
        }
        self.checker.observe(event).map_err(|violation| format!("subscriber {}: {violation}", self.name))?;
        self.table.apply(event);
        self.account.observe(event, ahead);
        match &event.kind {
            Kind::ResyncBegin { gap } => {
                self.resyncs += 1;
                self.lagged += u64::from(matches!(gap, Gap::Lagged { .. }));
            }
            Kind::BackendReconnected { continuity: Continuity::Resumed } => self.resumed += 1,
            Kind::BackendDisconnected { .. } => self.outages += 1,
            _ => {}
        }
        self.position = self.table.position(&event.backend).map(|(cursor, _)| cursor.clone());
        Ok(())
    }

    /// Completeness and freshness of the table.
    pub(crate) fn knows(&self, backend: &BackendId) -> (&Completeness, Option<Freshness>) {
        (self.table.completeness(backend), self.table.position(backend).map(|(_, fresh)| fresh))
    }

    /// The tokens that had to be reported and were not, if everything up to `head` was received.
    pub(crate) fn missing(&mut self, tokens: &[u64], head: u64) -> Vec<u64> {
        self.account.last = self.account.last.max(head);
        self.account.close();
        let pending = |token: u64| self.account.spans.iter().any(|(from, to)| *from < token && token <= *to);
        tokens.iter().copied().filter(|token| pending(*token) && !self.account.reported.contains(token)).collect()
    }
}
