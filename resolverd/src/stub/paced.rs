//! Messages of a connection, a few at a time.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt};
use hickory_net::{NetError, proto::op::SerialMessage, xfer::DnsClientStream};

/// The messages that are handed over before others get their turn.
const MOST_AT_ONCE: usize = 64;

/// A connection that pauses after some messages, and has itself polled again.
///
/// hickory's multiplexer leaves off by itself after 100 messages, but then forgets to come back: answers that have
/// arrived already would lie there until a query's time is over.
pub(super) struct Paced<S> {
    stream: S,
    in_a_row: usize,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, in_a_row: 0 }
    }
}

impl<S: Stream + Unpin> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.in_a_row >= MOST_AT_ONCE {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.stream.poll_next_unpin(cx);
        self.in_a_row = if polled.is_ready() { self.in_a_row + 1 } else { 0 };
        polled
    }
}

impl<S> DnsClientStream for Paced<S>
where
    S: DnsClientStream + Stream<Item = Result<SerialMessage, NetError>>,
{
    type Time = S::Time;

    fn name_server_addr(&self) -> SocketAddr {
        self.stream.name_server_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use futures_util::stream;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_leaves_off_is_called_back_until_the_end() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut paced = Paced::new(stream::iter(0..MOST_AT_ONCE * 3));
        let mut next = 0;
        let mut pauses = 0;
        loop {
            match paced.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(n)) => {
                    assert_eq!(n, next);
                    next += 1;
                }
                Poll::Ready(None) => break,
                Poll::Pending => {
                    pauses += 1;
                    assert_eq!(next, MOST_AT_ONCE * pauses);
                    assert_eq!(woken.0.load(Ordering::Relaxed), pauses);
                }
            }
        }
        assert_eq!((next, pauses), (MOST_AT_ONCE * 3, 3));
    }

    #[test]
    fn a_connection_that_has_nothing_is_not_called_back() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut paced = Paced::new(stream::pending::<()>());
        for _ in 0..MOST_AT_ONCE * 2 {
            assert!(paced.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
}
