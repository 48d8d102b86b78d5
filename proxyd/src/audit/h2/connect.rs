//! CONNECT: the upstream is a proxy, and what it opens is looked into as a layer of its own, as in HTTP/1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::request;
use sluice_addr::Upstream;
use sluice_http1::Authority;
use sluice_io::{InsideIo, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::Watch;
use super::adapt::{self, Adapter};
use super::head::Malformed;
use super::stream::{Answer, Exchange, StreamError, client_error, client_head, respond_as_is, upstream_error};
use super::upload::Upload;

/// The port of a target that names none, as for a CONNECT of HTTP/1.
const DEFAULT_PORT: u16 = 443;

/// Passes a CONNECT on. What the client sends waits until the upstream has agreed.
pub(super) async fn run<W: Watch>(
    mut exchange: Exchange<'_>,
    mut head: request::Parts,
    requests: SendRequest<Bytes>,
    adapter: Option<Adapter<'_>>,
    watch: &W,
) -> Result<(), StreamError> {
    let asked = match adapter {
        None => None,
        Some(adapter) => match adapt::ask_about_connect(&mut exchange, head, &adapter).await? {
            None => return Ok(()),
            Some((adapted, asked)) => {
                head = adapted;
                Some((adapter, asked))
            }
        },
    };
    let target = target(&head)?;
    let Exchange {
        body,
        respond,
        note,
        settings,
    } = exchange;
    let (response, mut to_upstream) = note.open(head, false, requests, settings).await?;
    let answer = Answer::new(response, respond);
    let answered = timeout(settings.rsp_header_recv_timeout.0, answer).await;
    let (parts, from_upstream) = answered.map_err(|_| StreamError::UpstreamSilent)??.into_parts();
    note.answered(&parts);
    if parts.status.is_success() {
        let head = client_head(parts.status, parts.headers);
        let to_client = respond.send_response(head, false).map_err(client_error)?;
        note.status = Some(parts.status);
        let client = Inside::new(body, to_client);
        let upstream = Inside::new(from_upstream, to_upstream);
        // It is closed without a word at an end that is none of a failure.
        return match watch.tunnel(target, client.into(), upstream.into()).await {
            Ok(failure) => Err(StreamError::Tunnel(failure)),
            Err(_) => Ok(()),
        };
    }
    // No tunnel: the request ends here, and what the client has sent into it is for nobody.
    to_upstream.send_data(Bytes::new(), true).map_err(upstream_error)?;
    note.request_sent = note.head_sent;
    let upload = Upload::new(std::future::ready(Ok(())));
    if let Some((adapter, asked)) = asked {
        return adapt::respond(upload, (parts, from_upstream), (respond, note), &asked, &adapter).await;
    }
    respond_as_is(upload, (parts, from_upstream), (respond, note)).await
}

/// Where a CONNECT wants to go.
fn target(head: &request::Parts) -> Result<Upstream, Malformed> {
    let authority = head.uri.authority().ok_or(Malformed::NoHost)?;
    Authority::parse(authority.as_str())
        .and_then(|authority| authority.to_upstream(DEFAULT_PORT))
        .map_err(|_| Malformed::Authority)
}

/// One end of a tunnel: a stream of an HTTP/2 connection that somebody else drives.
struct Inside {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// Received and not yet read.
    data: Bytes,
    is_shut: bool,
}

impl Inside {
    fn new(receive: RecvStream, send: SendStream<Bytes>) -> Self {
        Self {
            receive,
            send,
            data: Bytes::new(),
            is_shut: false,
        }
    }
}

impl InsideIo for Inside {}

impl From<Inside> for Stream {
    fn from(inside: Inside) -> Self {
        Self::Inside(Box::new(inside))
    }
}

impl AsyncRead for Inside {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.data.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                // An empty frame says nothing.
                Some(Ok(data)) => this.data = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let part = this.data.split_to(this.data.len().min(buf.remaining()));
        buf.put_slice(&part);
        // It fails for a stream that has been reset, which the next look at it tells.
        let _ = this.receive.flow_control().release_capacity(part.len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inside {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(reset) = this.send.poll_reset(cx) {
            let error = reset.map_or_else(broken, |reason| broken(reason.into()));
            return Poll::Ready(Err(error));
        }
        this.send.reserve_capacity(bytes.len());
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let n = this.send.capacity().min(bytes.len());
        this.send
            .send_data(Bytes::copy_from_slice(&bytes[..n]), false)
            .map_err(broken)?;
        Poll::Ready(Ok(n))
    }

    /// Whoever drives the connection sends what there is.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_shut, true) {
            this.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A failure of a stream as one of its bytes.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
