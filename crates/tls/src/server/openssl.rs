//! The OpenSSL acceptor.

use std::sync::Arc;
use std::time::Duration;

use openssl::hash::{Hasher, MessageDigest};
use openssl::pkey::Id;
use openssl::ssl::{
    AlpnError, SniError, Ssl, SslAcceptor, SslAlert, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslSessionCacheMode, SslVerifyMode,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use tokio::io::{AsyncRead, AsyncWrite};

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
    handshake_timeout: Duration,
}

impl OpensslAcceptor {
    pub(super) fn new(params: &TlsServerParams) -> Result<Self, BuildError> {
        let mut context = new_context(params)?;
        set_common(&mut context);
        set_certificates(&mut context, params);
        set_client_auth(&mut context, &params.client_auth)?;
        set_alpn(&mut context, params);
        set_resumption(&mut context, params)?;
        Ok(Self(Arc::new(Inner {
            context: context.build(),
            handshake_timeout: params.handshake_timeout,
        })))
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        self.0.handshake_timeout
    }

    pub(super) async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let ssl = Ssl::new(&self.0.context).map_err(|error| HandshakeError::Library(Box::new(error)))?;
        OpensslStream::handshake(ssl, io, Side::Server)
            .await
            .map(TlsStream::openssl)
    }
}

impl std::fmt::Debug for OpensslAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpensslAcceptor").finish_non_exhaustive()
    }
}

/// Mozilla's profile, as the openssl crate has it.
fn new_context(params: &TlsServerParams) -> Result<SslContextBuilder, BuildError> {
    #[cfg(feature = "tongsuo")]
    if !params.tlcp_pairs.is_empty() {
        return new_tlcp_context(!params.pairs.is_empty());
    }
    let _ = params;
    let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    // The crate's type has no way back to the builder; swapping it for a plain one gives that.
    let plain = SslContextBuilder::new(SslMethod::tls_server())?;
    Ok(std::mem::replace(&mut *context, plain))
}

/// TLCP, and beside it TLS: a connection speaks what its client speaks.
#[cfg(feature = "tongsuo")]
fn new_tlcp_context(with_tls: bool) -> Result<SslContextBuilder, BuildError> {
    const INTERMEDIATE: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
        ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
        ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
    let tlcp = crate::tlcp::default_ciphers(true);
    let mut context = if with_tls {
        let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
        context.set_options(SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1);
        context.set_cipher_list(&format!("{INTERMEDIATE}:{tlcp}"))?;
        context
    } else {
        let mut context = SslContextBuilder::new(crate::tlcp::server_method())?;
        context.set_cipher_list(&tlcp)?;
        context
    };
    crate::tlcp::enable(&mut context);
    Ok(context)
}

/// Certificates are chosen for each connection: a context holds one chain, and of each kind of key one certificate.
fn set_certificates(context: &mut SslContextBuilder, params: &TlsServerParams) {
    let pairs = Arc::clone(&params.pairs);
    #[cfg(feature = "tongsuo")]
    let tlcp_pairs = Arc::clone(&params.tlcp_pairs);
    // OpenSSL calls it without a name, too.
    context.set_servername_callback(move |ssl, alert| {
        let name = ssl.servername(openssl::ssl::NameType::HOST_NAME).map(str::to_owned);
        let used = use_pairs(ssl, &pairs_for(&pairs, name.as_deref()));
        #[cfg(feature = "tongsuo")]
        let used = used.and_then(|()| match pairs_for(&tlcp_pairs, name.as_deref()).first() {
            Some(pair) => crate::tlcp::use_with_connection(ssl, &pair.identity),
            None => Ok(()),
        });
        used.map_err(|_| {
            *alert = SslAlert::INTERNAL_ERROR;
            SniError::ALERT_FATAL
        })
    });
}

fn use_pairs(ssl: &mut SslRef, pairs: &[&Pair]) -> Result<(), openssl::error::ErrorStack> {
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
