//! The one stream type over both libraries.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::nid::Nid;
use rustls::CommonState;
use sluice_io::{SecureIo, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Alert;
use crate::asked::has_asked;
use crate::error::{PeerAlert, VerifyError};
use crate::openssl_stream::OpensslStream;

/// How the peer ended its side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closure {
    /// By a fatal alert.
    Abortive(Alert),
    /// By `close_notify` or `user_canceled`.
    Orderly,
}

/// An encrypted connection, of either library and either side.
///
/// Reading ends with `Ok(0)` only after the peer's `close_notify`; a connection that just ends is
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), since what came before may have been cut. Shutting down sends
/// `close_notify` and closes the sending side of the connection below; the peer may go on sending.
///
/// A vectored write becomes one record of up to 16 KiB.
pub struct TlsStream<IO>(pub(crate) Inner<IO>);

pub(crate) enum Inner<IO> {
    Openssl(Box<OpensslStream<IO>>),
    Rustls(Box<RustlsStream<IO>>),
}

pub(crate) struct RustlsStream<IO> {
    pub(crate) tls: tokio_rustls::TlsStream<IO>,
    pub(crate) closure: Option<Closure>,
    asked_for_certificate: bool,
}

impl SecureIo for TlsStream<Stream> {
    fn transport(&self) -> &Stream {
        self.io()
    }
}

impl<IO> RustlsStream<IO> {
    fn state(&self) -> &CommonState {
        self.tls.get_ref().1
    }
}

impl<IO> TlsStream<IO> {
    pub(crate) fn openssl(stream: OpensslStream<IO>) -> Self {
        Self(Inner::Openssl(Box::new(stream)))
    }

    pub(crate) fn rustls(tls: tokio_rustls::TlsStream<IO>) -> Self {
        Self(Inner::Rustls(Box::new(RustlsStream {
            tls,
            closure: None,
            asked_for_certificate: false,
        })))
    }

    pub(crate) fn rustls_client(tls: tokio_rustls::client::TlsStream<IO>, asked_for_certificate: bool) -> Self {
        Self(Inner::Rustls(Box::new(RustlsStream {
            tls: tls.into(),
            closure: None,
            asked_for_certificate,
        })))
    }

    /// The application protocol that was agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.0 {
            Inner::Openssl(stream) => stream.ssl().selected_alpn_protocol(),
            Inner::Rustls(stream) => stream.state().alpn_protocol(),
        }
    }

    /// Whether the server asked for a certificate of its client, which had none. See [`NOTES_REQUESTS`](crate::NOTES_REQUESTS).
    #[must_use]
    pub fn asked_for_certificate(&self) -> bool {
        match &self.0 {
            Inner::Openssl(stream) => has_asked(stream.ssl()),
            Inner::Rustls(stream) => stream.asked_for_certificate,
        }
    }

    /// The cipher suite's name, in the standard's spelling where the library knows it.
    #[must_use]
    pub fn cipher(&self) -> Option<&str> {
        match &self.0 {
            Inner::Openssl(stream) => {
                let cipher = stream.ssl().current_cipher()?;
                Some(cipher.standard_name().unwrap_or_else(|| cipher.name()))
            }
            Inner::Rustls(stream) => stream.state().negotiated_cipher_suite()?.suite().as_str(),
        }
    }

    /// How the peer ended its side, once a read saw it.
    #[must_use]
    pub fn closure(&self) -> Option<Closure> {
        match &self.0 {
            Inner::Openssl(stream) => stream.closure(),
            Inner::Rustls(stream) => stream.closure,
        }
    }

    /// The connection below.
    #[must_use]
    pub fn io(&self) -> &IO {
        match &self.0 {
            Inner::Openssl(stream) => stream.io(),
            Inner::Rustls(stream) => stream.tls.get_ref().0,
        }
    }

    /// The connection below. Reading or writing it breaks the stream; setting its options does not.
    pub fn io_mut(&mut self) -> &mut IO {
        match &mut self.0 {
            Inner::Openssl(stream) => stream.io_mut(),
            Inner::Rustls(stream) => stream.tls.get_mut().0,
        }
    }

    /// The peer's leaf certificate as DER.
    #[must_use]
    pub fn peer_certificate_der(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Inner::Openssl(stream) => stream.ssl().peer_certificate()?.to_der().ok(),
            Inner::Rustls(stream) => Some(stream.state().peer_certificates()?.first()?.to_vec()),
        }
    }

    /// Whether an earlier session was resumed.
    #[must_use]
    pub fn resumed(&self) -> bool {
        match &self.0 {
            Inner::Openssl(stream) => stream.ssl().session_reused(),
            Inner::Rustls(stream) => stream.state().handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }

    /// The name that a server's client asked for.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match &self.0 {
            Inner::Openssl(stream) => stream.ssl().servername(openssl::ssl::NameType::HOST_NAME),
            Inner::Rustls(stream) => match &stream.tls {
                tokio_rustls::TlsStream::Client(_) => None,
                tokio_rustls::TlsStream::Server(tls) => tls.get_ref().1.server_name(),
            },
        }
    }

    /// Why the peer's certificate would have been refused, had the configuration not said `insecure`.
    #[must_use]
    pub fn verify_error(&self) -> Option<VerifyError> {
        match &self.0 {
            Inner::Openssl(stream) => VerifyError::from_openssl(stream.ssl().verify_result()),
            Inner::Rustls(_) => None,
        }
    }

    /// The protocol version's name, such as `TLSv1.3`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match &self.0 {
            Inner::Openssl(stream) => stream.ssl().version_str(),
            Inner::Rustls(stream) => match stream.state().protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "unknown",
            },
        }
    }

    /// The subject's common name in the peer's certificate.
    #[must_use]
    pub fn peer_common_name(&self) -> Option<String> {
        let der = self.peer_certificate_der()?;
        let certificate = openssl::x509::X509::from_der(&der).ok()?;
        let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next()?;
        Some(name.data().to_string().ok()?.to_string())
    }
}

impl<IO> std::fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("version", &self.version())
            .field("cipher", &self.cipher())
            .finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Openssl(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Rustls(stream) => {
                let before = buf.filled().len();
                let all_written = !stream.state().wants_write();
                let polled = Pin::new(&mut stream.tls).poll_read(cx, buf);
                // The library has something to say of its own, such as `no_renegotiation` (RFC 5246 §7.2.2), and nobody
                // may be about to write. A writer that waits is not disturbed: its bytes would have been there before.
                if all_written && stream.state().wants_write() {
                    // An error comes up again when it matters.
                    let _ = Pin::new(&mut stream.tls).poll_flush(cx);
                }
                match std::task::ready!(polled) {
                    Ok(()) => {
                        if buf.filled().len() == before && buf.remaining() > 0 {
                            stream.closure = Some(Closure::Orderly);
                        }
                        Poll::Ready(Ok(()))
                    }
                    Err(error) => Poll::Ready(Err(match PeerAlert::of(&error) {
                        Some(alert) => {
                            stream.closure = Some(Closure::Abortive(alert));
                            io::Error::new(io::ErrorKind::ConnectionAborted, PeerAlert(alert))
                        }
                        None => error,
                    })),
                }
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Openssl(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Rustls(stream) => Pin::new(&mut stream.tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Openssl(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Rustls(stream) => Pin::new(&mut stream.tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Openssl(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Rustls(stream) => Pin::new(&mut stream.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Openssl(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Rustls(stream) => Pin::new(&mut stream.tls).poll_shutdown(cx),
        }
    }
}
