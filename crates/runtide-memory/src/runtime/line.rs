//! The runtime's end of every connection: which are open, what each stream has yet to read, and how a connection ends.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use runtide_core::{Error, ErrorKind, Result, Retry, event::ResumeToken, watch::Opened};
use tokio::time::Instant;

use super::{Inner, Look, State, Told};
use crate::fault::{Call, Dial};

/// Most messages that one read returns.
const BATCH: usize = 256;

/// Most connection attempts that are remembered.
const DIALS: usize = 65_536;

/// Interval at which a runtime that is down is dialled: that of a socket without a listener.
const POLL: Duration = Duration::from_millis(50);

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Line {
    call: Call,
    fate: Fate,
    feed: Option<Feed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    /// Silent: nothing more is delivered, without an error.
    Dead,
    /// Ends cleanly once what was reported is read.
    Closed,
    /// Broken, for this reason.
    Severed(&'static str),
}

#[derive(Debug)]
struct Feed {
    queue: VecDeque<Message>,
    /// The last fact that was read.
    token: Option<ResumeToken>,
    beat: Option<(Duration, Instant)>,
}

/// Message of an event stream.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Told(Arc<Told>),
    /// The replay ends here.
    CaughtUp,
    /// A sign that the link is alive: everything up to this fact was delivered.
    Alive(Option<ResumeToken>),
}

impl Line {
    pub(super) fn hear(&mut self, told: &Arc<Told>, copies: usize, room: usize) {
        let Some(feed) = self.feed.as_mut().filter(|_| self.fate == Fate::Open) else { return };
        if feed.queue.len() + copies > room {
            self.fate = Fate::Severed("the reader is too slow");
            return;
        }
        feed.queue.extend(std::iter::repeat_n(Message::Told(Arc::clone(told)), copies));
    }

    pub(super) fn is_stream(&self) -> bool {
        self.call == Call::Events
    }

    /// A fate that is worse than the one before.
    pub(super) fn end(&mut self, fate: Fate) {
        if !matches!(self.fate, Fate::Severed(_)) {
            self.fate = fate;
        }
    }
}

/// The client's end of a connection; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
    number: u64,
    call: Call,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inner.with(|state| {
            state.lines.remove(&self.number);
            state.dirty = true;
        });
    }
}

impl Connection {
    /// Accepted, refused, denied, or hanging until the runtime is well again.
    pub(crate) async fn open(inner: &Arc<Inner>, call: Call) -> Result<Self> {
        let number = inner.with(|state| state.accept(call))?;
        let connection = Self { inner: Arc::clone(inner), number, call };
        connection.unless_broken(inner.until(|state| Look::ready_if(!state.faults.stall.contains(&call)))).await?;
        connection.latency().await?;
        Ok(connection)
    }

    /// Waits until an answer can travel back.
    pub(crate) async fn answered(&self) -> Result<()> {
        self.latency().await?;
        self.unless_broken(self.inner.until(|state| Look::ready_if(!state.faults.mute.contains(&self.call)))).await
    }

    async fn latency(&self) -> Result<()> {
        match self.inner.with(|state| state.faults.slow.get(&self.call).copied()) {
            Some(slow) => self.unless_broken(tokio::time::sleep(slow / 2)).await,
            None => Ok(()),
        }
    }

    async fn unless_broken<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! { biased; error = self.broken() => Err(error), done = work => Ok(done) }
    }

    /// Waits until the connection breaks, and returns the reason.
    pub(crate) async fn broken(&self) -> Error {
        self.inner.until(|state| state.fate(self.number, self.call).map_or(Look::Later(None), Look::Ready)).await
    }

    /// Turns the connection into an event stream.
    pub(crate) fn subscribe(&self, resume: Option<&ResumeToken>, beat: Option<Duration>) -> Opened {
        self.inner.with(|state| state.subscribe(self.number, resume, beat))
    }

    /// Waits for messages, and returns all that are there; `None` if the stream ended cleanly.
    ///
    /// # Cancel safety
    /// Nothing is taken before the very poll that returns it.
    pub(crate) async fn read(&self) -> Result<Option<Vec<Message>>> {
        self.inner.until(|state| state.read(self.number)).await
    }
}

