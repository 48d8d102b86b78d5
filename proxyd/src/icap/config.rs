//! What an ICAP service is configured as.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::Host;
use sluice_config::value::{AbsolutePath, ByteSize, ConnectionPool, HeaderName, OneOrMany, Span, TcpKeepalive, UrlStr};
use sluice_config::{Load, Place, schema_as};
use sluice_icap::Method;
use sluice_tls::RustlsClientConfig;

/// A service that is asked about messages: its URL, or a map.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Form")]
pub(crate) struct IcapServiceConfig {
    pub(crate) url: UrlStr,
    pub(crate) use_unix_socket: Option<AbsolutePath>,
    pub(crate) tls_client: Option<RustlsClientConfig>,
    pub(crate) tls_name: Option<Host>,
    pub(crate) tcp_keepalive: TcpKeepalive,
    pub(crate) tcp_connect_timeout: Span,
    pub(crate) icap_connection_pool: ConnectionPool,
    pub(crate) icap_max_header_size: ByteSize,
    pub(crate) no_preview: bool,
    pub(crate) preview_data_read_timeout: Span,
    pub(crate) respond_shared_names: OneOrMany<HeaderName>,
    pub(crate) bypass: bool,
}

schema_as!(IcapServiceConfig => Form);

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "IcapService")]
enum Form {
    Map(Box<Map>),
    Str(UrlStr),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Map {
    /// `icap://` or `icaps://`, with user and password if the service asks for them.
    url: UrlStr,
    /// A Unix socket that is tried first, without TLS.
    #[serde(default)]
    use_unix_socket: Option<AbsolutePath>,
    /// TLS to the service, also where the URL does not say `icaps`.
    #[serde(default)]
    tls_client: Option<RustlsClientConfig>,
    /// The name that the service's certificate must hold: the URL's host by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    tls_name: Option<Host>,
    /// Probes on connections.
    #[serde(default = "keepalive")]
    tcp_keepalive: TcpKeepalive,
    /// Time limit for a connection.
    #[serde(default = "connect_timeout")]
    tcp_connect_timeout: Span,
    /// Connections that wait for their next use, of each worker.
    #[serde(default, alias = "connection_pool", alias = "pool")]
    icap_connection_pool: ConnectionPool,
    /// Bytes of the head of the service's response.
    #[serde(default = "header_size")]
    icap_max_header_size: ByteSize,
    /// Send no preview, whatever the service wants.
    #[serde(default, alias = "disable_preview")]
    no_preview: bool,
    /// Time to wait for the bytes of a preview; what has come by then is sent.
    #[serde(default = "preview_timeout")]
    preview_data_read_timeout: Span,
    /// Fields of the REQMOD answer that are repeated in the RESPMOD request.
    #[serde(default)]
    respond_shared_names: OneOrMany<HeaderName>,
    /// Go on without the service when it cannot be reached.
    #[serde(default)]
    bypass: bool,
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::ON
}
fn connect_timeout() -> Span {
    Span::secs(1)
}
fn header_size() -> ByteSize {
    ByteSize(8 << 10)
}
fn preview_timeout() -> Span {
    Span::secs(4)
}

impl From<Form> for IcapServiceConfig {
    fn from(form: Form) -> Self {
        let map = match form {
            Form::Map(map) => *map,
            Form::Str(url) => Map {
                url,
                use_unix_socket: None,
                tls_client: None,
                tls_name: None,
                tcp_keepalive: keepalive(),
                tcp_connect_timeout: connect_timeout(),
                icap_connection_pool: ConnectionPool::default(),
                icap_max_header_size: header_size(),
                no_preview: false,
                preview_data_read_timeout: preview_timeout(),
                respond_shared_names: OneOrMany::default(),
                bypass: false,
            },
        };
        Self {
            url: map.url,
            use_unix_socket: map.use_unix_socket,
            tls_client: map.tls_client,
            tls_name: map.tls_name,
            tcp_keepalive: map.tcp_keepalive,
            tcp_connect_timeout: map.tcp_connect_timeout,
            icap_connection_pool: map.icap_connection_pool,
            icap_max_header_size: map.icap_max_header_size,
            no_preview: map.no_preview,
            preview_data_read_timeout: map.preview_data_read_timeout,
            respond_shared_names: map.respond_shared_names,
            bypass: map.bypass,
        }
    }
}

/// What is wrong with the URL of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("names no host")]
    Host,
    #[error("has port 0, where nobody listens")]
    Port,
    #[error("a user name needs a password, and a password a user name")]
    Password,
    #[error("is neither `icap://…` nor `icaps://…`")]
    Scheme,
}

