//! Requests with their lengths in, responses out as they get ready.

use std::sync::Arc;

use bytes::BytesMut;
use sluice_lifecycle::{Step, Tasks, Terms};
use sluice_telemetry::{debug, warn};
use sluice_wire::mint::{
    ErrorCode, Form, MintError, MintRequest, MintResponse, Rejected, Service, Usage, put_response, take_frame,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::mint::{Asker, Minter};

const TERMS: Terms = Terms {
    pipeline: 1024,
    max_output: 1024 * 1024,
    idle: None,
};

/// Answers requests until the peer closes, breaks the framing, or we stop; those that are under way are answered first.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    minter: Arc<Minter>,
    asker: Asker,
    tasks: Tasks,
) {
    let take = |input: &mut BytesMut, output: &mut BytesMut| {
        let message = match take_frame(input) {
            Ok(Some(message)) => message,
            Ok(None) => return Step::More,
            Err(error) => {
                debug!("a stream was closed: {}", error);
                return Step::Broken;
            }
        };
        minter.stats.received.add(1);
        match MintRequest::take(&message, Form::Stream) {
            Ok(request) => {
                let minter = Arc::clone(&minter);
                Step::Asked(async move { minter.answer(request, asker).await })
            }
            Err(rejected) => {
                minter.stats.invalid.add(1);
                put(output, &refusal(&rejected), &minter);
                Step::Answered
            }
        }
    };
    let put = |output: &mut BytesMut, response| put(output, &response, &minter);
    if sluice_lifecycle::converse(stream, TERMS, tasks, take, put)
        .await
        .is_err()
    {
        minter.stats.responses_failed.add(1);
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
