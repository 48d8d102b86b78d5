//! Passing a body on.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::stream::StreamError;
use super::upload::Stop;

/// Passes data and trailers on until their end, which is passed on as well; `broken` says what it means that their sender
/// breaks off.
pub(super) async fn pass(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    broken: fn(h2::Error) -> StreamError,
) -> Result<(), Stop> {
    let of_sender = |error| Stop::Source(broken(error));
    while let Some(data) = next(from, to, of_sender).await? {
        let last = from.is_end_stream();
        // An empty frame that ends nothing says nothing.
        if data.is_empty() && !last {
            continue;
        }
        // It fails for a stream that has been reset, which the next look at it tells.
        let sent = |n| drop(from.flow_control().release_capacity(n));
        send(data, last, to, sent).await.map_err(Stop::Receiver)?;
        if last {
            return Ok(());
        }
    }
    let trailers = poll_fn(|cx| from.poll_trailers(cx)).await.map_err(of_sender)?;
    match trailers {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
    .map_err(|error| Stop::Receiver(receiver(error)))
}

/// The next data, unless the receiver does not want it any more.
async fn next(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    of_sender: impl Fn(h2::Error) -> Stop,
) -> Result<Option<Bytes>, Stop> {
    poll_fn(|cx| match from.poll_data(cx) {
        Poll::Ready(data) => Poll::Ready(data.transpose().map_err(&of_sender)),
        Poll::Pending => to
            .poll_reset(cx)
            .map(|reset| Err(Stop::Receiver(reset.unwrap_or_else(receiver)))),
    })
    .await
}

/// Sends `data` as the receiver's windows allow, and tells `sent` how much went out each time.
///
/// # Errors
/// Why the receiver does not want it.
pub(super) async fn send(
    mut data: Bytes,
    last: bool,
    to: &mut SendStream<Bytes>,
    mut sent: impl FnMut(usize),
) -> Result<(), Reason> {
    loop {
        to.reserve_capacity(data.len());
        if !data.is_empty() && to.capacity() == 0 {
            poll_fn(|cx| {
                if let Poll::Ready(reset) = to.poll_reset(cx) {
                    return Poll::Ready(Err(reset.unwrap_or_else(receiver)));
                }
                match to.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => Poll::Ready(Ok(())),
                    Poll::Ready(Some(Err(error))) => Poll::Ready(Err(receiver(error))),
                    Poll::Ready(None) => Poll::Ready(Err(Reason::CANCEL)),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await?;
        }
        let part = data.split_to(to.capacity().min(data.len()));
        let n = part.len();
        let end = last && data.is_empty();
        to.send_data(part, end).map_err(receiver)?;
        sent(n);
        if data.is_empty() {
            return Ok(());
        }
    }
}

/// Why a receiver does not want more of a body that cannot be sent to it.
pub(super) fn receiver(error: h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::CANCEL)
}
