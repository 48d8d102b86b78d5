//! The request of a stream on its way, beside what is answered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use h2::{Reason, RecvStream};
use http::Response;
use tokio::time::Instant;

use super::stream::{Answer, StreamError, StreamNote};
use super::until;
use crate::http::upload;

/// Why a body did not come through. Of a request that the upstream wants no more of, the client is told behind the whole
/// answer, as the stream is dropped.
pub(super) type Stop = upload::Stop<Reason, StreamError>;

/// What it is to a stream that its answer did not come through to the client.
pub(super) fn unanswered(stop: Stop) -> StreamError {
    match stop {
        Stop::Receiver(reason) => StreamError::ClientReset(reason),
        Stop::Source(error) => error,
    }
}

/// The request's body on its way.
pub(super) type Upload<F> = upload::Upload<F>;

impl<F: Future<Output = Result<(), Stop>> + Unpin> Upload<F> {
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
        let mut ends_at = None;
        loop {
            tokio::select! {
                biased;
                answer = answer.as_mut() => return answer,
                sent = poll_fn(|cx| self.poll(cx)) => {
                    sent?;
                    ends_at = Some(Instant::now() + limit);
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
            Ok(()) => note.response_received = Some(note.started.elapsed()),
            Err(stop) => return Err(unanswered(stop)),
        }
        if !self.is_over() {
            poll_fn(|cx| self.poll(cx)).await?;
        }
        if let Some(at) = self.done_at() {
            note.request_sent.get_or_insert(at - note.started);
        }
        Ok(())
    }
}
