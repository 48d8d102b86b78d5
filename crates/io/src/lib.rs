//! Relays and streams.
