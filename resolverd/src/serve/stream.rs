//! A conversation over a stream: queries with their lengths in, replies out as they get ready.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use sluice_lifecycle::Tasks;
use sluice_wire::dns::{Rejected, Request, put_frame, take_frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

use super::{InCharge, Taken, take};

/// The longest query: one name of 255 bytes, a resolver's name, options of other programs.
const MAX_QUERY: usize = 4096;

/// The longest reply; addresses beyond it are no use to anybody.
const MAX_REPLY: usize = 65_535;

/// Nothing is read while so much waits to be written.
const MAX_OUTPUT: usize = 256 * 1024;

/// How long replies may take to be written once we stop.
const FLUSH: Duration = Duration::from_secs(1);

/// What a peer may do.
pub(super) struct Terms {
    /// Queries under way at a time.
    pub(super) pipeline: usize,
    /// How long it may be silent; `None` if for ever.
    pub(super) idle: Option<Duration>,
}

/// Answers queries until the peer closes, breaks the framing, is silent for too long, or we stop; those that are under
/// way are answered first.
///
/// `name` tells which resolver a request is for.
pub(super) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    resolvers: InCharge,
    name: impl Fn(&Request) -> String,
    terms: Terms,
    tasks: Tasks,
) {
    let mut input = BytesMut::with_capacity(4096);
    let mut output = BytesMut::new();
    let mut pending = FuturesUnordered::new();
    let mut reading = true;
    let mut heard = Instant::now();
    let mut flush_by = None;
    loop {
        while reading && pending.len() < terms.pipeline && output.len() < MAX_OUTPUT {
            let message = match take_frame(&mut input, MAX_QUERY) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => {
                    reading = false;
                    break;
                }
            };
            heard = Instant::now();
            match Request::take(&message) {
                Ok(request) => {
                    let name = name(&request);
                    match take(request, &resolvers.load(), &name, MAX_REPLY) {
                        Taken::Answered(reply) => frame(&mut output, &reply),
                        Taken::Asked(asked) => pending.push(asked.answer(MAX_REPLY)),
                    }
                }
                Err(Rejected::Answered { reply, .. }) => frame(&mut output, &reply),
                Err(Rejected::Ignored) => reading = false,
            }
        }
        if !reading && pending.is_empty() && output.is_empty() {
            let _ = stream.shutdown().await; // it may be gone already
            return;
        }
        let room = reading && pending.len() < terms.pipeline && output.len() < MAX_OUTPUT;
        let silent_at = terms.idle.filter(|_| pending.is_empty()).map(|idle| heard + idle);
        let give_up = [silent_at, flush_by].into_iter().flatten().min();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        tokio::select! {
            read = reader.read_buf(&mut input), if room => match read {
                Ok(0) | Err(_) => reading = false,
                Ok(_) => {}
            },
            written = writer.write_buf(&mut output), if !output.is_empty() => if written.is_err() {
                return;
            },
            Some(reply) = pending.next() => frame(&mut output, &reply),
            () = tasks.stopping(), if reading => reading = false,
            () = tasks.quitting() => return,
            () = async { sleep_until(give_up.unwrap_or_else(Instant::now)).await }, if give_up.is_some() => return,
        }
        if !reading && pending.is_empty() && flush_by.is_none() {
            flush_by = Some(Instant::now() + FLUSH);
        }
    }
}

fn frame(output: &mut BytesMut, reply: &[u8]) {
    // a reply is at most MAX_REPLY long, which two bytes of length can say
    let _ = put_frame(output, reply);
}
