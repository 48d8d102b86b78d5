//! A conversation over a stream: requests with their lengths in, responses out as they get ready.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use sluice_lifecycle::Tasks;
use sluice_telemetry::{debug, warn};
use sluice_wire::mint::{
    ErrorCode, Form, MintError, MintRequest, MintResponse, Rejected, Service, Usage, put_response, take_frame,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use crate::mint::{Asker, Minter};

/// The most requests under way on one connection.
const PIPELINE: usize = 1024;

/// Nothing is read while so much waits to be written.
const MAX_OUTPUT: usize = 1024 * 1024;

/// How long responses may take to be written once we stop, or once the peer takes none.
const FLUSH: Duration = Duration::from_secs(1);

/// Answers requests until the peer closes, breaks the framing, or we stop; those that are under way are answered first.
pub(super) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    minter: Arc<Minter>,
    asker: Asker,
    tasks: Tasks,
) {
    let mut input = BytesMut::with_capacity(4096);
    let mut output = BytesMut::new();
    let mut pending = FuturesUnordered::new();
    let mut reading = true;
    let mut flush_by = None;
    loop {
        while reading && pending.len() < PIPELINE && output.len() < MAX_OUTPUT {
            let message = match take_frame(&mut input) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    debug!("a stream was closed: {}", error);
                    reading = false;
                    break;
                }
            };
            minter.stats.received.add(1);
            match MintRequest::take(&message, Form::Stream) {
                Ok(request) => {
                    let minter = Arc::clone(&minter);
                    pending.push(async move { minter.answer(request, asker).await });
                }
                Err(rejected) => {
                    minter.stats.invalid.add(1);
                    put(&mut output, &refusal(&rejected), &minter);
                }
            }
        }
        if !reading && pending.is_empty() && output.is_empty() {
            let _ = stream.shutdown().await; // it may be gone already
            return;
        }
        if !reading && pending.is_empty() && flush_by.is_none() {
            flush_by = Some(Instant::now() + FLUSH);
        }
        let room = reading && pending.len() < PIPELINE && output.len() < MAX_OUTPUT;
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        tokio::select! {
            read = reader.read_buf(&mut input), if room => match read {
                Ok(0) | Err(_) => reading = false,
                Ok(_) => {}
            },
            written = writer.write_buf(&mut output), if !output.is_empty() => if written.is_err() {
                minter.stats.responses_failed.add(1);
                return;
            },
            Some(response) = pending.next() => put(&mut output, &response, &minter),
            () = tasks.stopping(), if reading => reading = false,
            () = tasks.quitting() => return,
            () = async { sleep_until(flush_by.unwrap_or_else(Instant::now)).await }, if flush_by.is_some() => return,
        }
    }
}

/// The answer to what is no request.
fn refusal(rejected: &Rejected) -> MintResponse {
    MintResponse {
        id: rejected.id,
        host: String::new(),
        service: Service::Http,
        usage: Usage::TlsServer,
        outcome: Err(MintError {
            code: ErrorCode::BadRequest,
            text: rejected.problem.to_string(),
        }),
    }
}

fn put(output: &mut BytesMut, response: &MintResponse, minter: &Minter) {
    minter.stats.responses.add(1);
    let Err(error) = put_response(output, response, Form::Stream) else {
        return;
    };
    // The CA's chain was measured when it was read, so this is a leaf beyond measure.
    warn!("a certificate can not be sent: {}", error; "host" => &response.host);
    let instead = MintResponse {
        outcome: Err(MintError {
            code: ErrorCode::Failed,
            text: error.to_string(),
        }),
        ..response.clone()
    };
    let _ = put_response(output, &instead, Form::Stream); // an error fits
}
