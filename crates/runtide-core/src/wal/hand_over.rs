//! The hand-over of a task: it decides and pushes records under the queue's lock, then waits until they are durable and the hook
//! has seen them.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{commit::Committer, hook::Forming, published::lock, queue::Caller};
use crate::error::Result;

/// Future of a hand-over: ready once its records are durable and the hook has seen them.
pub(super) struct HandOver<'a, T, F> {
    committer: &'a Committer,
    state: State<T, F>,
}

enum State<T, F> {
    /// Not pushed yet: the bytes of its frames, or an error for records that are too long; and the function that pushes.
    Begins(Result<usize>, F),
    /// Pushed: the value of `fill`, the number of the last record, and the waker that the group has.
    Waits(T, u64, Waker),
    /// The outcome was returned.
    Over,
}

impl<'a, T, F: FnOnce(&mut Forming<'_>) -> T> HandOver<'a, T, F> {
    pub(super) fn new(committer: &'a Committer, frames: Result<usize>, fill: F) -> Self {
        Self { committer, state: State::Begins(frames, fill) }
    }

    /// Runs `fill` if the group has room for `frames` bytes; otherwise the task is woken when it may try again.
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
            // Polled again after it was ready.
            State::Over => Poll::Pending,
        }
    }
}
