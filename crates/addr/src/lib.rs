//! Hosts and upstream addresses as clients and configurations write them.
//!
//! - [`Host`]: an IP address or a domain name in its lower-case ASCII form.
//! - [`Upstream`]: a host and a port.
//!
//! Everything here is pure: nothing is looked up. Parsing is the one place where a name is brought into its comparable
//! form, so that rules, caches and logs may compare by equality: IDNA names become ASCII, letters lower case, one dot
//! at the end is dropped, and an IPv4-mapped IPv6 address becomes the IPv4 address that it means.

mod host;
mod upstream;

pub use host::{Host, ParseHostError};
pub use upstream::{ParseUpstreamError, Upstream};
