//! TLCP (GB/T 38636): a side has two certificates, one that signs and one that encrypts.
//!
//! Only Tongsuo speaks it, and only by functions that the openssl crate does not bind; with any other library the keys
//! for it are refused.

use std::path::Path;

use openssl::x509::X509;

use crate::config::TlcpCertPairConfig;
use crate::error::BuildError;
use crate::pem::Identity;

/// The two pairs of a side; each key is known to belong to its certificate.
pub(crate) struct TlcpIdentity {
    pub(crate) sign: Identity,
    pub(crate) enc: Identity,
}

impl TlcpIdentity {
    /// Reads both pairs; `prefix` is the path of the key that holds them, with a dot.
    pub(crate) fn load(pair: &TlcpCertPairConfig, base: &Path, prefix: &str) -> Result<Self, BuildError> {
        let load = |certificate, key, names| Identity::load_split(certificate, key, base, prefix, names);
        Ok(Self {
            sign: load(
                &pair.sign_certificate,
                &pair.sign_private_key,
                ["sign_certificate", "sign_private_key"],
            )?,
            enc: load(
                &pair.enc_certificate,
                &pair.enc_private_key,
                ["enc_certificate", "enc_private_key"],
            )?,
        })
    }

    /// The chains of both, without the leaves.
    #[cfg_attr(not(feature = "tongsuo"), expect(dead_code, reason = "nothing else sends it"))]
    fn chain(&self) -> impl Iterator<Item = &X509> {
        self.sign.chain.iter().skip(1).chain(self.enc.chain.iter().skip(1))
    }
}

/// Refuses a key for TLCP, with the reason, unless the library speaks it.
pub(crate) fn check_built(key: &str) -> Result<(), BuildError> {
    if cfg!(feature = "tongsuo") {
        return Ok(());
    }
    Err(BuildError::NotInBuild {
        key: key.to_owned(),
        wanted: "TLCP".to_owned(),
        feature: "the feature `tongsuo`",
    })
}

#[cfg(feature = "tongsuo")]
pub(crate) use ffi::{client_method, enable, server_method, use_with_connection, use_with_context};

/// Ciphers of a side without certificates of its own.
#[cfg(feature = "tongsuo")]
const WITHOUT_PAIR: &str = "ECC-SM2-SM4-GCM-SM3:ECC-SM2-SM4-CBC-SM3:\
    RSA-SM4-GCM-SM3:RSA-SM4-GCM-SHA256:RSA-SM4-CBC-SM3:RSA-SM4-CBC-SHA256";

/// Ciphers if none are configured; the ECDHE ones need certificates of both sides.
#[cfg(feature = "tongsuo")]
pub(crate) fn default_ciphers(has_pair: bool) -> String {
    if !has_pair {
        return WITHOUT_PAIR.to_owned();
    }
    "ECDHE-SM2-SM4-GCM-SM3:ECC-SM2-SM4-GCM-SM3:ECDHE-SM2-SM4-CBC-SM3:ECC-SM2-SM4-CBC-SM3:\
     RSA-SM4-GCM-SM3:RSA-SM4-GCM-SHA256:RSA-SM4-CBC-SM3:RSA-SM4-CBC-SHA256"
        .to_owned()
}

#[cfg(feature = "tongsuo")]
#[expect(unsafe_code, reason = "the openssl crate does not bind Tongsuo's own functions")]
mod ffi {
    use std::ffi::c_int;

    use foreign_types::{ForeignType, ForeignTypeRef};
    use openssl::error::ErrorStack;
    use openssl::ssl::{SslContextBuilder, SslMethod, SslRef};
    use openssl_sys::{EVP_PKEY, SSL, SSL_CTX, SSL_METHOD, X509};

    use super::TlcpIdentity;

