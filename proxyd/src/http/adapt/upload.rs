//! A request on its way to the upstream.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::out::Stop;
use crate::error::TaskError;

/// How the request is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Going,
    Done,
    /// The upstream takes no more; its answer may tell why.
    Broken,
}

/// The request on its way to the upstream.
pub(super) struct Upload<F> {
    future: Pin<Box<F>>,
    sending: Sending,
}

impl<F: Future<Output = Result<(), Stop>>> Upload<F> {
    pub(super) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            sending: Sending::Going,
        }
    }

    /// Sends what can be sent; ready once, with the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TaskError>> {
        if self.sending != Sending::Going {
            return Poll::Pending;
        }
        let sent = ready!(self.future.as_mut().poll(cx));
        self.sending = if sent.is_ok() { Sending::Done } else { Sending::Broken };
        Poll::Ready(match sent {
            Ok(()) | Err(Stop::Sink(_)) => Ok(()),
            Err(Stop::Source(error)) => Err(error),
        })
    }

    /// Does something else meanwhile: whatever goes wrong with the request now, the response is what counts.
    pub(super) async fn beside<T>(&mut self, doing: impl Future<Output = T>) -> T {
        let mut doing = Box::pin(doing);
        poll_fn(|cx| {
            let _ = self.poll(cx);
            doing.as_mut().poll(cx)
        })
        .await
    }

    pub(super) fn is_done(&self) -> bool {
        self.sending == Sending::Done
    }
}
