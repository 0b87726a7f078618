//! A task's hand-over: decides and pushes under the lock of the forming group, then waits until that is durable and shown.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{commit::Committer, hook::Forming, published::lock, queue::Caller};
use crate::error::Result;

/// A task's hand-over, until it is durable and shown.
pub(super) struct HandOver<'a, T, F> {
    committer: &'a Committer,
    state: State<T, F>,
}

enum State<T, F> {
    Begins(Result<usize>, F),
    /// Until the record is shown; the waker is the one that its group has.
    Waits(T, u64, Waker),
    Over,
}

impl<'a, T, F: FnOnce(&mut Forming<'_>) -> T> HandOver<'a, T, F> {
    pub(super) fn new(committer: &'a Committer, frames: Result<usize>, fill: F) -> Self {
        Self { committer, state: State::Begins(frames, fill) }
    }

    fn begin(&mut self, frames: usize, fill: F, cx: &Context<'_>) -> Poll<Result<T>> {
        let committer = self.committer;
        let mut queue = lock(&committer.queue);
        committer.check(&queue)?;
        if !queue.has_room(frames, Caller::Task(cx.waker())) {
            self.state = State::Begins(Ok(frames), fill);
            return Poll::Pending;
        }
        let value = fill(&mut Forming::new(&mut queue));
        let last = queue.next.saturating_sub(1);
        if committer.hooked.shown(&committer.published) >= last {
            return Poll::Ready(Ok(value));
        }
        committer.arrive(&mut queue);
        queue.group.wait(Caller::Task(cx.waker()), last);
        committer.give_turn(&mut queue);
        drop(queue);
        self.state = State::Waits(value, last, cx.waker().clone());
        Poll::Pending
    }
}

impl<T: Unpin, F: FnOnce(&mut Forming<'_>) -> T + Unpin> Future for HandOver<'_, T, F> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match mem::replace(&mut this.state, State::Over) {
            State::Begins(frames, fill) => this.begin(frames?, fill, cx),
            State::Waits(value, last, waker) => {
                this.committer.wake_also(&waker, cx);
                if let Some(done) = this.committer.hooked.outcome(&this.committer.published, last) {
                    return Poll::Ready(done.map(|()| value));
                }
                this.state = State::Waits(value, last, waker);
                Poll::Pending
            }
            // Polled after its answer.
            State::Over => Poll::Pending,
        }
    }
}
