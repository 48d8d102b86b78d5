//! Hosts, upstream addresses and domain names.
