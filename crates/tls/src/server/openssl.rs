//! The OpenSSL acceptor.

use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};
use openssl::pkey::Id;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAlert, SslContext, SslContextBuilder, SslMethod, SslOptions,
    SslRef, SslSessionCacheMode, SslVerifyMode,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{ClientAuth, Pair, TlsServerParams, pairs_for};
use crate::client::{add_system_anchors, set_common};
use crate::error::{BuildError, HandshakeError};
use crate::openssl_stream::{OpensslStream, Side};
use crate::stream::TlsStream;

/// Accepts TLS connections over OpenSSL, with Mozilla's intermediate profile, version 5.
#[derive(Clone)]
pub struct OpensslAcceptor(Arc<Inner>);

struct Inner {
    context: SslContext,
    /// For clients that speak TLCP, beside `context` for the others. Tongsuo could tell them apart itself, but puts a
    /// buffer of its own before the connection to do so, where the openssl crate then takes it for the connection.
    tlcp: Option<SslContext>,
    handshake_timeout: Duration,
}

impl OpensslAcceptor {
    pub(super) fn new(params: &TlsServerParams) -> Result<Self, BuildError> {
        let tls = (!params.pairs.is_empty()).then(|| tls_context(params)).transpose()?;
        let tlcp = tlcp_context(params)?;
        let (context, tlcp) = match (tls, tlcp) {
            (Some(tls), tlcp) => (tls, tlcp),
            (None, Some(tlcp)) => (tlcp, None),
            (None, None) => {
                return Err(BuildError::Needs {
                    key: "a TLS server".into(),
                    other: "cert_pairs".into(),
                });
            }
        };
        Ok(Self(Arc::new(Inner {
            context,
            tlcp,
            handshake_timeout: params.handshake_timeout,
        })))
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        self.0.handshake_timeout
    }

    pub(super) async fn accept<IO>(&self, mut io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut head = Vec::new();
        let context = match &self.0.tlcp {
            Some(tlcp) if is_tlcp(&mut io, &mut head).await? => tlcp,
            _ => &self.0.context,
        };
        let ssl = Ssl::new(context).map_err(|error| HandshakeError::Library(Box::new(error)))?;
        OpensslStream::handshake(ssl, io, head, Side::Server)
            .await
            .map(TlsStream::openssl)
    }
}

/// Reads as far as the version in the first record's header, and looks whether it is TLCP's.
async fn is_tlcp<IO: AsyncRead + Unpin>(io: &mut IO, head: &mut Vec<u8>) -> Result<bool, HandshakeError> {
    while head.len() < 3 {
        let mut bytes = [0; 3];
        let room = bytes.get_mut(head.len()..).unwrap_or_default();
        match io.read(room).await {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(count) => head.extend_from_slice(room.get(..count).unwrap_or_default()),
            Err(error) => return Err(HandshakeError::Io(error)),
        }
    }
    Ok(head.ends_with(&[1, 1]))
}

impl std::fmt::Debug for OpensslAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpensslAcceptor").finish_non_exhaustive()
    }
}

/// TLS with Mozilla's profile.
fn tls_context(params: &TlsServerParams) -> Result<SslContext, BuildError> {
    let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    let pairs = Arc::clone(&params.pairs);
    choose_certificates(&mut context, move |ssl, name| use_pairs(ssl, &pairs_for(&pairs, name)));
    set_all(&mut context, params)?;
    Ok(context.build().into_context())
}

#[cfg(feature = "tongsuo")]
fn tlcp_context(params: &TlsServerParams) -> Result<Option<SslContext>, BuildError> {
    if params.tlcp_pairs.is_empty() {
        return Ok(None);
    }
    let mut context = SslContextBuilder::new(crate::tlcp::server_method())?;
    crate::tlcp::enable(&mut context);
    context.set_cipher_list(&crate::tlcp::default_ciphers(true))?;
    let pairs = Arc::clone(&params.tlcp_pairs);
    choose_certificates(&mut context, move |ssl, name| match pairs_for(&pairs, name).first() {
        Some(pair) => crate::tlcp::use_with_connection(ssl, &pair.identity),
        None => Ok(()),
    });
    set_all(&mut context, params)?;
    Ok(Some(context.build()))
}

/// There are no pairs for it.
#[cfg(not(feature = "tongsuo"))]
fn tlcp_context(_: &TlsServerParams) -> Result<Option<SslContext>, BuildError> {
    Ok(None)
}

