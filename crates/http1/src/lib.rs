//! HTTP/1 messages, parsed in place (RFC 9112).
