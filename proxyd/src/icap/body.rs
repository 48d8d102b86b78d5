//! Bodies on their way, whatever frames them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sluice_http1::ChunkScanner;
use tokio::time::{Instant, Sleep, sleep};

use super::connection::Connection;
use super::error::IcapError;
use super::service::Service;
use super::upload::{Pushed, Upload};
use crate::error::TaskError;

/// What came of asking for more of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Some bytes were appended.
    Data,
    /// The body is complete.
    End,
}

/// A body that can be asked for its bytes, without the framing that it came in.
pub(crate) trait BodySource {
    /// Whether somebody else sees to it that it does not keep silent for ever: it may take any time then.
    const MAY_REST: bool = false;

    /// Appends what there is, a moderate amount at a time.
    ///
    /// # Errors
    /// Why there is no more.
    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>>;

    /// Trailer lines, each with its CRLF, once the body is complete.
    fn trailers(&mut self) -> Vec<u8>;
}

/// A body as it goes on.
pub(crate) enum Body<S> {
    /// What the service has sent in the body's stead.
    Adapted(Box<FromService<S>>),
    /// The body as it came, with what was taken off it before.
    Same { held: Vec<u8>, ended: bool, source: S },
}

impl<S: BodySource> BodySource for Body<S> {
    const MAY_REST: bool = S::MAY_REST;

    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        match self {
            Self::Adapted(body) => body.poll_data(cx, out),
            Self::Same { held, .. } if !held.is_empty() => {
                out.append(held);
                Poll::Ready(Ok(Flow::Data))
            }
            Self::Same { ended: true, .. } => Poll::Ready(Ok(Flow::End)),
            Self::Same { source, ended, .. } => {
                let flow = ready!(source.poll_data(cx, out))?;
                *ended = flow == Flow::End;
                Poll::Ready(Ok(flow))
            }
        }
    }

    fn trailers(&mut self) -> Vec<u8> {
        match self {
            Self::Adapted(body) => body.scanner.trailers().to_vec(),
            Self::Same { source, .. } => source.trailers(),
        }
    }
}

/// The body of an answer, read while the rest of the message may still be on its way to the service.
pub(crate) struct FromService<S> {
    pub(super) service: Arc<Service>,
    /// Gone once the body is complete.
    pub(super) connection: Option<Connection>,
    pub(super) scanner: ChunkScanner,
    pub(super) upload: Upload<S>,
    pub(super) keep_alive: bool,
    pub(super) idle: Idle,
    /// The last look ended in a wait; else its receiver has let it wait.
    pub(super) waiting: bool,
}

impl<S: BodySource> FromService<S> {
    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        let before = out.len();
        if !std::mem::take(&mut self.waiting) {
            self.idle.moved();
        }
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(Ok(Flow::End));
            };
            match self.upload.poll_push(cx, &mut connection.wire)? {
                Pushed::Moved => self.idle.moved(),
                Pushed::Done | Pushed::Waiting => {}
            }
            let mut rest = connection.input.filled();
            let there = rest.len();
            while let Some(payload) = self.scanner.payload(&mut rest).map_err(IcapError::from)? {
                out.extend_from_slice(payload);
            }
            let used = there - rest.len();
            connection.input.consume(used);
            if self.scanner.is_done() {
                self.finish();
            }
            if out.len() > before {
                return Poll::Ready(Ok(Flow::Data));
            }
            if self.scanner.is_done() {
                return Poll::Ready(Ok(Flow::End));
            }
            let Some(Connection { wire, input, .. }) = &mut self.connection else {
                return Poll::Ready(Ok(Flow::End));
            };
            match input.poll_fill(cx, wire) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(IcapError::Closed.into())),
                Poll::Ready(Ok(_)) => self.idle.moved(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(IcapError::Read(error).into())),
                Poll::Pending => {
                    self.waiting = true;
                    let Some(error) = ready!(self.idle.poll(cx, &self.upload)) else {
                        continue;
                    };
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// The answer is read to its end: the connection may serve again if the message was sent to its end, too (IC-10).
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.keep_alive
            && self.upload.is_done()
        {
            self.service.release(connection);
        }
    }
}

/// A limit for the time in which nothing moves.
pub(super) struct Idle {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: Box::pin(sleep(limit)),
        }
    }

    /// Something has moved.
    pub(super) fn moved(&mut self) {
        self.sleep.as_mut().reset(Instant::now() + self.limit);
    }

    /// Ready once it is over, with whose silence it was; with nothing if it begins anew.
    pub(super) fn poll<S: BodySource>(&mut self, cx: &mut Context<'_>, upload: &Upload<S>) -> Poll<Option<TaskError>> {
        ready!(self.sleep.as_mut().poll(cx));
        let error = upload.blame(self.limit);
        if error.is_none() {
            self.moved();
        }
        Poll::Ready(error)
    }
}