impl State {
    fn accept(&mut self, call: Call) -> Result<u64> {
        *self.calls.entry(call).or_default() += 1;
        let turned_away = if self.down || self.faults.refuse {
            let error = Error::new(ErrorKind::Unavailable, call.operation(), "connection refused");
            Some(error.with_retry(Retry::Poll(POLL)))
        } else if self.faults.deny.contains(&call) {
            Some(Error::new(ErrorKind::PermissionDenied, call.operation(), "this caller may not do this"))
        } else {
            None
        };
        if self.dials.len() >= DIALS {
            self.dials.pop_front();
        }
        self.dials.push_back(Dial::new(self.now - self.born, call, turned_away.is_some()));
        self.dirty = true;
        if let Some(error) = turned_away {
            return Err(error);
        }
        self.check_support(call)?;
        self.next_line += 1;
        self.lines.insert(self.next_line, Line { call, fate: Fate::Open, feed: None });
        Ok(self.next_line)
    }

    fn fate(&self, number: u64, call: Call) -> Option<Error> {
        match self.lines.get(&number).map(|line| line.fate) {
            Some(Fate::Severed(why)) => Some(Error::new(ErrorKind::Unavailable, call.operation(), why)),
            _ => None,
        }
    }

    fn subscribe(&mut self, number: u64, resume: Option<&ResumeToken>, beat: Option<Duration>) -> Opened {
        let now = self.now;
        let fate = match &self.faults {
            faults if faults.dead_streams => Fate::Dead,
            faults if faults.close_at_once => Fate::Closed,
            _ => Fate::Open,
        };
        let mut queue = VecDeque::new();
        let mut token = self.history.newest(now).cloned();
        let opened = match resume.map(|resume| (resume, self.history.after(&self.boot, resume))) {
            None => Opened::Fresh(runtide_core::Gap::Initial),
            Some((_, Err(gap))) => Opened::Fresh(gap),
            Some((resume, Ok(missed))) => {
                // An event that is still delayed was not missed: it is yet to come.
                let mut caught_up = false;
                for told in missed {
                    if told.visible_at > now && !std::mem::replace(&mut caught_up, true) {
                        queue.push_back(Message::CaughtUp);
                    }
                    queue.push_back(Message::Told(Arc::clone(told)));
                }
                if !caught_up {
                    queue.push_back(Message::CaughtUp);
                }
                token = Some(resume.clone());
                Opened::Resumed
            }
        };
        if matches!(opened, Opened::Fresh(_)) {
            // The start position: without it, a stream that stays quiet could not resume.
            queue.extend((fate == Fate::Open && token.is_some()).then(|| Message::Alive(token.clone())));
            let delayed = self.history.recent.iter().skip_while(|told| told.visible_at <= now);
            queue.extend(delayed.cloned().map(Message::Told));
        }
        if let Some(line) = self.lines.get_mut(&number) {
            line.feed = Some(Feed { queue, token, beat: beat.map(|every| (every, now + every)) });
            line.end(fate);
        }
        opened
    }

    fn read(&mut self, number: u64) -> Look<Result<Option<Vec<Message>>>> {
        if let Some(error) = self.fate(number, Call::Events) {
            return Look::Ready(Err(error));
        }
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return Look::Ready(Ok(None)) };
        let Some(feed) = line.feed.as_mut() else { return Look::Ready(Ok(None)) };
        if line.fate == Fate::Dead {
            return Look::Later(None);
        }
        let mut batch = Vec::new();
        let mut wake = None;
        while batch.len() < BATCH {
            match feed.queue.front() {
                Some(Message::Told(told)) if told.visible_at > now && line.fate == Fate::Open => {
                    wake = Some(told.visible_at);
                    break;
                }
                Some(Message::Told(told)) => feed.token = Some(told.fact.token.clone()),
                Some(_) => {}
                None => break,
            }
            batch.extend(feed.queue.pop_front());
        }
        if let Some((every, at)) = &mut feed.beat {
            if !batch.is_empty() {
                *at = now + *every;
            } else if *at <= now {
                *at = now + *every;
                batch.push(Message::Alive(feed.token.clone()));
            } else {
                wake = Some(wake.map_or(*at, |wake: Instant| wake.min(*at)));
            }
        }
        if !batch.is_empty() {
            Look::Ready(Ok(Some(batch)))
        } else if line.fate == Fate::Closed {
            Look::Ready(Ok(None))
        } else {
            Look::Later(wake)
        }
    }
}
