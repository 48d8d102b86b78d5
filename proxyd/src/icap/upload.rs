//! A message on its way to the service.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use sluice_http1::put_chunk;
use sluice_icap::LAST_CHUNK_IEOF;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::body::{BodySource, Flow};
use super::error::IcapError;
use super::service::poll_write_all;
use crate::error::TaskError;

/// Bytes of a preview at most, whatever the service wants: a shorter one is always allowed.
pub(super) const MAX_PREVIEW: usize = 64 * 1024;
/// A body without preview that is there as a whole and not longer than this is kept, so that it may stay as it is.
const MAX_WHOLE: usize = 64 * 1024;

/// What a look at an upload found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Nothing more is sent.
    Done,
    /// Something went out.
    Moved,
    /// The service takes no more now, or the body has no more yet.
    Waiting,
}

/// How the body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing follows what is queued, until the service asks for it.
    Paused,
    /// Chunks follow as they come.
    Streaming,
    /// All is queued.
    Ended,
    /// The service takes no more; its answer may tell why.
    Broken,
}

/// What is sent, and what of it is kept.
pub(super) struct Upload<S> {
    source: Option<S>,
    /// Taken off the source and not yet sent, or kept to be sent once more.
    held: Vec<u8>,
    /// So many of them went as a preview.
    held_sent: usize,
    /// The source has no more.
    ended: bool,
    /// Everything that was taken off the source is in `held`.
    complete: bool,
    out: Vec<u8>,
    at: usize,
    stage: Stage,
    /// The last wait was for the source.
    starved: bool,
}

/// How much of a body goes before the service has a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// There is no body.
    Empty,
    /// So many bytes are a preview.
    Preview(usize),
    /// All of it, as it comes.
    Stream,
    /// All of it, and it is kept.
    Whole,
}

impl<S: BodySource> Upload<S> {
    pub(super) fn new(source: Option<S>) -> Self {
        Self {
            ended: source.is_none(),
            source,
            held: Vec::new(),
            held_sent: 0,
            complete: true,
            out: Vec::new(),
            at: 0,
            stage: Stage::Paused,
            starved: false,
        }
    }

    /// Looks at the body and decides how to send it. `preview` is what the service wants, if it wants one.
    ///
    /// # Errors
    /// The source's.
    pub(super) async fn plan(&mut self, preview: Option<u32>, limit: Duration) -> Result<Plan, TaskError> {
        if self.source.is_none() {
            return Ok(Plan::Empty);
        }
        let wanted = preview.map(|bytes| usize::try_from(bytes).unwrap_or(MAX_PREVIEW).min(MAX_PREVIEW));
        let Some(wanted) = wanted else {
            // What is there now may be all.
            while !self.ended && self.held.len() < MAX_WHOLE && self.look().await? {}
            return Ok(if self.ended { Plan::Whole } else { Plan::Stream });
        };
        if wanted == 0 {
            return Ok(Plan::Preview(0));
        }
        let gathered = timeout(limit, async {
            while !self.ended && self.held.len() < wanted {
                self.more().await?;
            }
            Ok::<_, TaskError>(())
        });
        // A body that is late is not an empty one (IC-05).
        match gathered.await {
            Ok(gathered) => gathered?,
            Err(_) if self.held.is_empty() => return Ok(Plan::Stream),
            Err(_) => return Ok(Plan::Preview(self.held.len().min(wanted))),
        }
        if !self.ended && self.held.len() == wanted {
            // It may end just there.
            self.look().await?;
        }
        Ok(Plan::Preview(wanted.min(self.held.len())))
    }

