//! Queries with their lengths in, replies out as they get ready.

use bytes::BytesMut;
use sluice_lifecycle::{Step, Tasks, Terms};
use sluice_wire::dns::{Rejected, Request, put_frame, take_frame};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{InCharge, Taken, take};

/// The longest query: one name of 255 bytes, a resolver's name, options of other programs.
const MAX_QUERY: usize = 4096;

/// The longest reply; addresses beyond it are no use to anybody.
const MAX_REPLY: usize = 65_535;

/// Nothing is read while so much waits to be written.
pub(super) const MAX_OUTPUT: usize = 256 * 1024;

/// Answers queries until the peer closes, breaks the framing, is silent for too long, or we stop; those that are under
/// way are answered first.
///
/// `name` tells which resolver a request is for.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    resolvers: InCharge,
    name: impl Fn(&Request) -> String,
    terms: Terms,
    tasks: Tasks,
) {
    let take = |input: &mut BytesMut, output: &mut BytesMut| {
        let message = match take_frame(input, MAX_QUERY) {
            Ok(Some(message)) => message,
            Ok(None) => return Step::More,
            Err(_) => return Step::Broken,
        };
        match Request::take(&message) {
            Ok(request) => {
                let name = name(&request);
                match take(request, &resolvers.load(), &name, MAX_REPLY) {
                    Taken::Answered(reply) => put(output, &reply),
                    Taken::Asked(asked) => return Step::Asked(asked.answer(MAX_REPLY)),
                }
            }
            Err(Rejected::Answered { reply, .. }) => put(output, &reply),
            Err(Rejected::Ignored) => return Step::Broken,
        }
        Step::Answered
    };
    let put = |output: &mut BytesMut, reply: Vec<u8>| put(output, &reply);
    // Nobody is left who would want to know that it failed.
    let _ = sluice_lifecycle::converse(stream, terms, tasks, take, put).await;
}

fn put(output: &mut BytesMut, reply: &[u8]) {
    // A reply is at most MAX_REPLY long, which two bytes of length can say.
    let _ = put_frame(output, reply);
}
