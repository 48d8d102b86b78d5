//! A name server for tests, over every transport, with a certificate of a CA of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use hickory_net::{
    proto::{
        op::{Header, HeaderCounts, Metadata, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{A, AAAA, CNAME},
        },
    },
    runtime::Time,
    xfer::Protocol,
};
use hickory_server::{
    Server,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use sluice_tls::rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sluice_wire::dns::name_of;
use tokio::net::{TcpListener, UdpSocket};

/// A name's records in a reply.
pub(crate) enum Says {
    /// No reply at all.
    Nothing,
    /// Only a response code.
    Code(ResponseCode),
    /// Records: owner, TTL, data.
    Records(Vec<(&'static str, u32, RData)>),
    /// As many addresses.
    Many(u8),
    /// Over UDP a truncated reply, over anything else these addresses.
    TruncatedOverUdp(u8),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) record_type: RecordType,
    pub(crate) protocol: Protocol,
}

type Script = Box<dyn Fn(&Asked) -> Says + Send + Sync>;

struct Handler {
    script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A running server.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    server: Server<Handler>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Which transport a server listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listens {
    Plain,
    Tls,
    Https,
    H3,
    Quic,
}

pub(crate) fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

pub(crate) fn aaaa(last: u16) -> RData {
    RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

pub(crate) fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(name_of(target).unwrap()))
}

pub(crate) fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

impl NameServer {
    /// Answers over UDP and TCP.
    pub(crate) async fn start(script: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", Listens::Plain, script).await
    }

    pub(crate) async fn start_at(
        address: &str,
        listens: Listens,
        script: impl Fn(&Asked) -> Says + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::default();
        let mut server = Server::new(Handler {
            script: Box::new(script),
            asked: Arc::clone(&asked),
        });
        let address = address.parse().unwrap();
        let timeout = Duration::from_secs(5);
        let address = match listens {
            Listens::Plain => {
                let (socket, listener) = both(address).await;
                server.register_socket(socket);
                let address = listener.local_addr().unwrap();
                server.register_listener(listener, timeout, 64);
                address
            }
            Listens::Tls | Listens::Https => {
                let listener = TcpListener::bind(address).await.unwrap();
                let address = listener.local_addr().unwrap();
                let result = match listens {
                    Listens::Tls => server.register_tls_listener_with_tls_config(listener, timeout, tls("dot")),
                    _ => {
                        let path = "/dns-query".to_owned();
                        server.register_https_listener_with_tls_config(listener, timeout, tls("h2"), None, path)
                    }
                };
                result.unwrap();
                address
            }
            Listens::H3 | Listens::Quic => {
                let socket = UdpSocket::bind(address).await.unwrap();
                let address = socket.local_addr().unwrap();
                let result = match listens {
                    Listens::H3 => server.register_h3_listener_with_tls_config(socket, timeout, tls("h3"), None),
                    _ => server.register_quic_listener_and_tls_config(socket, timeout, tls("doq")),
                };
                result.unwrap();
                address
            }
        };
        Self { address, server, asked }
    }

    /// All queries so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Closes all sockets.
    pub(crate) async fn stop(mut self) {
        let _ = self.server.shutdown_gracefully().await;
    }
}

/// UDP and TCP on one port; of a free port the other kind may be taken by somebody else.
async fn both(address: SocketAddr) -> (UdpSocket, TcpListener) {
    loop {
        let listener = TcpListener::bind(address).await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (socket, listener);
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let metadata = Metadata::response_from_request(&request.metadata);
        let silence = ResponseInfo::from(Header {
            metadata,
            counts: HeaderCounts::default(),
        });
        let Ok(info) = request.request_info() else {
            return silence;
        };
        let asked = Asked {
            name: info.query.name().to_string().trim_end_matches('.').to_owned(),
            record_type: info.query.query_type(),
            protocol: info.protocol,
        };
        self.asked.lock().unwrap().push(asked.clone());
        let owner: Name = info.query.name().into();
        let many = |count| -> Vec<Record> {
            (0..count)
                .map(|n| Record::from_rdata(owner.clone(), 60, a(n)))
                .collect()
        };
        let mut metadata = metadata;
        let records = match (self.script)(&asked) {
            Says::Nothing => return silence,
            Says::Code(code) => {
                metadata.response_code = code;
                Vec::new()
            }
            Says::Records(records) => records
                .into_iter()
                .map(|(owner, ttl, data)| Record::from_rdata(name_of(owner).unwrap(), ttl, data))
                .collect(),
            Says::Many(count) => many(count),
            Says::TruncatedOverUdp(count) => {
                metadata.truncation = asked.protocol == Protocol::Udp;
                if metadata.truncation { Vec::new() } else { many(count) }
            }
        };
        let builder = MessageResponseBuilder::from_message_request(request);
        let message = builder.build(metadata, &records, [], [], []);
        response.send_response(message).await.unwrap_or(silence) // the asker may be gone
    }
}

/// A certificate for `dns.example.net` and 127.0.0.1, and the CA that it is from.
fn certificates() -> &'static (rcgen::Certificate, rcgen::Certificate, rcgen::KeyPair) {
    static CERTIFICATES: OnceLock<(rcgen::Certificate, rcgen::Certificate, rcgen::KeyPair)> = OnceLock::new();
    CERTIFICATES.get_or_init(|| {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["dns.example.net".to_owned(), "127.0.0.1".to_owned()];
        let leaf = rcgen::CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
        (ca_certificate, leaf, key)
    })
}

/// The CA's certificate.
pub(crate) fn ca() -> &'static rcgen::Certificate {
    &certificates().0
}

fn tls(protocol: &str) -> Arc<ServerConfig> {
    let (_, leaf, key) = certificates();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.max_early_data_size = if protocol == "dot" || protocol == "h2" {
        0
    } else {
        u32::MAX
    };
    Arc::new(config)
}

/// A client's configuration that trusts the CA, or nobody.
pub(crate) fn client(trusting: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if trusting {
        roots.add(CertificateDer::from(ca().der().to_vec())).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
