//! A request on its way to the upstream, beside whatever else its exchange waits for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

/// Why a message did not get through.
#[derive(Debug)]
pub(crate) enum Stop<R, S> {
    /// Its receiver takes no more.
    Receiver(R),
    /// There is no more of it.
    Source(S),
}

/// How a request is going.
#[derive(Debug, Clone, Copy)]
enum Sending {
    Going,
    Done(Instant),
    Broken,
}

/// What sends a request.
pub(crate) struct Upload<F> {
    future: F,
    sending: Sending,
}

impl<F, R, S> Upload<F>
where
    F: Future<Output = Result<(), Stop<R, S>>> + Unpin,
{
    pub(crate) fn new(future: F) -> Self {
        Self {
            future,
            sending: Sending::Going,
        }
    }

    /// Sends what can be sent; ready once, with the end. An upstream that takes no more may answer all the same (RFC 9112
    /// §9.6, RFC 9113 §8.1), so that is no error.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S>> {
        if self.is_over() {
            return Poll::Pending;
        }
        let sent = ready!(Pin::new(&mut self.future).poll(cx));
        self.sending = match sent {
            Ok(()) => Sending::Done(Instant::now()),
            Err(_) => Sending::Broken,
        };
        Poll::Ready(match sent {
            Ok(()) | Err(Stop::Receiver(_)) => Ok(()),
            Err(Stop::Source(error)) => Err(error),
        })
    }

    /// Does something else meanwhile.
    ///
    /// # Errors
    /// The source's.
    pub(crate) async fn beside<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, S> {
        let mut doing = pin!(doing);
        poll_fn(|cx| {
            if let Poll::Ready(done) = doing.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            match self.poll(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Does something else meanwhile, whatever goes wrong with the request.
    pub(crate) async fn regardless<T>(&mut self, doing: impl Future<Output = T>) -> T {
        let mut doing = pin!(doing);
        poll_fn(|cx| {
            let _ = self.poll(cx);
            doing.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it goes on no more, sent or not.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.sending, Sending::Going)
    }

    /// Whether all was sent.
    pub(crate) fn is_done(&self) -> bool {
        self.done_at().is_some()
    }

    /// When all was sent.
    pub(crate) fn done_at(&self) -> Option<Instant> {
        match self.sending {
            Sending::Done(at) => Some(at),
            Sending::Going | Sending::Broken => None,
        }
    }
}
