//! Requests and answers on the connection to the generator.

use bytes::BytesMut;
use sluice_wire::mint::{Form, FrameError, MintResponse, take_frame};

use super::state::State;
use crate::peer::Speaks;

/// Why a stream of answers is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it is no answer of a generator")]
    NotAnAnswer,
}

impl Speaks for State {
    type Answer = MintResponse;
    type Malformed = Malformed;

    fn take(input: &mut BytesMut) -> Result<Option<MintResponse>, Malformed> {
        let Some(message) = take_frame(input)? else {
            return Ok(None);
        };
        let answer = MintResponse::take(&message, Form::Stream).map_err(|_| Malformed::NotAnAnswer)?;
        Ok(Some(answer))
    }

    fn read(packet: &[u8]) -> Option<MintResponse> {
        MintResponse::take(packet, Form::Datagram).ok()
    }

    fn frame(question: &[u8], output: &mut BytesMut) {
        // The frame is part of the message.
        output.extend_from_slice(question);
    }
}
