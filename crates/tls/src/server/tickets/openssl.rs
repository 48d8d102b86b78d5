//! Tickets as OpenSSL wants them: it asks a callback to set up the cipher and the MAC.

use std::sync::Arc;

use openssl::ssl::SslContextBuilder;

use super::Ticketer;
use crate::error::BuildError;

/// `BoringSSL` and its kin roll ticket keys of their own.
#[cfg(boring)]
pub(in crate::server) fn use_with_openssl(
    _: &mut SslContextBuilder,
    ticketer: &Arc<Ticketer>,
) -> Result<(), BuildError> {
    if ticketer.is_default {
        Ok(())
    } else {
        Err(crate::client::not_in_build(
            "tls_ticketer",
            "a ticketer for an OpenSSL server",
            "OpenSSL",
        ))
    }
}

#[cfg(not(boring))]
pub(in crate::server) use ffi::use_with_openssl;

#[cfg(not(boring))]
#[expect(unsafe_code, reason = "the openssl crate does not bind the ticket key callback")]
mod ffi {
    use std::ffi::{c_int, c_uchar};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::ptr;
    use std::sync::OnceLock;
    use std::time::Instant;

    use foreign_types::ForeignTypeRef;
    use openssl::ex_data::Index;
    use openssl::ssl::{SslContext, SslRef};
    use openssl_sys::{
        EVP_CIPHER_CTX, EVP_CipherInit_ex, EVP_MAC_CTX, EVP_MAC_CTX_set_params, EVP_aes_256_cbc, OSSL_PARAM,
        OSSL_PARAM_construct_end, OSSL_PARAM_construct_octet_string, SSL, SSL_CTX,
    };

    use super::super::{IV, Key, NAME};
    use super::{Arc, BuildError, SslContextBuilder, Ticketer};

    type TicketKeyCallback = unsafe extern "C" fn(
        *mut SSL,
        *mut c_uchar,
        *mut c_uchar,
        *mut EVP_CIPHER_CTX,
        *mut EVP_MAC_CTX,
        c_int,
    ) -> c_int;

    unsafe extern "C" {
        fn SSL_CTX_set_tlsext_ticket_key_evp_cb(context: *mut SSL_CTX, callback: TicketKeyCallback) -> c_int;
        fn OSSL_PARAM_construct_utf8_string(
            key: *const std::ffi::c_char,
            buf: *mut std::ffi::c_char,
            size: usize,
        ) -> OSSL_PARAM;
    }

    fn index() -> Result<Index<SslContext, Arc<Ticketer>>, openssl::error::ErrorStack> {
        static INDEX: OnceLock<Index<SslContext, Arc<Ticketer>>> = OnceLock::new();
        if let Some(index) = INDEX.get() {
            return Ok(*index);
        }
        let index = SslContext::new_ex_index()?;
        Ok(*INDEX.get_or_init(|| index))
    }

    /// Has `context` take its ticket keys from `ticketer`.
    pub(in crate::server) fn use_with_openssl(
        context: &mut SslContextBuilder,
        ticketer: &Arc<Ticketer>,
    ) -> Result<(), BuildError> {
        context.set_ex_data(index()?, Arc::clone(ticketer));
        // SAFETY: the context is alive, and the callback has the type that the function's documentation gives.
        let set = unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), ticket_key) };
        if set == 1 {
            Ok(())
        } else {
            Err(openssl::error::ErrorStack::get().into())
        }
    }

    const FAILED: c_int = -1;
    const UNKNOWN_KEY: c_int = 0;
    const READY: c_int = 1;
    /// Ready, and the client gets a new ticket.
    const RENEW: c_int = 2;

    /// See `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`.
    unsafe extern "C" fn ticket_key(
        ssl: *mut SSL,
        name: *mut c_uchar,
        iv: *mut c_uchar,
        cipher: *mut EVP_CIPHER_CTX,
        mac: *mut EVP_MAC_CTX,
        seals: c_int,
    ) -> c_int {
        catch_unwind(AssertUnwindSafe(|| {
            let Ok(index) = index() else { return FAILED };
            // SAFETY: OpenSSL passes the connection's own, live object, which no Rust reference has while it calls.
            let ssl = unsafe { SslRef::from_ptr(ssl) };
            let Some(ticketer) = ssl.ssl_context().ex_data(index) else {
                return FAILED;
            };
            let now = Instant::now();
            if seals == 1 {
                let key = ticketer.sealing(now);
                let mut fresh = [0; IV];
                if openssl::rand::rand_bytes(&mut fresh).is_err() {
                    return FAILED;
                }
                // SAFETY: the documentation gives `name` 16 and `iv` EVP_MAX_IV_LENGTH, 16, writable bytes.
                unsafe {
                    ptr::copy_nonoverlapping(key.name.as_ptr(), name, NAME);
                    ptr::copy_nonoverlapping(fresh.as_ptr(), iv, IV);
                }
                return if set_up(&key, &fresh, cipher, mac, seals) {
                    READY
                } else {
                    FAILED
                };
            }
            // SAFETY: as above, filled from the ticket.
            let (name, iv) = unsafe { (*name.cast::<[u8; NAME]>(), *iv.cast::<[u8; IV]>()) };
            let Some(key) = ticketer.opening(&name, now) else {
                return UNKNOWN_KEY;
            };
            if set_up(&key, &iv, cipher, mac, seals) {
                RENEW
            } else {
                FAILED
            }
        }))
        .unwrap_or(FAILED)
    }

    fn set_up(key: &Key, iv: &[u8; IV], cipher: *mut EVP_CIPHER_CTX, mac: *mut EVP_MAC_CTX, seals: c_int) -> bool {
        let mut hmac = key.hmac;
        let mut digest = *b"SHA256\0";
        // SAFETY: the names end in a zero byte; `hmac` and `digest` outlive the parameters, which are only read.
        let params = unsafe {
            [
                OSSL_PARAM_construct_octet_string(c"key".as_ptr(), hmac.as_mut_ptr().cast(), hmac.len()),
                OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), digest.as_mut_ptr().cast(), digest.len() - 1),
                OSSL_PARAM_construct_end(),
            ]
        };
        // SAFETY: both contexts are OpenSSL's, made for this call; key and IV have the lengths of AES-256-CBC.
        unsafe {
            EVP_MAC_CTX_set_params(mac, params.as_ptr()) == 1
                && EVP_CipherInit_ex(
                    cipher,
                    EVP_aes_256_cbc(),
                    ptr::null_mut(),
                    key.aes.as_ptr(),
                    iv.as_ptr(),
                    seals,
                ) == 1
        }
    }
}
