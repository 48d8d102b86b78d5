//! Notes that a server has asked for a certificate of ours, where there is none (RFC 8446 §4.3.2, RFC 5246 §7.4.4).
//!
//! A handshake ends well all the same with a server that only wishes for one, and up to TLS 1.2 not at all with one that
//! insists. With TLS 1.3 even the latter says so after the handshake.

#[cfg(not(boring))]
pub(crate) use bound::{has_asked, watch};

/// Whether a connector knows of requests: the binding of BoringSSL's family lacks the call.
pub const NOTES_REQUESTS: bool = cfg!(not(boring));

#[cfg(boring)]
pub(crate) fn watch(_: &mut openssl::ssl::SslContextBuilder) -> Result<(), openssl::error::ErrorStack> {
    Ok(())
}

#[cfg(boring)]
pub(crate) fn has_asked(_: &openssl::ssl::SslRef) -> bool {
    false
}

#[cfg(not(boring))]
#[expect(unsafe_code, reason = "the binding lacks the callback for a certificate")]
mod bound {
    use std::ffi::{c_int, c_void};
    use std::panic::catch_unwind;
    use std::ptr;
    use std::sync::OnceLock;

    use foreign_types::ForeignTypeRef;
    use openssl::error::ErrorStack;
    use openssl::ex_data::Index;
    use openssl::ssl::{Ssl, SslContextBuilder, SslRef};
    use openssl_sys::{SSL, SSL_CTX};

    type CertificateCallback = unsafe extern "C" fn(*mut SSL, *mut c_void) -> c_int;

    unsafe extern "C" {
        fn SSL_CTX_set_cert_cb(context: *mut SSL_CTX, callback: CertificateCallback, argument: *mut c_void);
    }

    /// There in connections whose server has asked.
    struct Asked;

    fn index() -> Result<Index<Ssl, Asked>, ErrorStack> {
        static INDEX: OnceLock<Index<Ssl, Asked>> = OnceLock::new();
        if let Some(index) = INDEX.get() {
            return Ok(*index);
        }
        let index = Ssl::new_ex_index()?;
        Ok(*INDEX.get_or_init(|| index))
    }

    /// Has connections of `context`, a client's without a certificate, note it.
    pub(crate) fn watch(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        index()?;
        // SAFETY: the context is alive, and the callback has the type that the function's documentation gives.
        unsafe { SSL_CTX_set_cert_cb(context.as_ptr(), asked, ptr::null_mut()) };
        Ok(())
    }

    /// Whether the server has asked for a certificate. By then it has proved who it is, as far as it had to.
    pub(crate) fn has_asked(ssl: &SslRef) -> bool {
        index().is_ok_and(|index| ssl.ex_data(index).is_some())
    }

    /// See `SSL_CTX_set_cert_cb(3)`: called when the client's certificate is due.
    unsafe extern "C" fn asked(ssl: *mut SSL, _: *mut c_void) -> c_int {
        const GO_ON: c_int = 1;
        let _ = catch_unwind(|| {
            // SAFETY: OpenSSL passes the connection's own, live object, which no Rust reference has while it calls.
            let ssl = unsafe { SslRef::from_ptr_mut(ssl) };
            if let Ok(index) = index() {
                ssl.set_ex_data(index, Asked);
            }
        });
        GO_ON
    }
}
