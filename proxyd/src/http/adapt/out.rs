//! Messages on their way out: framed anew, counted, and no faster than they may be.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sluice_http1::{BodyFraming, put_chunk};
use sluice_io::pump::PumpOptions;
use sluice_io::throttle::{Refill, SharedLimit};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::counts::Counts;
use crate::error::TaskError;
use crate::http::upload;
use crate::icap::{BodySource, Flow, IcapError};

/// Why a message did not get through.
pub(super) type Stop = upload::Stop<io::Error, TaskError>;

/// Writes a head, then its body in `framing`.
pub(super) async fn send_message<B: BodySource>(
    head: &[u8],
    body: Option<B>,
    framing: BodyFraming,
    out: &mut Out<'_, impl AsyncWrite + Unpin>,
    limit: Duration,
) -> Result<(), Stop> {
    out.write(head, limit).await.map_err(Stop::Receiver)?;
    let Some(mut body) = body else { return Ok(()) };
    if framing == BodyFraming::None {
        return Ok(());
    }
    let mut left = match framing {
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Chunked | BodyFraming::None | BodyFraming::UntilClose => None,
    };
    let mut wire = Vec::new();
    let mut payload = Vec::new();
    loop {
        payload.clear();
        wire.clear();
        let flow = poll_fn(|cx| body.poll_data(cx, &mut payload))
            .await
            .map_err(Stop::Source)?;
        if let Some(left) = &mut left {
            // Nothing goes out that the head has not announced.
            *left = left
                .checked_sub(payload.len() as u64)
                .filter(|left| flow == Flow::Data || *left == 0)
                .ok_or_else(|| Stop::Source(IcapError::Length.into()))?;
        }
        let bytes = if framing == BodyFraming::Chunked {
            put_chunk(&mut wire, &payload);
            if flow == Flow::End {
                wire.extend_from_slice(b"0\r\n");
                wire.extend_from_slice(&body.trailers());
                wire.extend_from_slice(b"\r\n");
            }
            &wire
        } else {
            &payload
        };
        out.write_unlimited(bytes).await.map_err(Stop::Receiver)?;
        if flow == Flow::End {
            return Ok(());
        }
    }
}

/// The speed limits of one direction.
pub(super) struct Speed(Vec<Arc<SharedLimit>>);

impl Speed {
    pub(super) fn new(options: &PumpOptions, shared: Option<Arc<SharedLimit>>) -> Self {
        let own = options.rate.map(|rate| {
            SharedLimit::bytes(Refill {
                amount: rate.bytes,
                per: rate.per,
                most: 0,
            })
        });
        Self(own.into_iter().chain(shared).collect())
    }

    async fn pass(&self, bytes: usize) {
        for limit in &self.0 {
            limit.pass(bytes as u64).await;
        }
    }
}

/// A way out of an exchange.
pub(super) struct Out<'a, W> {
    writer: &'a mut W,
    counts: &'a Counts,
    counter: &'a AtomicU64,
    speed: &'a Speed,
}

impl<'a, W: AsyncWrite + Unpin> Out<'a, W> {
    pub(super) fn new(writer: &'a mut W, counts: &'a Counts, counter: &'a AtomicU64, speed: &'a Speed) -> Self {
        Self {
            writer,
            counts,
            counter,
            speed,
        }
    }

    /// Writes all of `bytes`, within a time.
    pub(super) async fn write(&mut self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        timeout(limit, self.write_unlimited(bytes))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes all of `bytes`; somebody else sees to it that it goes on.
    async fn write_unlimited(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.speed.pass(bytes.len()).await;
        self.writer.write_all(bytes).await?;
        self.writer.flush().await?;
        self.counts.add(self.counter, bytes.len());
        Ok(())
    }
}