    unsafe extern "C" {
        fn NTLS_client_method() -> *const SSL_METHOD;
        fn NTLS_server_method() -> *const SSL_METHOD;
        fn SSL_CTX_enable_ntls(context: *mut SSL_CTX);
        fn SSL_CTX_use_sign_certificate(context: *mut SSL_CTX, certificate: *mut X509) -> c_int;
        fn SSL_CTX_use_sign_PrivateKey(context: *mut SSL_CTX, key: *mut EVP_PKEY) -> c_int;
        fn SSL_CTX_use_enc_certificate(context: *mut SSL_CTX, certificate: *mut X509) -> c_int;
        fn SSL_CTX_use_enc_PrivateKey(context: *mut SSL_CTX, key: *mut EVP_PKEY) -> c_int;
        fn SSL_use_sign_certificate(ssl: *mut SSL, certificate: *mut X509) -> c_int;
        fn SSL_use_sign_PrivateKey(ssl: *mut SSL, key: *mut EVP_PKEY) -> c_int;
        fn SSL_use_enc_certificate(ssl: *mut SSL, certificate: *mut X509) -> c_int;
        fn SSL_use_enc_PrivateKey(ssl: *mut SSL, key: *mut EVP_PKEY) -> c_int;
    }

    /// A client that speaks TLCP alone.
    pub(crate) fn client_method() -> SslMethod {
        // SAFETY: the function gives a pointer to a constant.
        unsafe { SslMethod::from_ptr(NTLS_client_method()) }
    }

    /// A server that speaks TLCP alone.
    pub(crate) fn server_method() -> SslMethod {
        // SAFETY: as above.
        unsafe { SslMethod::from_ptr(NTLS_server_method()) }
    }

    /// Lets a context speak TLCP, too.
    pub(crate) fn enable(context: &mut SslContextBuilder) {
        // SAFETY: the context is alive.
        unsafe { SSL_CTX_enable_ntls(context.as_ptr()) }
    }

    fn check(result: c_int) -> Result<(), ErrorStack> {
        if result == 1 { Ok(()) } else { Err(ErrorStack::get()) }
    }

    pub(crate) fn use_with_context(context: &mut SslContextBuilder, own: &TlcpIdentity) -> Result<(), ErrorStack> {
        let ptr = context.as_ptr();
        for (identity, use_certificate, use_key) in [
            (
                &own.sign,
                SSL_CTX_use_sign_certificate as unsafe extern "C" fn(_, _) -> _,
                SSL_CTX_use_sign_PrivateKey as unsafe extern "C" fn(_, _) -> _,
            ),
            (&own.enc, SSL_CTX_use_enc_certificate, SSL_CTX_use_enc_PrivateKey),
        ] {
            if let Some(leaf) = identity.chain.first() {
                // SAFETY: context and certificate are alive; OpenSSL takes a reference of its own.
                check(unsafe { use_certificate(ptr, leaf.as_ptr()) })?;
            }
            // SAFETY: as above, of the key.
            check(unsafe { use_key(ptr, identity.key.as_ptr()) })?;
        }
        own.chain()
            .try_for_each(|certificate| context.add_extra_chain_cert(certificate.clone()))
    }

    pub(crate) fn use_with_connection(ssl: &mut SslRef, own: &TlcpIdentity) -> Result<(), ErrorStack> {
        let ptr = ssl.as_ptr();
        // The one whose chain is sent comes last, so that the chain becomes its.
        for (identity, use_certificate, use_key) in [
            (
                &own.enc,
                SSL_use_enc_certificate as unsafe extern "C" fn(_, _) -> _,
                SSL_use_enc_PrivateKey as unsafe extern "C" fn(_, _) -> _,
            ),
            (&own.sign, SSL_use_sign_certificate, SSL_use_sign_PrivateKey),
        ] {
            if let Some(leaf) = identity.chain.first() {
                // SAFETY: connection and certificate are alive; OpenSSL takes a reference of its own.
                check(unsafe { use_certificate(ptr, leaf.as_ptr()) })?;
            }
            // SAFETY: as above, of the key.
            check(unsafe { use_key(ptr, identity.key.as_ptr()) })?;
        }
        own.chain()
            .try_for_each(|certificate| ssl.add_chain_cert(certificate.clone()))
    }
}