impl IcapServiceConfig {
    /// Whether TLS is spoken.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls_client.is_some() || self.url.0.scheme() == "icaps"
    }

    /// The host of the URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub(crate) fn host(&self) -> Result<Host, UrlError> {
        let url = &self.url.0;
        if !matches!(url.scheme(), "icap" | "icaps") {
            return Err(UrlError::Scheme);
        }
        if url.username().is_empty() != url.password().is_none() {
            return Err(UrlError::Password);
        }
        if url.port() == Some(0) {
            return Err(UrlError::Port);
        }
        let text = url.host_str().ok_or(UrlError::Host)?;
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        Host::parse(bare.unwrap_or(text)).map_err(|_| UrlError::Host)
    }

    /// The port, by the scheme if the URL has none.
    pub(crate) fn port(&self) -> u16 {
        self.url.0.port().unwrap_or_else(|| self.default_port())
    }

    /// The port of the scheme.
    pub(crate) fn default_port(&self) -> u16 {
        if self.url.0.scheme() == "icaps" {
            sluice_icap::TLS_PORT
        } else {
            sluice_icap::PORT
        }
    }

    /// Records what is wrong with the service that stands at `path`, and is to be used with `method`.
    pub(crate) fn check(&self, load: &mut Load, place: &Place, path: &str, method: Method) {
        if let Err(error) = self.host() {
            load.error(place, format!("{path}.url").as_str(), error.to_string());
        }
        if method != Method::Reqmod && !self.respond_shared_names.is_empty() {
            let message = "is for `icap_reqmod_service`: what REQMOD answers is repeated to RESPMOD";
            load.error(place, format!("{path}.respond_shared_names").as_str(), message);
        }
        if self.tls_name.is_some() && !self.is_tls() {
            load.error(
                place,
                format!("{path}.tls_name").as_str(),
                "needs `tls_client`, or `icaps`",
            );
        }
        if self.is_tls() {
            let tls = self.tls_client.clone().unwrap_or_default();
            if let Err(error) = sluice_tls::rustls_client(&tls, place.base_dir()) {
                load.error(place, format!("{path}.tls_client").as_str(), error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_config::decode_text;

    use super::*;

    fn config(yaml: &str) -> Result<IcapServiceConfig, Vec<String>> {
        decode_text(yaml)
    }

    #[test]
    fn a_url_alone_is_a_service_with_defaults() {
        let config = config("icap://av.example/scan").unwrap();
        assert_eq!((config.port(), config.is_tls(), config.bypass), (1344, false, false));
        assert_eq!(config.host(), Ok(Host::parse("av.example").unwrap()));
        assert_eq!(config.preview_data_read_timeout, Span::secs(4));
    }

    #[test]
    fn ports_and_tls_follow_the_scheme() {
        // IC-08
        for (url, port, tls) in [
            ("icap://[::1]/x", 1344, false),
            ("icap://h:1345/x", 1345, false),
            ("icaps://h/x", 11344, true),
            ("icaps://h:1344/x", 1344, true),
        ] {
            let config = config(url).unwrap();
            assert_eq!((config.port(), config.is_tls()), (port, tls), "{url}");
        }
        assert!(config("{url: \"icap://h/x\", tls_client: {}}").unwrap().is_tls());
    }

    #[test]
    fn every_key_is_read() {
        let yaml = "{url: \"icap://u:p@h/x\", use_unix_socket: /run/icap.sock, tls_name: a.example, tls_client: {}, \
                    tcp_keepalive: 5s, tcp_connect_timeout: 2s, pool: {max_idle_count: 3}, icap-max-header-size: 4K, \
                    disable_preview: true, preview_data_read_timeout: 1s, respond_shared_names: [X-A, x-b], bypass: true}";
        let config = config(yaml).unwrap();
        assert_eq!(config.icap_connection_pool.max_idle_count, 3);
        assert_eq!(
            config
                .respond_shared_names
                .iter()
                .map(HeaderName::as_str)
                .collect::<Vec<_>>(),
            ["x-a", "x-b"]
        );
        assert!(config.no_preview && config.bypass);
        assert_eq!(config.icap_max_header_size, ByteSize(4000));
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for (url, error) in [
            ("http://h/x", UrlError::Scheme),
            ("icap://u@h/x", UrlError::Password),
            ("icap:///x", UrlError::Host),
        ] {
            assert_eq!(config(url).unwrap().host(), Err(error), "{url}");
        }
        assert!(config("{bypass: true}").is_err());
        assert!(config("{url: \"icap://h/x\", nonsense: 1}").is_err());
        assert!(config("nonsense").is_err());
    }
}