fn set_all(context: &mut SslContextBuilder, params: &TlsServerParams) -> Result<(), BuildError> {
    set_common(context);
    set_client_auth(context, &params.client_auth)?;
    set_alpn(context, params);
    set_resumption(context, params)
}

/// Certificates are chosen for each connection: a context holds one chain, and of each kind of key one certificate.
fn choose_certificates(
    context: &mut SslContextBuilder,
    choose: impl Fn(&mut SslRef, Option<&str>) -> Result<(), ErrorStack> + Send + Sync + 'static,
) {
    // OpenSSL calls it without a name, too.
    context.set_servername_callback(move |ssl, alert| {
        let name = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
        choose(ssl, name.as_deref()).map_err(|_| {
            *alert = SslAlert::INTERNAL_ERROR;
            SniError::ALERT_FATAL
        })
    });
}

fn use_pairs(ssl: &mut SslRef, pairs: &[&Pair]) -> Result<(), ErrorStack> {
    let mut kinds: Vec<Id> = Vec::with_capacity(pairs.len());
    for Pair { identity, .. } in pairs {
        // A second one of a kind would replace the first.
        if kinds.contains(&identity.key.id()) {
            continue;
        }
        kinds.push(identity.key.id());
        let mut chain = identity.chain.iter();
        if let Some(leaf) = chain.next() {
            ssl.set_certificate(leaf)?;
        }
        ssl.set_private_key(&identity.key)?;
        for certificate in chain {
            ssl.add_chain_cert(certificate.clone())?;
        }
    }
    Ok(())
}

fn set_client_auth(context: &mut SslContextBuilder, auth: &ClientAuth) -> Result<(), BuildError> {
    let mut store = X509StoreBuilder::new()?;
    match auth {
        ClientAuth::None => return Ok(()),
        ClientAuth::System => add_system_anchors(&mut store)?,
        ClientAuth::Private(anchors) => {
            let refused = |e| BuildError::refused("ca_certificate", e);
            let mut announced = Stack::new()?;
            for anchor in anchors.iter() {
                announced.push(anchor.subject_name().to_owned().map_err(refused)?)?;
                store.add_cert(anchor.clone()).map_err(refused)?;
            }
            context.set_client_ca_list(announced);
        }
    }
    context.set_cert_store(store.build());
    context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    Ok(())
}

fn set_alpn(context: &mut SslContextBuilder, params: &TlsServerParams) {
    if params.alpn.is_empty() {
        return;
    }
    let ours = params.alpn.clone();
    context.set_alpn_select_callback(move |_, theirs| {
        ours.iter()
            .find_map(|name| find_protocol(theirs, name))
            .ok_or(AlpnError::ALERT_FATAL)
    });
}

/// Finds `wanted` in a list of length-prefixed names (RFC 7301 §3.1).
fn find_protocol<'a>(mut list: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    while let Some((length, rest)) = list.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        if name == wanted {
            return Some(name);
        }
        list = rest;
    }
    None
}

fn set_resumption(context: &mut SslContextBuilder, params: &TlsServerParams) -> Result<(), BuildError> {
    context.set_session_id_context(&session_id_context(params)?)?;
    context.set_session_cache_mode(if params.session_cache {
        SslSessionCacheMode::SERVER
    } else {
        SslSessionCacheMode::OFF
    });
    match &params.ticketer {
        Some(ticketer) => super::tickets::use_with_openssl(context, ticketer)?,
        None => {
            // TLS 1.3 tickets then name a session that the server keeps.
            context.set_options(SslOptions::NO_TICKET);
            #[cfg(not(boring))]
            if !params.session_cache {
                context.set_num_tickets(0)?;
            }
        }
    }
    Ok(())
}

/// Sessions are good for a server with the same text, certificates and anchors only.
fn session_id_context(params: &TlsServerParams) -> Result<Vec<u8>, BuildError> {
    let mut hash = Hasher::new(MessageDigest::sha1())?;
    hash.update(params.session_id_context.as_bytes())?;
    let tls = params.pairs.iter().map(|pair| &pair.identity);
    let tlcp = params.tlcp_pairs.iter().map(|pair| &pair.identity.sign);
    for certificate in tls.chain(tlcp).filter_map(|identity| identity.chain.first()) {
        hash.update(&certificate.digest(MessageDigest::sha1())?)?;
    }
    if let ClientAuth::Private(anchors) = &params.client_auth {
        for anchor in anchors.iter() {
            hash.update(&openssl::hash::hash(
                MessageDigest::sha1(),
                &anchor.subject_name().to_der()?,
            )?)?;
        }
    }
    Ok(hash.finish()?.to_vec())
}
