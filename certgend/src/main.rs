//! Mints certificates for TLS interception.

fn main() {}
