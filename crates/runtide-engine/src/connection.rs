//! [`Driven`]: a connection of its own, driven by the task that waits for what is on it. No task, no hand-over, and closed when dropped.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// A connection without a task.
pub(crate) struct Driven<C> {
    connection: C,
    ended: bool,
}

impl<C: Future + Unpin> Driven<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, ended: false }
    }

    /// The connection is over. Its own error arrives through the response or the body.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads and writes the socket as far as it can be done now.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    /// Polls something that is on this connection, and drives it where that has to wait.
    pub(crate) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Poll::Ready(done) = poll(cx) {
            return Poll::Ready(done);
        }
        self.poll(cx);
        poll(cx)
    }

    /// Waits for something that is on this connection.
    pub(crate) async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| self.poll_with(cx, |cx| work.as_mut().poll(cx))).await
    }
}
