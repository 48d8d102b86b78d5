//! The request's body on its way, beside whatever else its stream waits for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Reason, RecvStream};
use http::Response;
use tokio::time::Instant;

use super::body::Broken;
use super::stream::{Answer, StreamError, StreamNote};
use super::until;

/// Why a body did not come through.
#[derive(Debug)]
pub(super) enum Stop {
    /// Its receiver does not want it.
    Receiver(Reason),
    /// There is no more of it.
    Source(StreamError),
}

impl Broken {
    /// What it is to the stream; `of_sender` says what it means that the sender broke off.
    pub(super) fn by(self, of_sender: fn(h2::Error) -> StreamError) -> Stop {
        match self {
            Self::Receiver(reason) => Stop::Receiver(reason),
            Self::Sender(error) => Stop::Source(of_sender(error)),
        }
    }
}

/// What sends a request's body.
pub(super) struct Upload<'f, F> {
    future: Pin<&'f mut F>,
    /// Since when times are counted.
    since: Instant,
    is_over: bool,
    /// When all was sent.
    sent: Option<Duration>,
}

impl<'f, F: Future<Output = Result<(), Stop>>> Upload<'f, F> {
    /// Of the stream of `note`.
    pub(super) fn new(future: Pin<&'f mut F>, note: &StreamNote) -> Self {
        Self {
            future,
            since: note.started,
            is_over: note.request_sent.is_some(),
            sent: note.request_sent,
        }
    }

    /// Sends what can be sent; ready once it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.future.as_mut().poll(cx));
        self.is_over = true;
        match sent {
            Ok(()) => self.sent = Some(self.since.elapsed()),
            // An upstream that wants no more of the request may answer all the same (RFC 9113 §8.1). The client is told
            // behind the whole answer, as the stream is dropped.
            Err(Stop::Receiver(_)) => {}
            Err(Stop::Source(error)) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    /// Does something else meanwhile.
    ///
    /// # Errors
    /// The source's.
    pub(super) async fn beside<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, StreamError> {
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

    /// Waits for the response's head meanwhile, and for `limit` behind the end of the request.
    ///
    /// # Errors
    /// The source's, and those of the answer.
    pub(super) async fn await_answer(
        &mut self,
        answer: Answer<'_>,
        limit: Duration,
    ) -> Result<Response<RecvStream>, StreamError> {
        let mut answer = pin!(answer);
        let deadline = || Instant::now() + limit;
        let mut ends_at = self.is_over.then(deadline);
        loop {
            tokio::select! {
                biased;
                answer = answer.as_mut() => return answer,
                sent = poll_fn(|cx| self.poll(cx)), if !self.is_over => {
                    sent?;
                    ends_at = Some(deadline());
                }
                () = until(ends_at) => return Err(StreamError::UpstreamSilent),
            }
        }
    }

    /// Brings the response's body down by `download`, and the request's to its end.
    ///
    /// # Errors
    /// Those of either body.
    pub(super) async fn finish(
        mut self,
        download: impl Future<Output = Result<(), Stop>>,
        note: &mut StreamNote,
    ) -> Result<(), StreamError> {
        match self.beside(download).await? {
            Ok(()) => note.response_received = Some(self.since.elapsed()),
            Err(Stop::Receiver(reason)) => return Err(StreamError::ClientReset(reason)),
            Err(Stop::Source(error)) => return Err(error),
        }
        poll_fn(|cx| self.poll(cx)).await?;
        note.request_sent = self.sent;
        Ok(())
    }
}