    async fn more(&mut self) -> Result<(), TaskError> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let flow = poll_fn(|cx| source.poll_data(cx, &mut self.held)).await?;
        self.ended = flow == Flow::End;
        Ok(())
    }

    /// Takes what is there without waiting; says whether there was something.
    async fn look(&mut self) -> Result<bool, TaskError> {
        let Some(source) = &mut self.source else {
            return Ok(false);
        };
        let polled = poll_fn(|cx| Poll::Ready(source.poll_data(cx, &mut self.held))).await;
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(flow) => {
                self.ended = flow? == Flow::End;
                Ok(true)
            }
        }
    }

    /// Queues the heads and what goes before the service has a say.
    pub(super) fn begin(&mut self, heads: Vec<u8>, plan: Plan) {
        self.out = heads;
        self.at = 0;
        match plan {
            Plan::Empty => self.stage = Stage::Ended,
            Plan::Preview(bytes) => {
                put_chunk(&mut self.out, self.held.get(..bytes).unwrap_or_default());
                if self.ended && bytes == self.held.len() && !self.has_trailers() {
                    self.out.extend_from_slice(LAST_CHUNK_IEOF);
                    self.stage = Stage::Ended;
                } else {
                    self.out.extend_from_slice(b"0\r\n\r\n");
                    self.held_sent = bytes;
                    self.stage = Stage::Paused;
                }
            }
            Plan::Stream => self.go_on(),
            Plan::Whole => {
                put_chunk(&mut self.out, &self.held);
                self.put_end();
                self.stage = Stage::Ended;
            }
        }
    }

    /// What follows the preview is sent, and nothing is kept any more.
    pub(super) fn go_on(&mut self) {
        let sent = std::mem::take(&mut self.held_sent);
        put_chunk(&mut self.out, self.held.get(sent..).unwrap_or_default());
        self.held = Vec::new();
        self.complete = false;
        if self.ended {
            self.put_end();
            self.stage = Stage::Ended;
        } else {
            self.stage = Stage::Streaming;
        }
    }

    fn put_end(&mut self) {
        self.out.extend_from_slice(b"0\r\n");
        if let Some(source) = &mut self.source {
            self.out.extend_from_slice(&source.trailers());
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn has_trailers(&mut self) -> bool {
        self.source.as_mut().is_some_and(|source| !source.trailers().is_empty())
    }

    /// Whether nothing but a further request can follow on the connection.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Paused) && self.at == self.out.len()
    }

    /// Whether a preview was sent that the service may ask to be gone on with.
    pub(super) fn is_paused(&self) -> bool {
        self.stage == Stage::Paused
    }

    /// Whether the whole body can still be sent again.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Gives the body back as it came.
    pub(super) fn into_parts(self) -> (Option<S>, Vec<u8>, bool) {
        (self.source, self.held, self.ended)
    }

    /// Whose silence it was; `None` for a source that may keep silent.
    pub(super) fn blame(&self, limit: Duration) -> Option<TaskError> {
        if !(self.starved && self.stage == Stage::Streaming) {
            return Some(IcapError::Timeout(limit).into());
        }
        (!S::MAY_REST).then_some(TaskError::Idle)
    }

    /// Sends what there is.
    ///
    /// # Errors
    /// The source's; if the service takes no more, its answer is waited for all the same.
    pub(super) fn poll_push(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Pushed, TaskError> {
        let mut moved = false;
        self.starved = false;
        loop {
            if self.stage == Stage::Broken {
                return Ok(Pushed::Done);
            }
            let before = self.at;
            let written = poll_write_all(cx, wire, &self.out, &mut self.at);
            moved |= self.at > before;
            match written {
                Poll::Pending => return Ok(if moved { Pushed::Moved } else { Pushed::Waiting }),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.stage = Stage::Broken;
                    continue;
                }
            }
            if self.stage != Stage::Streaming {
                return Ok(if moved { Pushed::Moved } else { Pushed::Done });
            }
            self.out.clear();
            self.at = 0;
            let Some(source) = &mut self.source else {
                self.stage = Stage::Ended;
                continue;
            };
            match source.poll_data(cx, &mut self.held) {
                Poll::Pending => {
                    self.starved = true;
                    return Ok(if moved { Pushed::Moved } else { Pushed::Waiting });
                }
                Poll::Ready(flow) => {
                    let flow = flow?;
                    put_chunk(&mut self.out, &self.held);
                    self.held.clear();
                    if flow == Flow::End {
                        self.ended = true;
                        self.put_end();
                        self.stage = Stage::Ended;
                    }
                }
            }
        }
    }
}
