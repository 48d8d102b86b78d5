//! A conversation over a stream: questions in, answers out as they get ready.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use crate::Tasks;

/// How long answers may take to be written once we stop, or once the peer asks nothing more.
const FLUSH: Duration = Duration::from_secs(1);

/// What a peer may do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Questions under way at a time.
    pub pipeline: usize,
    /// Nothing is read while so many bytes of answers wait to be written.
    pub max_output: usize,
    /// How long the peer may be silent; `None` if for ever.
    pub idle: Option<Duration>,
}

/// What became of the bytes at the front of the input.
pub enum Step<F> {
    /// The answer is among the output, or there is none.
    Answered,
    /// The answer is on its way.
    Asked(F),
    /// They can never become a question: nothing more is read.
    Broken,
    /// A question is not whole yet.
    More,
}

/// Answers questions until the peer closes, breaks the framing, is silent for too long, or we stop; those that are under
/// way are answered first.
///
/// `take` takes the next question off the front of its first buffer, and may put an answer behind its second one; `put`
/// puts those that come later.
///
/// # Errors
/// The connection's, if an answer could not be written.
pub async fn converse<F: Future>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    terms: Terms,
    tasks: Tasks,
    mut take: impl FnMut(&mut BytesMut, &mut BytesMut) -> Step<F>,
    put: impl Fn(&mut BytesMut, F::Output),
) -> io::Result<()> {
    let mut input = BytesMut::with_capacity(4096);
    let mut output = BytesMut::new();
    let mut pending = FuturesUnordered::new();
    let mut reading = true;
    let mut heard = Instant::now();
    let mut flush_by = None;
    loop {
        while reading && pending.len() < terms.pipeline && output.len() < terms.max_output {
            match take(&mut input, &mut output) {
                Step::Answered => {}
                Step::Asked(answer) => pending.push(answer),
                Step::Broken => reading = false,
                Step::More => break,
            }
            heard = Instant::now();
        }
        if !reading && pending.is_empty() && output.is_empty() {
            let _ = stream.shutdown().await; // it may be gone already
            return Ok(());
        }
        if !reading && pending.is_empty() && flush_by.is_none() {
            flush_by = Some(Instant::now() + FLUSH);
        }
        let room = reading && pending.len() < terms.pipeline && output.len() < terms.max_output;
        let silent_at = terms.idle.filter(|_| pending.is_empty()).map(|idle| heard + idle);
        let give_up = [silent_at, flush_by].into_iter().flatten().min();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        tokio::select! {
            read = reader.read_buf(&mut input), if room => match read {
                Ok(0) | Err(_) => reading = false,
                Ok(_) => {}
            },
            written = writer.write_buf(&mut output), if !output.is_empty() => {
                written?;
            }
            Some(answer) = pending.next() => put(&mut output, answer),
            () = tasks.stopping(), if reading => reading = false,
            () = tasks.quitting() => return Ok(()),
            () = async { sleep_until(give_up.unwrap_or_else(Instant::now)).await }, if give_up.is_some() => return Ok(()),
        }
    }
}
