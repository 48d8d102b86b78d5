//! What holds for every document, however broken; shared by unit tests and the fuzz target.

use serde::Deserialize;

use crate::decode::Context;
use crate::read::{Spot, locate};
use crate::value::{
    AbsolutePath, AsciiStr, ByteSize, ByteSize32, ConnectionPool, CpuSet, DateTime, Domain, EgressArea, FilePath,
    ForwardedHeader, FtpClient, GlobalDatagramLimit, GlobalStreamLimit, H2Interception, HappyEyeballs, HeaderName,
    HistogramMetrics, HostMatched, HttpKeepalive, HttpServerId, Network, NodeName, OneOrMany, PickPolicy, PortRange,
    Ports, ProtocolInspection, ProxyProtocolVersion, QuicTransport, RateQuota, Ratio, Redis, RegexStr,
    ResolveRedirection, ResolveStrategy, SchedAffinity, Secret, ServerPortmap, SockAddrSpec, SocketBuffer, Span,
    SpeedLimitTcp, SpeedLimitUdp, TagMap, TcpListen, TcpMiscOpts, TlsCertAgent, UdpListen, UpstreamAddr, UrlStr,
    WeightedUpstream,
};
use crate::{Misfit, NotYet, Path, PathStep, collect, read};

/// A struct with every kind of value.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Keys")]
struct Everything {
    #[expect(dead_code, reason = "that it decodes is all that counts")]
    keys: Keys,
}

impl TryFrom<Keys> for Everything {
    type Error = Misfit;

    fn try_from(keys: Keys) -> Result<Self, Misfit> {
        match (&keys.span, &keys.size) {
            (Some(_), None) => Err(Misfit::at("span", "a span needs a size")),
            (None, Some(_)) => Err(Misfit::new("a size needs a span")),
            _ => Ok(Self { keys }),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that they decode is all that counts")]
struct Keys {
    name: NodeName,
    required: Option<Inner>,
    span: Option<Span>,
    size: Option<ByteSize>,
    size32: Option<ByteSize32>,
    ascii: Option<AsciiStr>,
    secret: Option<Secret<String>>,
    tags: Option<TagMap>,
    #[serde(alias = "addr")]
    address: Option<SockAddrSpec>,
    listen: Option<TcpListen>,
    udp_listen: Option<UdpListen>,
    upstream: Option<UpstreamAddr<80>>,
    weighted: Option<OneOrMany<WeightedUpstream<80>>>,
    tcp_sock_speed_limit: Option<SpeedLimitTcp>,
    udp_sock_speed_limit: Option<SpeedLimitUdp>,
    stream_limit: Option<GlobalStreamLimit>,
    datagram_limit: Option<GlobalDatagramLimit>,
    quota: Option<RateQuota>,
    ratio: Option<Ratio>,
    cpus: Option<CpuSet>,
    affinity: Option<SchedAffinity>,
    network: Option<OneOrMany<Network>>,
    ports: Option<Ports>,
    port_range: Option<PortRange>,
    regex: Option<RegexStr>,
    redirection: Option<ResolveRedirection>,
    strategy: Option<ResolveStrategy>,
    policy: Option<PickPolicy>,
    keepalive: Option<HttpKeepalive>,
    eyeballs: Option<HappyEyeballs>,
    options: Option<TcpMiscOpts>,
    buffer: Option<SocketBuffer>,
    server_id: Option<HttpServerId>,
    proxy_protocol: Option<ProxyProtocolVersion>,
    forwarded: Option<ForwardedHeader>,
    header: Option<HeaderName>,
    url: Option<UrlStr>,
    time: Option<DateTime>,
    area: Option<EgressArea>,
    domain: Option<Domain>,
    file: Option<FilePath>,
    path: Option<AbsolutePath>,
    hosts: Option<HostMatched<Inner>>,
    portmap: Option<ServerPortmap>,
    inspection: Option<ProtocolInspection>,
    agent: Option<TlsCertAgent>,
    histogram: Option<HistogramMetrics>,
    h2: Option<H2Interception>,
    ftp: Option<FtpClient>,
    quic: Option<QuicTransport>,
    pool: Option<ConnectionPool>,
    redis: Option<Redis<Inner>>,
    later: Option<NotYet>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[serde(alias = "a")]
    one: u8,
    #[serde(alias = "b")]
    two: String,
    three: Option<Vec<f64>>,
}

/// Reads a document, decodes it, and finds the place of each error.
///
/// # Panics
/// If an error has no place in the text, or a document is both right and wrong.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (documents, errors) = read::yaml(text);
    for (index, node) in documents.iter().enumerate() {
        let decoded = collect::decode(node, Context::default(), |decoder| Everything::deserialize(decoder));
        assert_eq!(decoded.value.is_none(), !decoded.errors.is_empty(), "{decoded:?}");
        if !errors.is_empty() {
            continue; // dropped duplicates have no place of their own
        }
        for flaw in decoded.errors.iter().chain(&decoded.warnings).take(20) {
            let mark = closest(text, index, &flaw.path, flaw.on_key);
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            assert!(
                mark.is_some_and(|line| line >= 1 && line <= lines + 1),
                "{flaw:?} is on line {mark:?}"
            );
            let _ = flaw.path.show(node);
        }
    }
    let _ = crate::Node::from_json(text);
}

/// The line of a path, or of the closest part above it.
fn closest(text: &str, document: usize, path: &Path, on_key: bool) -> Option<usize> {
    let mut steps: &[PathStep] = path.steps();
    let mut on_key = on_key;
    loop {
        if let Some(mark) = locate(text, document, Spot { path: steps, on_key }) {
            return Some(mark.line);
        }
        (_, steps) = steps.split_last()?;
        on_key = false;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_sample_of_the_fuzz_corpus_holds() {
        let corpus = Path::new("../../fuzz/corpus/config_document");
        let mut samples = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            super::document(&fs::read(entry.unwrap().path()).unwrap());
            samples += 1;
        }
        assert!(samples >= 10, "there are {samples} samples");
    }

    #[test]
    fn every_prefix_and_every_lost_line_of_a_document_holds() {
        let text = include_str!("../tests/everything.yml");
        for (at, _) in text.char_indices().step_by(7) {
            super::document(&text.as_bytes()[..at]);
        }
        let lines: Vec<_> = text.lines().collect();
        for lost in 0..lines.len() {
            let rest: Vec<_> = lines
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != lost)
                .map(|(_, line)| *line)
                .collect();
            super::document(rest.join("\n").as_bytes());
        }
    }

    #[test]
    fn a_right_document_is_right() {
        let text = include_str!("../tests/everything.yml");
        let decoded = crate::decode_text::<super::Everything>(text);
        assert!(decoded.is_ok(), "{:?}", decoded.err());
    }
}
