//! Bodies of HTTP/2 on their way through services.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::heads::{trailer_lines, trailer_map};
use crate::audit::h2::body::{receiver, send};
use crate::audit::h2::stream::{StreamError, client_error, upstream_error};
use crate::audit::h2::upload::Stop;
use crate::error::TaskError;
use crate::icap::{BodySource, Flow, IcapError};

/// The body of a message as it comes in.
pub(super) struct Incoming {
    stream: RecvStream,
    /// What it means that its sender breaks off.
    broken: fn(h2::Error) -> StreamError,
    /// Bytes that are on their way, and that the sender has not got back as window.
    owed: usize,
    ended: bool,
    trailers: Vec<u8>,
}

impl Incoming {
    pub(super) fn of_client(stream: RecvStream) -> Self {
        Self::new(stream, client_error)
    }

    pub(super) fn of_upstream(stream: RecvStream) -> Self {
        Self::new(stream, upstream_error)
    }

    fn new(stream: RecvStream, broken: fn(h2::Error) -> StreamError) -> Self {
        Self {
            stream,
            broken,
            owed: 0,
            ended: false,
            trailers: Vec::new(),
        }
    }

    fn broken(&self, error: h2::Error) -> TaskError {
        TaskError::Stream(Box::new((self.broken)(error)))
    }
}

impl BodySource for Incoming {
    /// Both ends of the connection prove by PINGs that they are there.
    const MAY_REST: bool = true;

    fn poll_data(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Flow, TaskError>> {
        // Who asks for more has passed on what there was. It fails for a stream that has been reset, as shows below.
        let _ = self
            .stream
            .flow_control()
            .release_capacity(std::mem::take(&mut self.owed));
        while !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                // An empty frame says nothing but that it is the last one.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    out.extend_from_slice(&data);
                    self.owed = data.len();
                    return Poll::Ready(Ok(Flow::Data));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|error| self.broken(error))?;
                    self.trailers = trailers.map_or_else(Vec::new, |trailers| trailer_lines(&trailers));
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(Flow::End))
    }

    fn trailers(&mut self) -> Vec<u8> {
        self.trailers.clone()
    }
}

/// Sends a body to its end; it has `length` bytes, if that is known.
pub(super) async fn send_body<B: BodySource>(
    mut body: B,
    mut length: Option<u64>,
    to: &mut SendStream<Bytes>,
) -> Result<(), Stop> {
    loop {
        let mut payload = Vec::new();
        let flow = poll_fn(|cx| match body.poll_data(cx, &mut payload) {
            Poll::Ready(flow) => Poll::Ready(flow.map_err(|error| Stop::Source(error.into()))),
            Poll::Pending => {
                let reset = ready!(to.poll_reset(cx));
                Poll::Ready(Err(Stop::Receiver(reset.unwrap_or_else(receiver))))
            }
        })
        .await?;
        if let Some(left) = &mut length {
            // Nothing goes out that the head has not announced.
            *left = left
                .checked_sub(payload.len() as u64)
                .filter(|left| flow == Flow::Data || *left == 0)
                .ok_or_else(|| Stop::Source(TaskError::from(IcapError::Length).into()))?;
        }
        let trailers = match flow {
            Flow::Data => None,
            Flow::End => Some(trailer_map(&body.trailers())),
        };
        let is_last = trailers.as_ref().is_some_and(HeaderMap::is_empty);
        if is_last || !payload.is_empty() {
            let sent = send(payload.into(), is_last, to, |_| ()).await;
            sent.map_err(Stop::Receiver)?;
        }
        match trailers {
            None => {}
            Some(trailers) if trailers.is_empty() => return Ok(()),
            Some(trailers) => {
                let sent = to.send_trailers(trailers);
                return sent.map_err(|error| Stop::Receiver(receiver(error)));
            }
        }
    }
}
