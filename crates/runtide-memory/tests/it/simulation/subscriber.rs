//! One consumer: folds what it gets, checks the laws of streams, and keeps account of which facts it was pending.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::FutureExt;
use runtide_conformance::StreamChecker;
use runtide_core::{
    Cursor, EventStream, Gap, InstanceTable, RuntimeEvent, RuntimeEventKind as Kind,
    event::{Continuity, ResumeToken},
};

pub(crate) struct Subscriber {
    pub(crate) name: usize,
    pub(crate) stream: EventStream,
    pub(crate) table: InstanceTable,
    pub(crate) checker: StreamChecker,
    /// Does not read for now.
    pub(crate) stalled: bool,
    pub(crate) unfiltered: bool,
    /// The last place that is safe to store.
    pub(crate) place: Option<Cursor>,
    account: Account,
    pub(crate) brackets: u64,
    pub(crate) resumed: u64,
    pub(crate) lagged: u64,
    pub(crate) outages: u64,
}

/// Marks of the facts that were told, and the spans in which each had to be.
#[derive(Default)]
struct Account {
    told: BTreeSet<u64>,
    /// Half open: after the first, up to and with the second.
    spans: Vec<(u64, u64)>,
    /// The span that is open begins after this token.
    open: Option<u64>,
    begins: bool,
    blind: bool,
    last: u64,
    /// How far the last bracket may have seen: it may show more than a dead stream had told, also to who resumes from behind
    /// it with what it showed.
    seen: u64,
}

fn number(token: Option<&ResumeToken>) -> u64 {
    token.and_then(|token| token.as_str().parse().ok()).unwrap_or(0)
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
            Kind::ResyncEnd => {
                // Without a token the runtime had told nothing yet: the span begins with the first thing that it tells.
                self.open = event.cursor.native.as_ref().map(|token| number(Some(token)));
                self.last = self.open.unwrap_or(self.last);
                self.begins = self.open.is_none();
                self.blind = false;
                self.seen = ahead.unwrap_or(0);
                self.open = ahead.or(self.open);
            }
            Kind::BackendReconnected { continuity: Continuity::Lost } => self.close(),
            // Who resumes without what he knew is not told of what he cannot know.
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
                    self.told.insert(number(Some(token)));
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
            place: None,
            account: Account::default(),
            brackets: 0,
            resumed: 0,
            lagged: 0,
            outages: 0,
        }
    }

    /// Goes on with another stream, from the stored place. `joins`: others watch, so that it is the same run as theirs.
    pub(crate) fn resume(&mut self, stream: EventStream, from: &Cursor, known: bool, joins: bool) {
        // A run that began blind does not learn what it did not know from who joins it later.
        self.account.blind = !known || (self.account.blind && joins);
        self.account.begins = false;
        self.stream = stream;
        self.checker = std::mem::take(&mut self.checker).resumed(from);
        if from.native.is_some() {
            // What was told after the place comes again, or is in a bracket.
            let place = number(from.native.as_ref());
            self.account.last = place;
            self.account.told.retain(|token| *token <= place);
        }
        self.account.close();
    }

    /// Reads whatever is at hand. `ahead`: how far a look may have seen, where streams were dead.
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
                self.brackets += 1;
                self.lagged += u64::from(matches!(gap, Gap::Lagged { .. }));
            }
            Kind::BackendReconnected { continuity: Continuity::Resumed } => self.resumed += 1,
            Kind::BackendDisconnected { .. } => self.outages += 1,
            _ => {}
        }
        self.place = self.table.position(&event.backend).map(|(cursor, _)| cursor.clone());
        Ok(())
    }

    /// Which of these tokens had to be told and were not, if everything up to `head` was heard.
    pub(crate) fn missing(&mut self, tokens: &[u64], head: u64) -> Vec<u64> {
        self.account.last = self.account.last.max(head);
        self.account.close();
        let pending = |token: u64| self.account.spans.iter().any(|(from, to)| *from < token && token <= *to);
        tokens.iter().copied().filter(|token| pending(*token) && !self.account.told.contains(token)).collect()
    }
}
