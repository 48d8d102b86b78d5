//! TLS clients and servers over rustls and OpenSSL.
