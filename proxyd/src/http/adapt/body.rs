//! Bodies of HTTP/1 without their framing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use sluice_http1::{BodyFraming, ChunkScanner, Limits};
use sluice_io::buffer::ReadBuffer;
use tokio::io::AsyncRead;

use super::counts::Counts;
use crate::error::TaskError;
use crate::icap::{BodySource, Flow};

/// A body's framing as it comes in.
pub(super) enum Framed {
    Chunked(Box<ChunkScanner>),
    Length(u64),
    UntilClose,
}

impl Framed {
    pub(super) fn new(framing: BodyFraming, limits: &Limits) -> Self {
        match framing {
            BodyFraming::None => Self::Length(0),
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked(Box::new(ChunkScanner::keeping_trailers(limits))),
            BodyFraming::UntilClose => Self::UntilClose,
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_done(),
            Self::Length(left) => *left == 0,
            Self::UntilClose => false,
        }
    }
}

/// Where a body comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Upstream,
}

/// The body of a message of HTTP/1.
pub(super) struct Incoming<'a, R> {
    pub(super) reader: &'a mut R,
    /// What has come behind the head already; what comes behind the body stays there.
    pub(super) buf: &'a mut ReadBuffer,
    pub(super) framed: &'a mut Framed,
    pub(super) counts: &'a Counts,
    pub(super) side: Side,
    /// Set once the body is complete.
    pub(super) ended: &'a AtomicBool,
}

impl<R: AsyncRead + Unpin> Incoming<'_, R> {
    /// Takes payload off the buffer.
    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        let filled = self.buf.filled();
        let mut rest = filled;
        match self.framed {
            Framed::Chunked(chunks) => {
                let invalid = |error| match self.side {
                    Side::Client => TaskError::InvalidRequestBody(error),
                    Side::Upstream => TaskError::InvalidResponseBody(error),
                };
                while let Some(payload) = chunks.payload(&mut rest).map_err(invalid)? {
                    out.extend_from_slice(payload);
                }
            }
            Framed::Length(left) => {
                let take = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&rest[..take]);
                *left -= take as u64;
                rest = &rest[take..];
            }
            Framed::UntilClose => {
                out.extend_from_slice(rest);
                rest = &[];
            }
        }
        let used = filled.len() - rest.len();
        if self.side == Side::Client {
            self.counts.add(&self.counts.client_read, used);
        }
        self.buf.consume(used);
        Ok(())
    }

    fn end(&self) -> Flow {
        self.ended.store(true, Ordering::Relaxed);
        Flow::End
    }
}

impl<R: AsyncRead + Unpin> BodySource for Incoming<'_, R> {
    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        let before = out.len();
        loop {
            if !self.buf.is_empty() && !self.framed.is_done() {
                self.take(out)?;
            }
            if self.framed.is_done() {
                // Whoever looks whether all was read need not ask once more.
                self.ended.store(true, Ordering::Relaxed);
            }
            if out.len() > before {
                return Poll::Ready(Ok(Flow::Data));
            }
            if self.framed.is_done() {
                return Poll::Ready(Ok(self.end()));
            }
            let filled = ready!(self.buf.poll_fill(cx, self.reader));
            match (filled, self.side) {
                (Ok(0), Side::Upstream) if matches!(self.framed, Framed::UntilClose) => {
                    return Poll::Ready(Ok(self.end()));
                }
                (Ok(0), Side::Client) => return Poll::Ready(Err(TaskError::ClosedEarlyByClient)),
                (Ok(0), Side::Upstream) => return Poll::Ready(Err(TaskError::ClosedByUpstream)),
                (Ok(n), Side::Upstream) => self.counts.add(&self.counts.remote_read, n),
                (Ok(_), Side::Client) => {}
                (Err(error), Side::Client) => return Poll::Ready(Err(TaskError::ClientRead(error))),
                (Err(error), Side::Upstream) => return Poll::Ready(Err(TaskError::UpstreamRead(error))),
            }
        }
    }

    fn trailers(&mut self) -> Vec<u8> {
        match self.framed {
            Framed::Chunked(chunks) if chunks.is_done() => chunks.trailers().to_vec(),
            Framed::Chunked(_) | Framed::Length(_) | Framed::UntilClose => Vec::new(),
        }
    }
}
