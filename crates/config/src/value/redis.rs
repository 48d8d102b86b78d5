//! Redis servers.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::{Host, Upstream};

use super::base::Secret;
use super::hosts::UpstreamAddr;
use super::time::Span;

/// A redis server; `Tls` is the type of its `tls_client`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "Tls: Deserialize<'de>")]
pub struct Redis<Tls> {
    /// The address, port 6379 if it has none.
    #[serde(alias = "address", default = "own")]
    pub addr: UpstreamAddr<6379>,
    /// TLS, if it is spoken.
    #[serde(alias = "tls")]
    pub tls_client: Option<Tls>,
    /// The name to verify; the host of `addr` if not set.
    pub tls_name: Option<Host>,
    /// The number of the database.
    #[serde(default)]
    pub db: i64,
    /// A user of redis 6.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret<String>>,
    /// For the connection.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Span,
    /// For a response.
    #[serde(alias = "read_timeout", default = "response_timeout")]
    pub response_timeout: Span,
}

fn own() -> UpstreamAddr<6379> {
    UpstreamAddr(Upstream::new(Host::Ip([127, 0, 0, 1].into()), 6379))
}

fn connect_timeout() -> Span {
    Span::secs(5)
}

fn response_timeout() -> Span {
    Span::secs(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn every_key_has_a_default() {
        // CFG-05
        let redis = decode::<Redis<bool>>("{address: db.test, read_timeout: 1, password: hunter2}").unwrap();
        assert_eq!(
            (redis.addr.0.to_string().as_str(), redis.response_timeout),
            ("db.test:6379", Span::secs(1))
        );
        assert_eq!(
            decode::<Redis<bool>>("{}").unwrap().addr.0.to_string(),
            "127.0.0.1:6379"
        );
        assert!(!format!("{redis:?}").contains("hunter2"));
        assert!(decode::<Redis<bool>>("{host: db}").is_err());
    }
}
